"""The base of all averages of weights over a run."""

import logging
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from tlkit.errors import UserError
from tlkit_callbacks.charts import add_chart
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.updates import check_length, completed_updates, count_updates, total_updates
from tlkit_callbacks.validation_epoch import validation_epoch
from tlkit_callbacks.weight_sets import WeightSets

log = logging.getLogger("tlkit")

Buffers = Literal["copied", "averaged"]
Evaluate = Literal["raw", "averaged", "both"]

STATE_DICT = "lightning_module_state_dict"
"""The strategy's method that every checkpoint has its weights from; callbacks are not asked for each."""


class WeightAverage(Callback, ABC):
    """Keeps an average of the weights beside them and evaluates it; `weight` says which average.

    Validation metrics are those of the average, and so are the weights in every checkpoint; the raw weights are in it
    as the state of this callback. With ``evaluate: raw`` it is the other way round.

    Args:
        start: when the average begins, as the weights then; null: with the run.
        every: updates from one averaging to the next, at least 1.
        buffers: ``copied``: the average goes with the module's own, or ``averaged``; integers are copied.
        evaluate: ``averaged``, ``raw``, or ``both``: averaged, and the raw weights in one more pass.

    Raises:
        UserError: an argument cannot be; at the start of a run: another callback averages the weights as well, or the
            strategy divides them among processes.
    """

    label: str
    """What it is called in charts."""

    def __init__(self, start: Moment | None, every: int, buffers: Buffers, evaluate: Evaluate) -> None:
        name = type(self).__name__
        if every < 1:
            raise UserError(f"{name}: expected `every` to be at least 1 update, got {every}")
        for argument, value, hint in (("buffers", buffers, Buffers), ("evaluate", evaluate, Evaluate)):
            if value not in get_args(hint):
                raise UserError(f"{name}: expected `{argument}` to be {' or '.join(get_args(hint))}, got {value}")
        self.start = start
        self.every = every
        self.buffers: Buffers = buffers
        self.evaluate: Evaluate = evaluate

    _sets: WeightSets | None = None
    """None: the average has not begun; like all below of the current run."""
    _averaged: int = 0
    _next: int = 0
    """Number of updates at which the next averaging is due."""
    _raw_metrics: dict[str, Tensor]
    """Of the last validation."""
    _loaded: dict[str, Any] | None = None
    """The state in a checkpoint, until a fit takes it up."""

    @abstractmethod
    def weight(self, averaged: int) -> float:
        """Returns how far the average moves towards the weights, from 0 to 1, after so many averagings before."""

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what can be known to be wrong before anything is trained; see the class."""
        who, kinds = type(self).__name__, (WeightAverage, WeightAveraging, StochasticWeightAveraging)
        found = [type(c).__name__ for c in trainer.callbacks if isinstance(c, kinds)]  # type: ignore[attr-defined]
        if len(found) > 1:
            raise UserError(f"expected one average of the weights, got {' and '.join(found)}; remove all but one")
        if isinstance(trainer.strategy, (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)):
            raise UserError(
                f"{who}: expected a strategy that leaves the weights whole, got "
                f"{type(trainer.strategy).__name__}; give trainer.strategy: ddp"
            )
        if self.start is not None and self.start.fraction is not None:
            check_length(trainer, f"{who}, {self.start}")

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._sets, self._averaged, self._next = None, 0, 0
            self._raw_metrics, self._loaded = {}, None
            self.check(trainer, pl_module)

    @override
    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # not in load_state_dict: one of the two sets is in the checkpoint of the module
        state = checkpoint["callbacks"].get(self.state_key)
        if state and trainer.state.fn == TrainerFn.FITTING:
            self._loaded = {"average": checkpoint["state_dict"]} | state
        elif state:
            self._loaded = state

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded is not None:
            self._averaged, self._next = self._loaded["averaged"], self._loaded["next"]
            self._sets = WeightSets(pl_module, self.buffers == "averaged", self._loaded["average"])
            self._sets.raw = self._loaded.get("raw")
            self._sets.swap_out()
            self._loaded = None
        original = getattr(trainer.strategy, STATE_DICT)
        setattr(trainer.strategy, STATE_DICT, partial(self._evaluated, original))

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_updates(trainer)
        planned = self._planned(trainer) if self._sets is None else None
        if planned is not None:
            self.foresee(planned)
        self._update(trainer)  # a checkpoint may have been written between an update and its averaging

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._sets is None and (self.start is None or self.start.reached(trainer)):
            self._sets = WeightSets(pl_module, self.buffers == "averaged")
            self._next = completed_updates(trainer) + self.every

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._update(trainer)

    def _update(self, trainer: Trainer) -> None:
        updates = completed_updates(trainer)
        if self._sets is not None and updates >= self._next:
            self._sets.update(self.weight(self._averaged))
            self._averaged, self._next = self._averaged + 1, updates + self.every

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:  # the module holds what it is to be evaluated with
            return
        if self.evaluate == "both" and not trainer.sanity_checking:
            first, metrics = not self._raw_metrics, validation_epoch(trainer)
            self._raw_metrics = {f"raw/{name}": value for name, value in metrics.items()}
            for name in sorted(metrics) if first else ():
                tag = re.escape(name)
                add_chart(trainer, f"{self.label} against raw: {name}", [f"{tag}$", f"raw/{tag}$"])
        self._swap_in()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            several = trainer.world_size > 1
            for name, value in self._raw_metrics.items():  # of several loaders, each has its number in the name
                pl_module.log(name, value, batch_size=1, sync_dist=several, add_dataloader_idx=False)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._sets is not None and trainer.state.fn == TrainerFn.FITTING:
            self._sets.swap_out()

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_in()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        vars(trainer.strategy).pop(STATE_DICT, None)  # after an exception only now: it may still be saved
        if stage == "fit":
            self._swap_in()  # a run that had already reached its end has no on_train_end

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._sets is not None and trainer.state.fn == TrainerFn.FITTING:
            self._sets.swap_out()

    def _swap_in(self) -> None:
        if self._sets is not None and self.evaluate != "raw":
            self._sets.swap_in()

    def _evaluated(self, state_dict: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the weights for a checkpoint: those that validation evaluates, whichever the module holds."""
        state = state_dict()
        if self._sets is not None and self.evaluate != "raw":
            state.update(self._sets.average)
        return state

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._sets is None or self._loaded is not None:
            return self._loaded or {}
        if self.evaluate == "raw":
            other = {"average": self._sets.average}
        else:
            other = {"raw": self._sets.raw_weights()}
        return {"averaged": self._averaged, "next": self._next} | other

    def foresee(self, planned: int) -> None:
        """Warns where the average will not be what one expects of it.

        Args:
            planned: number of averagings in the run.
        """
        if planned == 0:
            log.warning(
                "%s: nothing will be averaged, less than %d updates lie between %s and the end of the run; "
                "give it an earlier start, or a smaller `every`",
                *(type(self).__name__, self.every, self.start or "its start"),
            )

    def _planned(self, trainer: Trainer) -> int | None:
        """Returns how many averagings there will be; None: nobody knows."""
        try:
            total, begin = total_updates(trainer, type(self).__name__), completed_updates(trainer)
            if self.start is not None and self.start.epoch is not None:
                windows = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
                begin = max(begin, self.start.epoch * windows)
            elif self.start is not None:
                begin = max(begin, self.start.update(trainer) or 0)
        except (UserError, OverflowError):  # data without a length
            return None
        return max(total - begin, 0) // self.every

    def summary(self) -> dict[str, Any]:
        """Returns the number of averagings, and which weights were evaluated."""
        return {"averaged": self._averaged, "evaluate": self.evaluate}
