"""The history of a run, its checkpoints, and the rates it notes."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Write
from test_fit import fit, quiet, rows, weights  # noqa: F401  the fixture applies here too
from torch import nn

from tlkit.recorder import Recorder, TimedCheckpointIO, write_csv
from tlkit.result import _metric
from tlkit.runs import read_result


def test_metrics_have_one_row_per_epoch_and_the_union_of_columns(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    write_csv(path, [{"epoch": 0, "train/loss": 0.1 + 0.2}, {"epoch": 1, "val/loss": 1e-9, "train/loss": 2.0}])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"epoch": "0", "train/loss": "0.30000000000000004", "val/loss": ""},
            {"epoch": "1", "train/loss": "2.0", "val/loss": "1e-09"},
        ]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    io, path = TimedCheckpointIO(), tmp_path / "last.ckpt"
    io.save_checkpoint({"epoch": 1}, path)
    first = io.seconds
    assert first > 0
    with pytest.raises(Exception, match="pickle"):
        io.save_checkpoint({"epoch": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert io.seconds == first


def test_the_history_comes_back_with_the_checkpoint(tmp_path: Path) -> None:
    def recorder() -> Recorder:
        return Recorder(tmp_path, "val/accuracy", "max", {"id": "1", "stage": "transfer"}, 0)

    first, second = recorder(), recorder()
    first.history, first.seconds = [{"epoch": 0, "val/accuracy": 0.5}], {"train": 1.0, "validate": 2.0}
    second.load_state_dict(first.state_dict())
    assert (second.history, second.seconds) == (first.history, first.seconds)


def test_a_value_that_is_none_is_never_the_best() -> None:
    rows = [{"epoch": n, "step": n, "val/psnr": value} for n, value in enumerate([math.nan, 20.0, 25.0, math.nan])]
    metric = _metric(SimpleNamespace(monitor="val/psnr", mode="max", history=rows))
    assert (metric["best"], metric["best_epoch"]) == (25.0, 2)


def test_the_best_checkpoint_is_that_of_the_best_epoch_and_the_last_that_of_the_last(write: Write) -> None:
    run = fit(write(**{"pretrain.layers": 0, "trainer.max_epochs": 5}))
    metric = read_result(run)["metric"]
    epochs = {
        name: torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")
    }
    assert epochs == {"best": metric["best_epoch"], "last": 4}
    assert [row["step"] for row in rows(run)] == [6, 12, 18, 24, 30]  # 48 images in batches of 8
    seconds = read_result(run)["seconds"]
    assert 0 < seconds["train"] + seconds["validate"] <= seconds["fit"]


@pytest.mark.parametrize(("pace", "written"), [(0.0, [0, 1, 2, 3, 4, 5, 6, 7]), (1e9, "with the best")])
def test_short_epochs_do_not_wait_for_a_file_each_time_but_the_last_one_is_never_behind_the_best(
    write: Write, monkeypatch: pytest.MonkeyPatch, pace: float, written: Any
) -> None:
    saved: list[tuple[str, int]] = []
    save = TimedCheckpointIO.save_checkpoint

    def noted(self: TimedCheckpointIO, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        saved.append((Path(path).stem, checkpoint["epoch"]))
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(TimedCheckpointIO, "save_checkpoint", noted)
    monkeypatch.setattr("tlkit.recorder.PACE", pace)
    run = fit(write(**{"pretrain.layers": 0, "trainer.max_epochs": 8}))
    best, last = ([epoch for name, epoch in saved if name == kind] for kind in ("best", "last"))
    assert len(best) < 7, "every epoch is the best of this run: nothing can be left out"
    assert last == (sorted({*best, 7}) if written == "with the best" else written)
    assert [row["epoch"] for row in rows(run)] == list(range(8))


def test_the_rate_of_each_layer_and_epoch_is_in_the_log(write: Write) -> None:
    callbacks: list[dict[str, Any]] = [
        {"class_path": "StepDecay", "init_args": {"every": None, "start": 1, "layers": "fc"}},
        {"class_path": "StepDecay", "init_args": {"every": 2, "factor": 0.5}},
        {"class_path": "LayerFreezing", "init_args": {"layers": 1}},
    ]
    changes = {"trainer.callbacks": callbacks, "model.init_args.lr_scale": {"fc": 2.0}, "pretrain.layers": 0}
    logged = rows(fit(write(**changes)))
    assert [row["lr/conv2"] for row in logged] == pytest.approx([0.05, 0.05, 0.025])
    assert [row["lr/fc"] for row in logged] == pytest.approx([0.1, 0.01, 0.005])


def test_what_is_random_in_a_batch_depends_on_its_number_not_on_what_was_drawn_before(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(**{"pretrain.layers": 0, "trainer.callbacks": []})
    first = weights(fit(path))
    forward = nn.Dropout.forward

    def draws_once_more(self: nn.Dropout, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        torch.rand(7)
        return out

    monkeypatch.setattr(nn.Dropout, "forward", draws_once_more)
    second = weights(fit(path))
    assert all(torch.equal(first[key], second[key]) for key in first)
