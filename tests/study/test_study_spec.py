"""A study's YAML: what is refused, all of it at once, and what the combinations are."""

import re
from pathlib import Path

import pytest
from conftest import Write

from tlkit import plugins
from tlkit.errors import UserError
from tlkit.study.cells import cells
from tlkit.study.check import level_faults
from tlkit.study.plan import plan_study
from tlkit.study.spec import Study
from tlkit.study.spec_file import read_study

ROOT = Path(__file__).parents[2]
GOOD = """\
name: toys
goal: Does transfer help at any rate?
base: toy.yaml
scientific:
  protocol:
    none: {pretrain.layers: 0, callbacks.LayerFreezing.layers: 0}
    common: {pretrain.layers: 2}
  model.network.width: [4, 6]
nuisance:
  model.optimizer.lr: [0.05, 0.01]
  model.optimizer.momentum: {per: protocol, values: {none: 0.9, common: 0.8}}
replicates:
  seed_everything, pretrain.with.seed_everything: [[0, 8], [1, 4]]
metric: {name: test/accuracy, mode: max}
"""

BAD = """\
name: toys
base: toy.yaml
scientifik: {}
scientific:
  model.network.widht: [4, 6]
  data.num_workers: [0, x]
  callbacks.Freezing.layers: [1]
  foo: [1]
nuisance:
  trainer.max_epochs: [3, 4]
  pretrain.with.data.stag: [pretrain]
  data.batch_size: [8, 16]
  model.optimizer.lr: {per: nope, values: {1: 2}}
  "data.validation, seed_everything": [[true, 2], [false]]
metric: {name: test/accuracy, mode: best}
budget: {hour: 3}
where: protokol == "none"
"""


def study(path: Path, text: str) -> Study:
    path.write_text(text)
    found, faults = read_study(path)
    assert found and not faults
    return found


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        plan_study(path)
    return str(caught.value)


def test_all_faults_are_told_at_once_with_their_lines(write: Write) -> None:
    message = refusal(write().with_name("bad.yaml"), BAD)
    faults = {int(match[1]): match[0] for match in re.finditer(r"line (\d+)  .*", message)}
    assert list(faults) == [1, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17]
    assert "goal: missing" in faults[1]
    assert "'scientific'" in faults[3]  # what may have been meant
    assert "did you mean 'width'" in faults[5]
    assert "expected int, got 'x'" in faults[6]
    assert "expected one 'Freezing' in the list" in faults[7] and "LayerFreezing" in faults[7]
    assert "'foo' is no path" in faults[8]
    assert "never tuned" in faults[10]
    assert "did you mean 'stage'" in faults[11]
    assert "not tuned for quality" in faults[12]
    assert "expected a scientific factor, got 'nope'" in faults[13]
    assert "expected a list of 2 values" in faults[14]
    assert "expected min or max" in faults[15]
    assert "'hours'" in faults[16]
    assert "expected a column, got 'protokol'" in faults[17]


def test_faults_of_the_experiment_are_told_beside_those_of_the_study(write: Write) -> None:
    path = write(**{"trainer.max_epochs": "many"})
    message = refusal(path.with_name("s.yaml"), GOOD.replace("mode: max", "mode: best"))
    assert "line 14  metric.mode" in message
    assert "trainer.max_epochs: expected" in message


def test_a_value_that_a_class_refuses_is_told_with_its_line(write: Write) -> None:
    message = refusal(
        write().with_name("s.yaml"), GOOD.replace("common: {pretrain.layers: 2}", "common: {pretrain.layers: 9}")
    )
    assert "line 7  scientific.protocol: pretrain.layers: expected" in message


def lines_of(message: str) -> list[int]:
    return [int(line) for line in re.findall(r"line (\d+)  ", message)]


def test_a_path_that_begins_like_a_faulty_one_is_not_blamed_for_it(write: Write) -> None:
    factors = "nuisance:\n  model.optimizer.lrr: [0.1]\n  model.optimizer.lr: [0.1]\nreplicates:"
    assert refusal(write().with_name("s.yaml"), GOOD.replace("replicates:", factors)).count("unknown key") == 1


