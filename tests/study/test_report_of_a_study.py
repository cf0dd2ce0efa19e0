"""What the report of a study takes from its YAML: roles of columns, what is fixed, what is repeated."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from tlkit.study import study_report
from tlkit.study.report.mapping import TableMapping
from tlkit.study.spec_file import read_study

BASE = """
model:
  class_path: Classification
  init_args:
    optimizer: {class_path: SGD, init_args: {lr: 0.01, momentum: 0.9}}
data: {class_path: ClassSplit, init_args: {split: 0, examples_per_class: 10, batch_size: 32}}
pretrain: {layers: 5, with: {data.stage: pretrain}}
trainer:
  max_epochs: 40
  callbacks:
    - {class_path: LayerFreezing, init_args: {layers: 1}}
    - {class_path: StepDecay, init_args: {every: 30}}
"""
STUDY = """
name: s
goal: Which rate?
base: base.yaml
scientific:
  high_rate_layers: {1: {model.lr_scale: {fc8: 1.0}}, 2: {model.lr_scale: null}}
  model.optimizer.lr: [0.01, 0.1]
  data.examples_per_class: [10, 25]
replicates: {REPLICATES}
fixed:
  trainer.callbacks: [{class_path: StepDecay, init_args: {every: 20}}]
  data.batch_size: 64
metric: {name: test/accuracy, mode: max}
"""


def mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicates: str, **columns: Any) -> TableMapping:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "s.yaml").write_text(STUDY.replace("REPLICATES", replicates))
    study, faults = read_study(tmp_path / "s.yaml")
    assert study and not faults
    table = pd.DataFrame(
        {
            "stage": "transfer", "status": "done", "high_rate_layers": ["1", "2"], "model.optimizer.lr": 0.1,
            "data.examples_per_class": 10, "data.split": [0, 1], "seed_everything": [3, 4], "test/accuracy": [0.5, 0.6],
            "selected_by": "train/loss", "selected_mode": "min", "best_value": 0.1, "joules": None, "seconds": 5.0,
            "best_epoch_fraction": 1.0,
        }
        | columns
    )  # fmt: skip
    monkeypatch.setattr(study_report, "study_table", lambda planned: table)
    frame, made = study_report.finished(SimpleNamespace(study=study))  # type: ignore[arg-type]
    assert made.replicate in frame
    return made


def test_what_the_study_fixes_stands_in_for_what_the_experiment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = mapping(tmp_path, monkeypatch, "data.split: [0, 1]").fixed
    assert fixed["data.batch_size"] == "64"
    assert fixed["trainer.callbacks.StepDecay.every"] == "20"
    assert not any("LayerFreezing" in path for path in fixed)
    assert (fixed["seed_everything"], fixed["all else"]) == ("0", "at its default, which 'tlkit config' shows")
    assert "seed_everything" not in mapping(tmp_path, monkeypatch, "seed_everything: [3, 4]").fixed
    assert not any(path.startswith(("model.optimizer.lr", "data.examples_per_class", "data.split")) for path in fixed)
    assert (fixed["model.optimizer.momentum"], fixed["pretrain.with.data.stage"], fixed["threads"]) == (
        "0.9", "pretrain", "1",
    )  # fmt: skip


def test_a_class_that_varies_takes_its_arguments_with_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    varied = (
        "{model.optimizer.class_path: [SGD, Adam], "
        "steps: {a: {callbacks: []}, b: {callbacks: [{class_path: StepDecay, init_args: {every: 5}}]}}}"
    )
    fixed = "{model.optimizer.lr: 0.1, data.class_path: ClassSplit, data.batch_size: 64}"
    (tmp_path / "s.yaml").write_text(
        f"{{name: s, goal: g?, base: base.yaml, scientific: {varied}, fixed: {fixed}, "
        "replicates: {data.split: [0, 1]}, metric: {name: test/accuracy, mode: max}}"
    )
    study, faults = read_study(tmp_path / "s.yaml")
    assert study and not faults
    values = study_report.fixed_values(study)
    assert [path for path in values if path.startswith(("model.optimizer", "trainer.callbacks"))] == [
        "model.optimizer.lr"  # every level has it
    ]
    assert (values["data"], values["data.examples_per_class"], values["data.batch_size"]) == ("ClassSplit", "10", "64")


def test_replicates_are_called_by_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mapping(tmp_path, monkeypatch, "data.split: [0, 1]").replicate == "data.split"
    both = mapping(tmp_path, monkeypatch, "'seed_everything, data.split': [[3, 0], [4, 1]]")
    assert both.replicate == "seed_everything, data.split"


def test_columns_play_the_roles_that_they_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roles = mapping(tmp_path, monkeypatch, "data.split: [0, 1]").columns
    assert roles["size"] == ("data.examples_per_class",)
    assert roles["over"] == ("high_rate_layers", "model.optimizer.lr")  # no layers or decay: all that is compared
    assert roles["seconds"] == ("seconds",)
    assert "joules" not in roles  # measured by nobody
    assert "best_epoch_fraction" not in roles  # without validation the last epoch is always the best


def test_seconds_and_joules_are_those_of_the_training_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"seconds_train": 4.0, "joules": 9.0, "joules_train": 8.0, "selected_by": "val/loss"}
    roles = mapping(tmp_path, monkeypatch, "data.split: [0, 1]", **measured).columns
    assert (roles["seconds"], roles["joules"]) == (("seconds_train",), ("joules_train",))
    assert roles["best_epoch_fraction"] == ("best_epoch_fraction",)


def test_a_study_knows_whether_its_runs_share_a_pretrain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replicates = "data.split: [0, 1]"
    assert mapping(tmp_path, monkeypatch, replicates, pretrain_id=["a", None]).shared_pretrain
    assert not mapping(tmp_path, monkeypatch, replicates, pretrain_id=None).shared_pretrain


@pytest.mark.parametrize(
    ("replicates", "crossed"),
    [
        ("{data.split: [0, 1], seed_everything: [3, 4]}", True),
        ("{'seed_everything, data.split': [[3, 0], [4, 1]]}", False),
    ],
)
def test_replicates_that_cross_are_a_caveat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replicates: str, crossed: bool
) -> None:
    columns = {"data.split": [0, 0, 1, 1], "seed_everything": [3, 4, 3, 4]} if crossed else {}
    rows = {"high_rate_layers": ["1", "2"] * 2, "test/accuracy": [0.5] * 4} if crossed else {}
    said = mapping(tmp_path, monkeypatch, replicates.strip("{}"), **columns, **rows).missing
    assert any(note.startswith("replicates cross (") and "not independent" in note for note in said) == crossed
