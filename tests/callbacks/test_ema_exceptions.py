"""EMAWeights: an exception anywhere leaves the raw weights in the module, and both sets to whoever saves them."""

from pathlib import Path
from typing import Any

import pytest
from foreign_module import trainer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from line import BATCHES, Line, data, ema, falling, read
from tlkit_callbacks.ema_weights import EMAWeights


class Fails(Line):
    """Raises in one of its hooks, in the second epoch."""

    def __init__(self, hook: str, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error
        inner = getattr(self, hook)
        setattr(self, hook, lambda *a: self.fail() if self.trainer.current_epoch == 1 else inner(*a))

    def fail(self) -> None:
        raise self.error("on purpose")


class Rescues(Checkpoint):
    """Writes a checkpoint on an exception, after all other callbacks, as Lightning's OnExceptionCheckpoint does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, running: Trainer, *_: Any) -> None:
        running.save_checkpoint(self.path)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("hook", ["validation_step", "on_validation_epoch_end", "training_step", "on_train_epoch_end"])
@pytest.mark.parametrize("evaluate", ["averaged", "both"])
def test_an_exception_leaves_the_raw_weights_and_a_checkpoint_of_it_resumes(
    evaluate: Any, hook: str, error: type[BaseException], tmp_path: Path
) -> None:
    module = Fails(hook, error)
    rescues = Rescues(tmp_path / "failed.ckpt")
    with pytest.raises(SystemExit if error is KeyboardInterrupt else error):
        running = trainer(tmp_path, EMAWeights(0.5, evaluate=evaluate), rescues, enable_checkpointing=True)
        running.fit(module, data(), data())
    updates = BATCHES if hook == "training_step" else 2 * BATCHES
    assert (module.w.item(), len(module.history)) == (-updates, updates + 1)
    content = read(tmp_path / "failed.ckpt")
    assert content["state_dict"]["w"].item() == ema(falling(updates), 0.5)
    assert content["callbacks"]["EMAWeights"]["raw"]["w"].item() == -updates
    resumed = Line()
    running = trainer(tmp_path, EMAWeights(0.5), epochs=3)
    running.fit(resumed, data(), data(), ckpt_path=tmp_path / "failed.ckpt", weights_only=True)
    assert resumed.history[-1] == -running.global_step
    assert resumed.w.item() == ema(falling(running.global_step), 0.5)


def test_after_an_exception_the_same_trainer_evaluates_what_the_module_holds(tmp_path: Path) -> None:
    running = trainer(tmp_path, EMAWeights(0.5))
    with pytest.raises(RuntimeError):
        running.fit(module := Fails("validation_step", RuntimeError), data(), data())
    (metrics,) = running.validate(plain := Line(), data(), verbose=False)
    assert (metrics["val/w"], module.w.item()) == (0.0, -2.0 * BATCHES)
    running.save_checkpoint(tmp_path / "plain.ckpt")
    assert read(tmp_path / "plain.ckpt")["state_dict"]["w"].item() == plain.w.item() == 0.0