def test_values_that_classes_refuse_are_told_beside_those_of_the_wrong_type(write: Write) -> None:
    text = GOOD.replace("common: {pretrain.layers: 2}", "common: {pretrain.layers: 9}").replace("[4, 6]", "[x]")
    message = refusal(write().with_name("s.yaml"), text.replace("mode: max", "mode: best"))
    assert lines_of(message) == [7, 8, 14]


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("model.network.width: [4, 6]", "model.network.width: [-4, 6]", [8]),
        ("model.network.width: [4, 6]", "model.network.width: [-4, -6]", [8, 8]),
        ("model.network.width: [4, 6]", "model.network.width: [-4]", [8]),
        ("none: {pretrain.layers: 0,", "none: {pretrain.layers: 9,", [6]),
        ("model.network.width: [4, 6]", "pretrain.reuse: [true, false]\nfixed: {model.network.width: -4}", [9]),
    ],
)
def test_the_level_that_is_refused_is_the_one_that_is_told(
    before: str, after: str, lines: list[int], write: Write
) -> None:
    assert lines_of(refusal(write().with_name("s.yaml"), GOOD.replace(before, after))) == lines


def test_epochs_may_be_a_scientific_factor_with_a_note(write: Write) -> None:
    found = study(
        write().with_name("s.yaml"), GOOD.replace("model.network.width: [4, 6]", "trainer.max_epochs: [1, 3]")
    )
    assert any("trainer.max_epochs differs between scientific levels" in note for note in found.notes)


LONG = "{a: {trainer: {max_epochs: 1}}, b: {trainer: {max_epochs: 2}}}"
DATA = "{class_path: toy.ToyData, init_args: {batch_size: %s}}"


@pytest.mark.parametrize(
    ("role", "levels", "expected"),
    [
        ("nuisance", f"how: {LONG}", "nuisance.how: trainer.max_epochs is the length of the run, which is never tuned"),
        ("nuisance", "how: {a: {}, b: {trainer.max_epochs: 2}}", "trainer.max_epochs is the length of the run"),
        ("nuisance", f"data.of: [{DATA % 4}, {DATA % 8}]", "data.of.batch_size is not tuned for quality"),
        ("nuisance", f"data.of: [{DATA % 4}, {DATA % 4} ]".replace("ToyData", "Other", 1), ""),
        ("replicates", "trainer.max_epochs: [1, 2]", "this is the length of the run: longer runs do not"),
        ("replicates", f"how: {LONG}", "replicates.how: trainer.max_epochs is the length"),
        ("replicates", "seed_everything, data.batch_size: [[0, 4], [1, 8]]", "data.batch_size is the batch size: runs"),
        ("replicates", "seed_everything, data.batch_size: [[0, 4], [1, 4]]", ""),
    ],
)
def test_length_and_batch_size_are_neither_tuned_nor_repeated(
    role: str, levels: str, expected: str, write: Write
) -> None:
    path = write().with_name("s.yaml")
    path.write_text(f"{GOOD.partition('nuisance')[0]}{role}:\n  {levels}\nmetric: {{name: test/accuracy, mode: max}}\n")
    told = "".join(f"line {f.line}  {f.path}: {f.message}" for f in read_study(path)[1])
    assert f"line 10  {role}." * bool(expected) in told and expected in told and bool(told) == bool(expected)


def test_no_replicates_are_told(write: Write) -> None:
    lines = [line for line in GOOD.splitlines() if "replicates" not in line and "seed_everything" not in line]
    found = study(write().with_name("s.yaml"), "\n".join(lines))
    assert any("no replicates" in note for note in found.notes)


def test_levels_are_combined_and_zipped_ones_go_together(write: Write) -> None:
    found = [cell.labels for cell in cells(study(write().with_name("s.yaml"), GOOD))]
    assert len(found) == 2 * 2 * 2 * 2
    assert {(cell["seed_everything"], cell["pretrain.with.seed_everything"]) for cell in found} == {(0, 8), (1, 4)}
    assert {(cell["protocol"], cell["model.optimizer.momentum"]) for cell in found} == {("none", 0.9), ("common", 0.8)}


NESTED = """{none: 0.9, common: {4: 0.8, 6: 0.7}}"""


def test_several_scientific_levels_may_decide_a_value(write: Write) -> None:
    text = GOOD.replace(
        "per: protocol, values: {none: 0.9, common: 0.8}", f'per: "protocol, model.network.width", values: {NESTED}'
    )
    found = [cell.labels for cell in cells(study(write().with_name("s.yaml"), text))]
    decided = {(cell["protocol"], cell["model.network.width"], cell["model.optimizer.momentum"]) for cell in found}
    assert decided == {("none", 4, 0.9), ("none", 6, 0.9), ("common", 4, 0.8), ("common", 6, 0.7)}
    faults = refusal(write().with_name("bad.yaml"), text.replace("4: 0.8", "5: 0.8"))
    assert "line 11  nuisance.model.optimizer.momentum.values.common: missing for model.network.width: 4" in faults
    assert "values.common.5: model.network.width has no such level; it has 4, 6" in faults


