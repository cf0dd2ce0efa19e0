"""Go back to the best checkpoint of a run while it trains."""

import logging
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tlkit.errors import UserError
from tlkit.optim import clear_state
from tlkit.weights import load_checkpoint

log = logging.getLogger("tlkit")


def check_best(trainer: Trainer, who: str) -> ModelCheckpoint:
    """Returns the callback that keeps the best checkpoint.

    Args:
        trainer: in a fit.
        who: wants it, for the message.

    Raises:
        UserError: there is none.
    """
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            return callback
    raise UserError(
        f"{who}: expected a ModelCheckpoint with a monitor, whose best checkpoint can be restored, got none; add one "
        "(tlkit fit has its own where the data have validation images), or give restore_best: false"
    )


def restore_best(trainer: Trainer, pl_module: LightningModule, who: str) -> None:
    """Loads the weights of the best checkpoint so far; the optimizer forgets what it gathered for the others.

    Args:
        trainer: in a fit.
        pl_module: what is trained.
        who: wants it, for the message.

    Raises:
        UserError: as `check_best`; or the checkpoint cannot be read, or is of a later moment than the run.
    """
    path = check_best(trainer, who).best_model_path
    if not path:
        log.warning("%s: there is no checkpoint yet that could be restored, the weights stay", who)
        return
    checkpoint = load_checkpoint(Path(path))
    if checkpoint["global_step"] > trainer.global_step:
        raise UserError(
            f"{who}: expected the best checkpoint up to step {trainer.global_step}, got {path} of step "
            f"{checkpoint['global_step']}, from before this run was resumed at an earlier one; start it anew"
        )
    trainer.strategy.load_model_state_dict(checkpoint, strict=pl_module.strict_loading)
    for optimizer in trainer.optimizers:
        clear_state(optimizer, list(pl_module.parameters()))
