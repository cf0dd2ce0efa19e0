"""EMAWeights: a checkpoint that is written in any hook holds both sets, and a resumed run goes on with both."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from line import BATCHES, Line, data, ema, falling, fit, read
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.polyak_mean import PolyakMean
from toy import ToyData, ToyNet

from tlkit.tasks import Classification

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
MID_EPOCH = pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")

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


class Keeps(Checkpoint):
    """Writes a checkpoint at the end of each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, running: Trainer, *_: Any) -> None:
        running.save_checkpoint(self.folder / f"{running.current_epoch}.ckpt")


@pytest.mark.parametrize("callback", [lambda: EMAWeights(0.8, buffers="averaged"), lambda: PolyakMean(Moment(step=4))])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_run_resumed_after_any_epoch_ends_as_the_uninterrupted_one_bit_for_bit(
    precision: Any, callback: Any, tmp_path: Path
) -> None:
    name = type(callback()).__name__

    def run(folder: Path, **arguments: Any) -> dict[int, dict[str, Any]]:
        torch.manual_seed(0)
        module: LightningModule = Classification(ToyNet(num_classes=4, in_channels=1))
        callbacks = [callback(), Reseed(), Keeps(folder)]
        running = trainer(tmp_path, *callbacks, epochs=4, precision=precision, enable_checkpointing=True)
        running.fit(module, ToyData(cache_dir=str(tmp_path / "cache")), **arguments)
        return {epoch: read(path) for epoch in range(4) if (path := folder / f"{epoch}.ckpt").exists()}

    whole = run(tmp_path / "whole")
    for epoch in range(3):
        resumed = run(tmp_path / str(epoch), ckpt_path=tmp_path / "whole" / f"{epoch}.ckpt", weights_only=True)
        for later in range(epoch + 1, 4):
            sets = [(run["state_dict"], run["callbacks"][name]["raw"]) for run in (whole[later], resumed[later])]
            for one, other in zip(*sets, strict=True):
                assert all(torch.equal(value, other[key]) for key, value in one.items())
            assert any(not torch.equal(value, sets[0][0][key]) for key, value in sets[0][1].items())


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
