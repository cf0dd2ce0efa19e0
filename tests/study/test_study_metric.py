"""A metric that no run of a study will have is refused when it is planned, not after everything has been trained."""

import logging
import re
from pathlib import Path

import pytest
from conftest import Write

from tlkit.errors import UserError
from tlkit.study.commands import run
from tlkit.study.plan import plan_study

STUDY = """\
name: toys
goal: Is it there?
base: toy.yaml
scientific: {{pretrain.layers: [0, 2]}}
metric: {{name: {name}, mode: {mode}}}
"""
USERS = """\
from lightning.pytorch import Callback
from tlkit.tasks import Classification


class Own(Classification):
    pass


class Watch(Callback):
    pass
"""


def a_study(toy: Path, name: str, mode: str = "max") -> Path:
    path = toy.with_name("study.yaml")
    path.write_text(STUDY.format(name=name, mode=mode))
    return path


@pytest.mark.parametrize("phase", ["test", "val", "before"])
def test_a_metric_that_no_run_has_is_refused(phase: str, write: Write) -> None:
    with pytest.raises(UserError) as refused:
        plan_study(a_study(write(), f"{phase}/acc"))
    valid = ", ".join(f"{phase}/{name}" for name in ("loss", "accuracy", "f1", "precision", "recall"))
    said = str(refused.value)
    assert f"line 5  metric.name: expected a metric that runs have, got '{phase}/acc'; did you mean" in said
    assert f"'{phase}/accuracy'? valid: " in said
    assert sorted(said.partition("valid: ")[2].split(", ")) == sorted(valid.split(", "))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("accuracy", "test/accuracy"), ("tets/loss", "test/loss"), ("second_train", "seconds_train"), ("own", "")],
)
def test_a_metric_without_its_phase_is_refused(name: str, meant: str, write: Write) -> None:
    with pytest.raises(UserError) as refused:
        plan_study(a_study(write(), name))
    did_you_mean = f"; did you mean '{meant}'? valid: test/loss, " if meant else "; valid: test/loss, "
    assert f"line 5  metric.name: expected a metric that runs have, got '{name}'{did_you_mean}" in str(refused.value)
    assert str(refused.value).endswith("train/loss, and what docs/study_table.md lists")


def test_a_metric_that_only_runs_can_tell_is_noted_by_run(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_task_of_a_user.py").write_text(USERS)
    path = a_study(write(**{"model.class_path": "a_task_of_a_user.Own"}), "accuracy")
    run(["run", str(path), "--engine", "inline"])
    before, _, after = capsys.readouterr().out.partition("table: ")[0].partition("note: metric: none of ")
    assert "note: metric: accuracy is neither of docs/study_table.md" in before and "note: there are no rep" in before
    assert "2 finished runs has 'accuracy'; did you mean 'val/accuracy'? there are: " in after
    run(["plan", str(path)])
    assert "note: metric: none of 2 finished runs has 'accuracy'" in capsys.readouterr().out


GOOD = """\
name: toys
goal: Is it there?
base: toy.yaml
scientific:
  pretrain.layers: [0, 2]
  pretrain.with: [{data.stage: pretrain}, null]
nuisance:
  model.optimizer.lr: [0.05, 0.01]
  model.network.width: [4]
replicates:
  seed_everything: [0, 1]
metric: {name: test/acc, mode: max}
where: pretrain.layers < 99
budget: {hours: 3}
report: {answer: pretrain.layers}
"""
COMBINATIONS = "combinations cannot run; leave them out with `where`:\n  pretrain.layers: 2, pretrain.with: none"


@pytest.mark.parametrize(
    ("before", "after", "line", "combinations"),
    [
        ("[0.05, 0.01]", "[0.05, 0.01]", 0, "4 of 16"),
        ("hours: 3", "hours: 3h", 14, "4 of 16"),
        ("budget: {hours", "budget: {minutes", 14, "4 of 16"),
        ("mode: max", "mode: best", 12, "4 of 16"),
        ("answer: pretrain.layers", "answer: layers", 15, "4 of 16"),
        ("goal: Is it there?", "goal:", 2, "4 of 16"),
        ("seed_everything: [0, 1]", "seed_everything: 2", 11, "2 of 8"),
        ("seed_everything: [0, 1]", "seed_everything: [0, x]", 11, "2 of 8"),
        ("[0.05, 0.01]", "[0.05, fast]", 8, "2 of 8"),
        ("[0.05, 0.01]", "0.05, 0.01", 8, "2 of 8"),
        ("optimizer.lr", "optimizer.lrr", 8, "2 of 8"),
        ("[4]", "[4, -6]", 9, "4 of 16"),
        ("[0, 2]", "[0, 2, 9]", 5, "4 of 16"),
        ("where: pretrain.layers", "where: layers", 13, ""),  # it may be meant to leave them out
    ],
)
def test_a_metric_and_combinations_are_told_beside_another_fault(
    before: str, after: str, line: int, combinations: str, write: Write
) -> None:
    path = write().with_name("study.yaml")
    path.write_text(GOOD.replace(before, after))
    with pytest.raises(UserError) as refused:
        plan_study(path)
    said = str(refused.value)
    told = {int(number) for number in re.findall(r"line (\d+)  ", said)}
    assert told == {12, line} - {0}
    assert "line 12  metric.name: expected a metric that runs have, got 'test/acc'" in said
    assert (f"\n{combinations} {COMBINATIONS}" in said) if combinations else (COMBINATIONS not in said)


@pytest.mark.parametrize(
    "task",
    ["model.class_path: [Classification, Restoratio]", "task: [Classification]", "task: {a: {data.target: x}, b: {}}"],
)
def test_a_metric_is_not_refused_where_a_faulty_factor_may_decide_it(task: str, write: Write) -> None:
    path = write().with_name("study.yaml")
    path.write_text(f"{STUDY.format(name='test/psnr', mode='max')}nuisance:\n  {task}\n")
    with pytest.raises(UserError) as refused:
        plan_study(path)
    assert "line 7" in str(refused.value) and "metric.name" not in str(refused.value)


def test_the_line_of_a_metric_is_that_of_its_name(write: Write) -> None:
    path = a_study(write(), "test/acc")
    path.write_text(path.read_text().replace("{name: test/acc, mode: max}", "\n  mode: max\n  name: test/acc"))
    with pytest.raises(UserError, match="line 7  metric.name"):
        plan_study(path)


@pytest.mark.parametrize("name", ["test/loss", "val/f1", "test/accuracy/-40nm", "seconds_train", "train/loss"])
def test_what_a_run_may_have_is_accepted(name: str, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    plan_study(a_study(write(), name))
    assert "metric.mode" not in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"model.class_path": "a_users_classes.Own"},
        {"trainer.callbacks": [{"class_path": "a_users_classes.Watch"}]},
    ],
)
def test_what_a_users_class_may_log_is_accepted(
    changes: dict[str, object], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_users_classes.py").write_text(USERS)
    assert plan_study(a_study(write(**changes), "test/acc")).plan.stages


def test_the_worst_as_the_best_is_noted(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tlkit"):
        plan_study(a_study(write(), "test/accuracy", "min"))
    assert "metric.mode: min, but Classification selects checkpoints by val/accuracy with mode max" in caplog.text
