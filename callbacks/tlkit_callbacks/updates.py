"""How many updates an optimizer has made, and how many a run will make."""

import math
from typing import Any
from weakref import WeakSet

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from torch.optim import Optimizer

from tlkit.errors import UserError

KEY = "updates"
"""Where an optimizer's first group keeps its count: so it is in every checkpoint, whoever writes it."""

_counted: "WeakSet[Optimizer]" = WeakSet()


def count_updates(trainer: Trainer) -> None:
    """Starts to count the updates of the first optimizer. Idempotent; call it in ``on_train_start``.

    ``trainer.global_step`` also counts the steps that the gradient scaler of 16-bit training skipped.
    """
    optimizer = trainer.optimizers[0]
    # a checkpoint written without this count brings groups without it
    optimizer.param_groups[0].setdefault(KEY, trainer.global_step // len(trainer.optimizers))
    if optimizer not in _counted:
        _counted.add(optimizer)
        optimizer.register_step_post_hook(_count)


def completed_updates(trainer: Trainer) -> int:
    """Returns the number of updates made since the run began, those before a resume included.

    It is also the number, from 0, of the update that comes next.
    """
    updates: int = trainer.optimizers[0].param_groups[0][KEY]
    return updates


def total_updates(trainer: Trainer, who: str) -> int:
    """Returns the number of updates of the whole run, known once the trainer has its data (``on_fit_start``).

    Args:
        trainer: in a fit.
        who: what needs to know, for the message.

    Raises:
        UserError: the run has no known end.
    """
    check_length(trainer, who)
    epochs, optimizers = trainer.max_epochs, len(trainer.optimizers)
    limit = math.inf if trainer.max_steps == -1 else math.ceil(trainer.max_steps / optimizers)  # it counts all of them
    if epochs is None or epochs == -1:
        return int(limit)
    if trainer.train_dataloader is None:
        trainer.fit_loop.setup_data()
    if trainer.num_training_batches == math.inf:
        raise UserError(
            f"{who}: expected a run whose number of updates is known, got data without a length; "
            "give trainer.max_steps and no max_epochs, or an integer as trainer.limit_train_batches"
        )
    return int(min(updates_of_epochs(trainer, epochs), limit))


def updates_of_epochs(trainer: Trainer, epochs: int) -> int:
    """Returns the number of updates in the first epochs of a run whose data have a length, once it has them."""
    batches = trainer.num_training_batches
    scheduling = [c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    if scheduling:
        window = scheduling[0].get_accumulate_grad_batches
        return sum(math.ceil(batches / window(epoch)) for epoch in range(epochs))
    return math.ceil(batches / trainer.accumulate_grad_batches) * epochs  # an epoch's last window may be partial


def check_length(trainer: Trainer, who: str) -> None:
    """Refuses what leaves the length of a run open, before it has its data.

    Raises:
        UserError: neither ``max_epochs`` nor ``max_steps`` is given, or ``max_time`` may end the run sooner.
    """
    unlimited = trainer.max_epochs == -1 and trainer.max_steps == -1
    timed = any(isinstance(c, Timer) and c._duration is not None for c in trainer.callbacks)  # type: ignore[attr-defined]
    if unlimited or timed:
        got = "max_time, which ends it at no known update" if timed else "neither max_epochs nor max_steps"
        raise UserError(
            f"{who}: expected a run whose number of updates is known, got {got}; "
            "give trainer.max_epochs or trainer.max_steps, and no max_time"
        )


def _count(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    # a fused optimizer is called even for a step that the scaler skips, and skips it itself
    skipped = getattr(optimizer, "found_inf", None)
    if skipped is None or not skipped.item():
        optimizer.param_groups[0][KEY] += 1
