"""EMAWeights: what a checkpoint holds whoever writes it, and what a resumed run goes on with."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from foreign_module import ForeignModule, loader, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from line import BATCHES, Line, data, ema, falling, fit, read
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.polyak_mean import PolyakMean
from toy import ToyData, ToyNet

from tlkit.cli import main
from tlkit.runs import read_result
from tlkit.tasks import Classification

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
MID_EPOCH = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")


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
    module, callback = Line(), EMAWeights(0.5)
    running = trainer(tmp_path, callback)
    running.fit(module, data(), data())
    running.save_checkpoint(tmp_path / "end.ckpt")
    average = ema(falling(2 * BATCHES), 0.5)
    end = read(tmp_path / "end.ckpt")
    assert (module.w.item(), end["state_dict"]["w"].item()) == (average, average)
    assert end["callbacks"]["EMAWeights"]["raw"]["w"].item() == -2.0 * BATCHES
    (metrics,) = running.validate(module, data(), verbose=False)
    assert (metrics["val/w"], module.w.item()) == (average, average)
    again = Line()
    trainer(tmp_path, EMAWeights(0.5)).fit(again, data(), data(), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert again.w.item() == average, "a run that is resumed at its end ends as it ended"


def test_with_evaluate_raw_it_is_the_other_way_round(tmp_path: Path) -> None:
    module, keep = Line(), ModelCheckpoint(tmp_path, "last")
    rows = fit(module, tmp_path, EMAWeights(0.5, evaluate="raw"), keep, enable_checkpointing=True)
    content = read(tmp_path / "last.ckpt")
    assert [row["val/w"] for row in rows] == [-4.0, -8.0]
    assert (module.w.item(), content["state_dict"]["w"].item()) == (-8.0, -8.0)
    assert content["callbacks"]["EMAWeights"]["average"]["w"].item() == ema(falling(8), 0.5)


HOOKS = [
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_epoch_start",
    "on_validation_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_epoch_end",
]


class Saves(Callback):
    """Writes a checkpoint in one hook, at the end of the second epoch; ``with_weights_only`` beside it."""

    def __init__(self, hook: str, folder: Path) -> None:
        self.folder = folder
        setattr(self, hook, self.save)

    def save(self, running: Trainer, *_: Any) -> None:
        if running.global_step == 2 * BATCHES:
            running.save_checkpoint(self.folder / "saved.ckpt")
            running.save_checkpoint(self.folder / "weights.ckpt", weights_only=True)


@MID_EPOCH
@pytest.mark.parametrize("first", [True, False], ids=["before it", "after it"])
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("evaluate", ["averaged", "both", "raw"])
def test_a_checkpoint_of_any_hook_has_the_evaluated_weights_and_resumes_with_both(
    evaluate: Any, hook: str, first: bool, tmp_path: Path
) -> None:
    def callback() -> EMAWeights:
        return EMAWeights(0.5, warmup=True, evaluate=evaluate)

    saves, ema_weights = Saves(hook, tmp_path), callback()
    callbacks = [saves, ema_weights] if first else [ema_weights, saves]
    whole, resumed = Line(), Line()
    rows = fit(whole, tmp_path, *callbacks, epochs=4, num_sanity_val_steps=0)
    content = read(tmp_path / "saved.ckpt")
    late = hook == "on_train_batch_end" and first  # between an update and its averaging
    if not late:
        expected = -2.0 * BATCHES if evaluate == "raw" else rows[1]["val/w"]
        assert content["state_dict"]["w"].item() == expected
        assert read(tmp_path / "weights.ckpt")["state_dict"]["w"].item() == expected
    again = callback()
    running = trainer(tmp_path, again, epochs=4)
    running.fit(resumed, data(), data(), ckpt_path=tmp_path / "saved.ckpt", weights_only=True)
    assert resumed.history[1:] == whole.history[1 + 2 * BATCHES :]
    assert (resumed.w.item(), again.state_dict()) == (whole.w.item(), ema_weights.state_dict())


def test_a_run_may_be_resumed_with_the_other_weights_evaluated(tmp_path: Path) -> None:
    for before, after in (("raw", "averaged"), ("averaged", "raw")):
        keep = ModelCheckpoint(tmp_path / before, "last")
        fit(Line(), tmp_path, EMAWeights(0.5, evaluate=before), keep, epochs=1, enable_checkpointing=True)  # type: ignore[arg-type]
        module, callback = Line(), EMAWeights(0.5, evaluate=after)  # type: ignore[arg-type]
        running = trainer(tmp_path, callback, epochs=2)
        running.fit(module, data(), data(), ckpt_path=tmp_path / before / "last.ckpt", weights_only=True)
        average = ema(falling(2 * BATCHES), 0.5)
        assert module.w.item() == (average if after == "averaged" else -2.0 * BATCHES)
        assert module.history[-1] == -2.0 * BATCHES


def test_it_can_be_added_to_a_run_that_was_begun_without_it(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, "plain")
    fit(Line(), tmp_path, keep, epochs=1, enable_checkpointing=True)
    module = Line()
    running = trainer(tmp_path, EMAWeights(0.5), epochs=2)
    running.fit(module, data(), data(), ckpt_path=tmp_path / "plain.ckpt", weights_only=True)
    assert module.w.item() == ema(falling(2 * BATCHES)[BATCHES:], 0.5)


@pytest.mark.parametrize("callback", [EMAWeights, PolyakMean])
def test_several_runs_of_one_callback_each_start_anew(callback: Any, tmp_path: Path) -> None:
    average, ends = callback(), []
    for _ in range(2):
        fit(module := Line(), tmp_path, average)
        ends.append(module.w.item())
    assert ends[0] == ends[1]
    assert average.summary()["averaged"] == 2 * BATCHES


class Reseed(Callback):
    """Dropout as a function of the step, as tlkit's own runs have it."""

    def on_train_batch_start(self, running: Any, *_: Any) -> None:
        torch.manual_seed(running.global_step)


