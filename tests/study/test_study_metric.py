"""A metric that no run of a study will have is refused when it is planned, not after everything has been trained."""

import logging
from pathlib import Path

import pytest
from conftest import Write

from tlkit.errors import UserError
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


@pytest.mark.parametrize("name", ["test/loss", "val/f1", "test/accuracy/-40nm", "seconds_train", "train/loss", "own"])
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
    plan_study(a_study(write(**changes), "test/acc"))


def test_the_worst_as_the_best_is_noted(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tlkit"):
        plan_study(a_study(write(), "test/accuracy", "min"))
    assert "metric.mode: min, but Classification selects checkpoints by val/accuracy with mode max" in caplog.text
