"""The base of all learning-rate schedules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError


class Schedule(Callback, ABC):
    """Sets the learning rate of every parameter group before each training batch.

    The rate is ``initial_lr`` of the group times the factors of all schedules of the trainer, so that schedules
    combine and none of them owns state.

    Raises:
        UserError: at the start of a run: the module configures a scheduler of torch as well.
    """

    @abstractmethod
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        """Returns the rate of a parameter group relative to its initial one, for the batch that comes next."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.lr_scheduler_configs:
            raise UserError(
                f"expected one owner of the learning rate, got {type(self).__name__} and the scheduler of "
                f"{type(pl_module).__name__}.configure_optimizers; remove one of them"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # after a checkpoint is restored: one of a run without a schedule brings groups without it
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        schedules = [callback for callback in trainer.callbacks if isinstance(callback, Schedule)]  # type: ignore[attr-defined]
        if schedules[0] is not self:
            return
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                rate = group["initial_lr"]
                for schedule in schedules:
                    rate *= schedule.factor_of(group, trainer)
                group["lr"] = rate