@pytest.mark.parametrize("callback", [lambda: EMAWeights(0.8, buffers="averaged"), lambda: PolyakMean(Moment(step=4))])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_run_resumed_after_any_epoch_ends_as_the_uninterrupted_one_bit_for_bit(
    precision: Any, callback: Any, tmp_path: Path
) -> None:
    def run(*callbacks: Callback, **arguments: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        module: LightningModule = Classification(ToyNet(num_classes=4, in_channels=1))
        saves = not arguments
        running = trainer(tmp_path, *callbacks, Reseed(), epochs=4, precision=precision, enable_checkpointing=saves)
        running.fit(module, ToyData(cache_dir=str(tmp_path / "cache")), **arguments)
        return module.state_dict()

    keep = ModelCheckpoint(tmp_path / "checkpoints", "{epoch}", save_top_k=-1)
    whole, raw = run(first := callback(), keep), first.state_dict()["raw"]
    assert any(not torch.equal(value, whole[key]) for key, value in raw.items())
    for epoch in range(3):
        file = tmp_path / "checkpoints" / f"epoch={epoch}.ckpt"
        resumed = run(second := callback(), ckpt_path=file, weights_only=True)
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
        assert all(torch.equal(value, second.state_dict()["raw"][key]) for key, value in raw.items())


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


def test_a_foreign_module_goes_on_from_where_it_was(tmp_path: Path) -> None:
    class Reseeded(ForeignModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            torch.manual_seed(self.global_step)

    whole, resumed = Reseeded("AdamW"), Reseeded("AdamW")
    trainer(tmp_path, EMAWeights(0.7), epochs=4).fit(whole, loader(), loader())
    first = trainer(tmp_path, EMAWeights(0.7), epochs=2)
    first.fit(Reseeded("AdamW"), loader(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = trainer(tmp_path, EMAWeights(0.7), epochs=4)
    second.fit(resumed, loader(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
