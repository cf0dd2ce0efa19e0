"""Faults of a study file: all of them, each where it is and once, and none that only follows from another."""

import re

import pytest
from conftest import Write
from test_study_spec import GOOD, lines_of, refusal, study


@pytest.mark.parametrize(
    "goal",
    [
        "3",
        "'  '",
        "[Does it help?]",
        "|\n  Does it help?\n  If so, how much?",
        "Does it help? If so, how much?",
        "'Does it help? It does.'",
    ],
)
def test_a_goal_is_one_sentence(goal: str, write: Write) -> None:
    message = refusal(write().with_name("s.yaml"), GOOD.replace("Does transfer help at any rate?", goal))
    assert "1 fault\n  line 2  goal: expected the question as one sentence on one line, got " in message


@pytest.mark.parametrize(
    "goal",
    [
        "Does it help at 0.001? (it may)",
        "Which protocol, e.g. LayerFreezing, is best?",
        "ToyNet vs. Other by A. Krizhevsky et al. Which?",
        "'  Does it help?  '",
        ">-\n  Does it\n  help?",
    ],
)
def test_a_point_is_not_always_the_end_of_a_sentence(goal: str, write: Write) -> None:
    found = study(write().with_name("s.yaml"), GOOD.replace("Does transfer help at any rate?", goal))
    assert found.goal.strip() == found.goal


FOLLOW = """\
name: toys
gaol: Does it help?
base: toy.yaml
scientific:
  pretrain.layers: 0, 2
  model.network.width: [4, six, -6]
nuisance:
  data.batch_size: [8, 16]
replicates: [seed_everything: [0, 1]]
fixed:
  data.num_workers: none
  trainer.max_epoch: 3
search: {points: 0}
metric:
  name: test/acc
  mode: best
  labels: accuracy
where: pretrain.layers > 0 and seed_everything < 2
report: {answer: pretrain.layers}
"""


def test_what_follows_from_a_fault_is_not_told_as_another(write: Write) -> None:
    message = refusal(write().with_name("s.yaml"), FOLLOW)
    assert lines_of(message) == [2, 5, 6, 6, 8, 9, 11, 12, 13, 13, 15, 16, 17]
    assert message.count("\n") == 13  # the base is not blamed for what is fixed in it
    told = dict(re.findall(r"line \d+  ([\w.]+): (.*)", message))
    assert "did you mean 'goal'" in told["gaol"] and "goal" not in told
    assert told["nuisance.data.batch_size"].startswith("this is not tuned")
    assert told["fixed.data.num_workers"].startswith("expected int")
    assert told["metric.labels"].startswith("unknown key; did you mean 'label'")
    assert told["search.points"].startswith("expected a whole number")


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ("common: {pretrain.layers: 2}", "common: pretrain.layers 2", [7]),  # which has a momentum, nevertheless
        ("none: {pretrain", "none: {pretrain.layer: 0, pretrain", [6]),
        ("  model.network.width: [4, 6]\n", "  model.network.width: 4\nwhere: model.network.width > 4 = 3\n", [8, 9]),
        ("[4, 6]\nnuisance:", "[[4], 6]\nnuisance:\n  model.network.width: [4]", [8, 10]),
        (
            "model.network.width: [4, 6]",
            "model.network: [{class_path: toy.ToyNet}]\nfixed: {model.network.widht: 4}",
            [9],
        ),
        ("[[0, 8], [1, 4]]", "[[-1, 8], [1, x], [true, 3]]", [13, 13, 13]),
        ("mode: max", "mode: max, labels: x", [14]),
        ("none: 0.9, common: 0.8}}", "none: 0.9}}\nwhere: model.optimizer.momentum > 0.1", [11]),
        ("[4, 6]", "[4, 4]\nwhere: model.network.width == many", [8, 9]),
        ("metric:", "model.network.num_classes: [4]\nmetric:", [14]),
        ("[0.05, 0.01]", "[0.05]\n  trainer.accelerator: [cpu, gpux]", [11]),
    ],
)
def test_a_fault_is_told_where_it_is_and_nothing_else(before: str, after: str, lines: list[int], write: Write) -> None:
    message = refusal(write().with_name("s.yaml"), GOOD.replace(before, after))
    assert lines_of(message) == lines and message.count("\n") == len(lines)


def test_a_section_that_cannot_be_read_has_factors_nevertheless(write: Write) -> None:
    path = write().with_name("s.yaml")
    decided = "nuisance:\n  model.optimizer.lr: {per: protocol, values: {a: 0.1}}\nwhere: protocol == 'a'\n"
    text = "name: toys\ngoal: Which?\nbase: toy.yaml\nmetric: {name: test/loss, mode: min}\n" + decided
    assert lines_of(refusal(path, text + "scientific:\n- protocol: {a: {pretrain.layers: 0}}\n")) == [8]
    assert lines_of(refusal(path, text.replace(decided, "scientific:\n"))) == [5]


def test_every_path_is_said_once(write: Write) -> None:
    text = GOOD.replace(
        "[4, 6]", "[4, x]\n  callbacks.LayerFreezing.layers: [1, 9]\n  callbacks.LayerFreezing.layer: [1]"
    )
    text = text.replace(
        "model.optimizer.lr: [0.05, 0.01]", "model.optimizer.lr, model.optimizer.nesterov: [[fast, true]]"
    )
    text = text.replace("none: {pretrain.layers: 0, callbacks.LayerFreezing.layers: 0}", "none: {pretrain.layer: 0}")
    message = refusal(write().with_name("s.yaml"), text)
    for told in (
        "scientific.protocol: pretrain.layer: unknown",  # a name of one's own: the path is said for the first time
        "scientific.model.network.width: expected int",
        "scientific.callbacks.LayerFreezing.layers: expected at most",
        "scientific.callbacks.LayerFreezing.layer: unknown key",
        "nuisance.model.optimizer.lr: expected float",
    ):
        assert f"  {told}" in message


def test_levels_are_checked_beside_faults_of_the_base(write: Write) -> None:
    path = write(**{"trainer.max_epochs": "many", "model.init_args.network.init_args": {"widht": 4}})
    message = refusal(path.with_name("s.yaml"), GOOD.replace("[4, 6]", "[4, x]").replace("[0.05, 0.01]", "[fast]"))
    assert lines_of(message.partition("base: ")[0]) == [8, 10]
    assert "trainer.max_epochs: expected" in message and "did you mean 'width'" in message


def test_without_a_where_a_level_is_refused_only_if_nothing_accepts_it(write: Write) -> None:
    text = GOOD.replace(
        "model.network.width: [4, 6]", "model.network.width: [4, -6]\n  pretrain.with: [{data.stage: pretrain}, null]"
    )
    assert lines_of(refusal(write().with_name("s.yaml"), text + "where: widht > 0\n")) == [8, 16]


def test_an_experiment_in_place_of_a_study_is_one_fault(write: Write) -> None:
    path = write()
    message = refusal(path, path.read_text())
    assert "1 fault\n  line 1  expected a study, got an experiment; name it as base: in a study, or train it" in message
    assert f"tlkit fit --config {path}" in message


def test_several_values_per_level_are_told_how_to_be_tried(write: Write) -> None:
    text = GOOD.replace("{none: 0.9, common: 0.8}", "{none: [0.9, 0.5], common: 0.8}")
    message = refusal(write().with_name("s.yaml"), text)
    assert "1 fault" in message and "nuisance.model.optimizer.momentum: expected float, got a list; " in message
    assert "per takes one value for each level of protocol: to try several, list them all as levels" in message
