"""EMAWeights: what a checkpoint of a run and of its end holds."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from foreign_module import trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from line import BATCHES, Line, data, ema, falling, fit, read
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from toy import ToyData, ToyNet

from tlkit.cli import main
from tlkit.runs import read_result
from tlkit.tasks import Classification

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


@pytest.mark.parametrize("start", [{"epoch": 2}, {"step": 2 * BATCHES}, {"fraction": 0.5}], ids=str)
def test_before_its_start_validation_and_checkpoints_have_the_raw_weights(
    start: dict[str, Any], tmp_path: Path
) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    rows = fit(Line(), tmp_path, EMAWeights(0.5, start=Moment(**start)), keep, epochs=4, enable_checkpointing=True)
    later = falling(4 * BATCHES)[2 * BATCHES :]  # the average begins as the weights at that moment
    expected = [-4.0, -8.0, ema(later[: BATCHES + 1], 0.5), ema(later, 0.5)]
    assert [row["val/w"] for row in rows] == pytest.approx(expected, rel=1e-12)
    saved = [read(tmp_path / f"epoch={epoch}.ckpt")["state_dict"]["w"].item() for epoch in range(4)]
    assert saved == pytest.approx(expected, rel=1e-12)


def test_the_best_checkpoint_holds_the_weights_that_were_evaluated_as_best(tmp_path: Path) -> None:
    class Back(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/error", (self.w.sum() + 5).abs())  # the average is closest to −5 in the second epoch of three

    keep = ModelCheckpoint(tmp_path, "best", monitor="val/error")
    rows = fit(module := Back(), tmp_path, EMAWeights(0.75), keep, epochs=3, enable_checkpointing=True)
    best = ema(falling(2 * BATCHES), 0.75)
    assert [row["val/error"] for row in rows][1] == pytest.approx(abs(best + 5)) == keep.best_model_score
    plain = Line()
    plain.load_state_dict(read(tmp_path / "best.ckpt")["state_dict"])  # as without any callback
    assert plain.w.item() == pytest.approx(best, rel=1e-12)
    (metrics,) = trainer(tmp_path).validate(module, data(), verbose=False, ckpt_path=tmp_path / "best.ckpt")
    assert metrics["val/error"] == keep.best_model_score


def test_a_checkpoint_of_weights_only_holds_the_average_too(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "weights", save_weights_only=True)
    fit(Line(), tmp_path, EMAWeights(0.5), keep, enable_checkpointing=True)
    assert read(tmp_path / "weights.ckpt")["state_dict"]["w"].item() == ema(falling(2 * BATCHES), 0.5)


def test_the_raw_weights_are_not_lost_at_the_end_and_the_module_holds_the_average(tmp_path: Path) -> None:
    class Exports(Line):
        def on_train_end(self) -> None:
            self.exported = self.w.item()

    module, callback = Exports(), EMAWeights(0.5)
    running = trainer(tmp_path, callback)
    running.fit(module, data(), data())
    running.save_checkpoint(tmp_path / "end.ckpt")
    average = ema(falling(2 * BATCHES), 0.5)
    assert module.exported == average
    end = read(tmp_path / "end.ckpt")
    assert (module.w.item(), end["state_dict"]["w"].item()) == (average, average)
    assert end["callbacks"]["EMAWeights"]["raw"]["w"].item() == -2.0 * BATCHES
    (metrics,) = running.validate(module, data(), verbose=False)
    assert (metrics["val/w"], module.w.item()) == (average, average)
    again = Line()
    trainer(tmp_path, EMAWeights(0.5)).fit(again, data(), data(), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert again.w.item() == average, "a run that is resumed at its end ends as it ended"


def test_after_a_run_a_checkpoint_holds_what_the_module_holds(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    running = trainer(tmp_path, EMAWeights(0.5), keep, enable_checkpointing=True)
    running.fit(module := Line(), data(), data())
    first = tmp_path / "epoch=0.ckpt"
    running.validate(module, data(), verbose=False, ckpt_path=first, weights_only=True)
    running.save_checkpoint(tmp_path / "again.ckpt")
    saved = [read(path) for path in (first, tmp_path / "again.ckpt")]
    assert saved[0]["state_dict"] == saved[1]["state_dict"] == module.state_dict()
    assert saved[0]["callbacks"]["EMAWeights"] == saved[1]["callbacks"]["EMAWeights"]


def test_with_evaluate_raw_it_is_the_other_way_round(tmp_path: Path) -> None:
    module, keep = Line(), ModelCheckpoint(tmp_path, "last")
    rows = fit(module, tmp_path, EMAWeights(0.5, evaluate="raw"), keep, enable_checkpointing=True)
    content = read(tmp_path / "last.ckpt")
    assert [row["val/w"] for row in rows] == [-4.0, -8.0]
    assert (module.w.item(), content["state_dict"]["w"].item()) == (-8.0, -8.0)
    assert content["callbacks"]["EMAWeights"]["average"]["w"].item() == ema(falling(8), 0.5)


def test_tied_weights_are_averaged_under_both_names(tmp_path: Path) -> None:
    class Tied(Line):
        def __init__(self) -> None:
            super().__init__()
            self.same = self.w

    keep = ModelCheckpoint(tmp_path, "tied")
    fit(module := Tied(), tmp_path, EMAWeights(0.5), keep, enable_checkpointing=True)
    state = read(tmp_path / "tied.ckpt")["state_dict"]
    assert state["w"] == state["same"] == module.w == ema(falling(2 * BATCHES), 0.5)


def test_a_run_of_tlkit_tests_and_keeps_the_average(write: Write) -> None:
    init = {"decay": 0.8, "evaluate": "both"}
    path = write(**{"trainer.callbacks": [{"class_path": "tlkit_callbacks.ema_weights.EMAWeights", "init_args": init}]})
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # the command filters Lightning's remarks itself
        assert main(["fit", "--config", str(path)]) == 0
    (run,) = (path.parent / "runs" / "toy").glob("transfer-*")
    header, *rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    columns = {name: [float(row[i]) for row in rows] for i, name in enumerate(header)}
    result = read_result(run)
    assert result["summaries"]["EMAWeights"] == {"decay": 0.8, "averaged": 18, "evaluate": "both"}
    assert result["metrics"]["val/accuracy"] == max(columns["val/accuracy"])
    assert columns["raw/val/loss"] != columns["val/loss"]
    best = Classification(ToyNet(num_classes=4, in_channels=1))
    best.load_state_dict(read(run / "checkpoints" / "best.ckpt")["state_dict"])
    running = trainer(path.parent)
    (metrics,) = running.test(best, ToyData(cache_dir=str(path.parent / "cache")), verbose=False)
    assert metrics["test/loss"] == result["metrics"]["test/loss"]
