"""The bases of all learning-rate schedules."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.optim import reference_lr
from tlkit.schedules import linear_warmup
from tlkit_callbacks.updates import check_length, completed_updates, count_updates, total_updates


@dataclass(frozen=True)
class Segment:
    """The part of a run over which schedules run their course: the whole run, or from one restart to the next.

    Attributes:
        update: number of updates before it.
        epoch: number of epochs before it.
        updates: number of updates in it; None: up to the end of the run.
    """

    update: int = 0
    epoch: int = 0
    updates: int | None = None


class Schedule(Callback, ABC):
    """Sets the learning rate of every parameter group before each training batch.

    The rate is ``initial_lr`` of the group times the factors of all schedules of the trainer, so that schedules
    combine and none of them owns state. A schedule with a ``peak_lr`` puts that in the place of the optimizer's ``lr``;
    the ratios between groups stay.

    Args:
        warmup: updates over which the rate first rises linearly, from 1/warmup of what it would be; 0: none.

    Raises:
        UserError: a negative warm-up; at the start of a run: the module configures a scheduler of torch as well, or
            there are two schedules that each stand for the whole course of the rate.
    """

    exclusive: bool = False
    """Whether it stands for the whole course of the rate, so that there can be no other such schedule beside it."""

    multiplies: bool = False
    """Whether there can be others of its own kind all the same."""

    uniform: bool = False
    """Whether its factor is the same for all groups: then it is asked once per batch, not once per group."""

    sets_rate: bool = True
    """Whether it changes any rate at all."""

    warmup: int = 0
    """Updates over which the rate first rises linearly; see the class."""

    peak_lr: float | None = None
    """Takes the place of the optimizer's ``lr``."""

    def __init__(self, warmup: int = 0) -> None:
        if warmup < 0:
            raise UserError(f"{type(self).__name__}: expected warmup to be at least 0 updates, got {warmup}")
        self.warmup = warmup

    @abstractmethod
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        """Returns the rate of a parameter group relative to its initial one, for the batch that comes next."""

    def momentum(self, trainer: Trainer) -> float | None:
        """Returns the momentum (beta 1 of Adam's kin) for the batch that comes next; None: it is left alone."""
        return None

    def segment(self, trainer: Trainer) -> Segment | None:
        """Returns the part of the run that all schedules run over; None: it does not say."""
        return None

    def advance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decides what holds from the batch that comes next. Idempotent: called several times before one batch."""

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what can be known to be wrong before anything is trained; see the class."""
        names = [type(schedule).__name__ for schedule in schedules_of(trainer) if schedule.exclusive]
        if self.exclusive and len(names) > 1 and not (self.multiplies and len(set(names)) == 1):
            raise UserError(
                f"expected one schedule for the whole run, got {' and '.join(sorted(names))}; remove all but one"
            )

    def since_restart(self, trainer: Trainer) -> tuple[int, int]:
        """Returns the updates and the epochs that lie between the last restart (or the start) and the next batch."""
        segment = segment_of(trainer)
        return completed_updates(trainer) - segment.update, trainer.current_epoch - segment.epoch

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)
        if self.sets_rate and trainer.lr_scheduler_configs:
            raise UserError(
                f"expected one owner of the learning rate, got {type(self).__name__} and the scheduler of "
                f"{type(pl_module).__name__}.configure_optimizers; remove one of them"
            )
        super().on_fit_start(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_updates(trainer)
        # after a checkpoint is restored: one of a run without a schedule brings groups without it
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        super().on_train_start(trainer, pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        schedules = schedules_of(trainer)
        if schedules and schedules[0] is self:
            for schedule in schedules:
                schedule.advance(trainer, pl_module)
            _set_rates(schedules, trainer)
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


class Curve(Schedule, ABC):
    """A schedule for the whole run that is a curve over its updates, of which a subclass gives the shape.

    Where the module optimizes by hand, its first optimizer is taken to step once in each batch.

    Args:
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.

    Raises:
        UserError: at the start of a run: its number of updates cannot be known, where the curve needs it.
    """

    exclusive = True
    uniform = True

    ends: bool = True
    """Whether the curve needs to know the number of updates."""

    _total: int | None = None
    """Updates of the whole run; set when a run starts, where the curve needs it."""

    @abstractmethod
    def curve(self, step: int, steps: int) -> float:
        """Returns the rate relative to the initial one.

        Args:
            step: number of the update, from 0 to ``steps - 1``; the updates of the warm-up do not count.
            steps: number of updates, at least 1; 0 where the curve has no end.
        """

    @override
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        return self.curve(*self.position(trainer))

    def position(self, trainer: Trainer) -> tuple[int, int]:
        """Returns the number of the next update on the curve, and of all of its updates; see `curve`."""
        segment = segment_of(trainer)
        step = max(completed_updates(trainer) - segment.update - self.warmup, 0)
        if self._total is None:
            return step, 0
        end = self._total - segment.update if segment.updates is None else segment.updates
        steps = max(end - self.warmup, 1)
        return min(step, steps - 1), steps

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().check(trainer, pl_module)
        if self.ends:
            check_length(trainer, type(self).__name__)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._total = total_updates(trainer, type(self).__name__) if self.ends else None
        if self._total is not None and self.warmup >= self._total and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"{type(self).__name__}: expected a warm-up shorter than the run, got {self.warmup} of its "
                f"{self._total} updates"
            )


def schedules_of(trainer: Trainer) -> list[Schedule]:
    """Returns the trainer's schedules that change rates, in their order."""
    return [c for c in trainer.callbacks if isinstance(c, Schedule) and c.sets_rate]  # type: ignore[attr-defined]


def segment_of(trainer: Trainer) -> Segment:
    """Returns the part of the run that the schedules run over at present."""
    schedules = [c for c in trainer.callbacks if isinstance(c, Schedule)]  # type: ignore[attr-defined]
    return next((segment for c in schedules if (segment := c.segment(trainer)) is not None), Segment())


def _set_rates(schedules: Sequence[Schedule], trainer: Trainer) -> None:
    peak = next((schedule.peak_lr for schedule in schedules if schedule.peak_lr is not None), None)
    momentum = next((m for schedule in schedules if (m := schedule.momentum(trainer)) is not None), None)
    first = trainer.optimizers[0].param_groups[0]
    shared = math.prod(schedule.factor_of(first, trainer) for schedule in schedules if schedule.uniform)
    shared *= math.prod(
        linear_warmup(schedule.since_restart(trainer)[0], schedule.warmup) for schedule in schedules if schedule.warmup
    )
    others = [schedule for schedule in schedules if not schedule.uniform]
    reference = reference_lr(trainer.optimizers[0])
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            initial = group.setdefault("initial_lr", group["lr"])  # somebody may have added the group since
            rate = initial if peak is None else peak * initial / reference
            group["lr"] = rate * shared * math.prod(schedule.factor_of(group, trainer) for schedule in others)
            if momentum is not None:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