def test_where_keeps_combinations(write: Write) -> None:
    condition = "where: protocol == 'none' or model.network.width > 4 and seed_everything == 1\n"
    found = [cell.labels for cell in cells(study(write().with_name("s.yaml"), GOOD + condition))]
    assert len(found) == 8 + 2
    assert all(c["protocol"] == "none" or (c["model.network.width"] > 4 and c["seed_everything"] == 1) for c in found)
    message = refusal(write().with_name("bad.yaml"), GOOD + "where: protokol == 'none'\n")
    assert "line 15" in message and "did you mean 'protocol'" in message


SHIPPED = {
    "alexnet_3_1": 5 * 7 * 4,
    "alexnet_3_1_small": 8 * 3 * 8,
    "alexnet_3_2": 8 * 7 * 4,
    "alexnet_3_2_small": 8 * 3 * 8,
    "alexnet_3_3": 4 * 2 * 7 * 4,
    "alexnet_3_3_small": 4 * 2 * 3 * 8,
    "alexnet_3_4": 7 * 7 * 4,
    "alexnet_3_4_small": 7 * 3 * 8,
    "alexnet_3_5": 8 * 7 * 4,
    "alexnet_3_5_small": 8 * 3 * 8,
    "alexnet_3_6": 3 * 7 * 4,
    "alexnet_3_6_small": 4 * 3 * 8,
    "hrtem_compute": 3 * 2 * 2 * 4 * 3,
    "hrtem_compute_small": 3 * 2 * 3 * 3,
    "hrtem_hyperparameters": 7200,
    "hrtem_hyperparameters_small": 2 * 3 * 2 * 2 * 2 * 3 * 3,
    "scaling": None,
    "scaling_small": None,
}
"""Combinations of each study that comes with tlkit; how many stages are timed by scaling studies is tested there."""


def test_every_study_that_comes_with_it_is_tested() -> None:
    assert {path.stem for path in (ROOT / "configs" / "studies").glob("*.yaml")} == set(SHIPPED)


@pytest.mark.parametrize(("name", "number"), SHIPPED.items())
def test_the_studies_that_come_with_it_have_no_faults(name: str, number: int | None) -> None:
    path = ROOT / "configs" / "studies" / f"{name}.yaml"
    found, faults = read_study(path)
    assert found and not faults
    combined = cells(found)
    assert number in (None, len(combined))
    plugins.load()
    assert level_faults(found, combined) == []


def test_a_seed_that_is_none_is_refused(write: Write) -> None:
    message = refusal(write().with_name("s.yaml"), GOOD.replace("[[0, 8], [1, 4]]", "[[true, 8], [1, 4]]"))
    assert "seed_everything: expected a number" in message


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("base: toy.yaml", "base: toi.yaml", "line 3  base: expected the file of an experiment"),
        ("[4, 6]", "[4, 4]", "level 4 is given twice"),
        ("none: 0.9, ", "", "missing for protocol: none"),
        ("[0.05, 0.01]", "[]", "expected a list of levels"),
        ("protocol:", "status:", "is a column of every study's table"),
        ("model.optimizer.lr: [", "model.network.width: [", "is set by scientific.model.network.width as well"),
        ("model.optimizer.lr: [", "model.network.init_args.width: [", "scientific.model.network.width as well"),
        ("name: toys", "name: ../toys", "expected a name that a directory can have"),
    ],
)
def test_what_else_is_refused(before: str, after: str, expected: str, write: Write) -> None:
    text = GOOD.replace(before, after).replace("per: protocol", f"per: {'status' if 'status' in after else 'protocol'}")
    assert expected in refusal(write().with_name("s.yaml"), text)


def test_what_the_planning_machine_lacks_is_no_fault(write: Write) -> None:
    accelerators = "trainer.accelerator: [cpu, gpu]"
    path = write().with_name("s.yaml")
    path.write_text(GOOD.replace("model.network.width: [4, 6]", accelerators))
    assert len(plan_study(path).plan.stages) > 0
