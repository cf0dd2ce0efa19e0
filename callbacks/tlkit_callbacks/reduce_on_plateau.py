"""Lower the learning rate when a metric gets no better."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit_callbacks.plateau import Plateau, PlateauWatch, check_metric, check_sanity, check_validates, fresh_value
from tlkit_callbacks.schedule import Schedule, segment_of

log = logging.getLogger("tlkit")


class ReduceOnPlateau(Schedule):
    """Multiplies the learning rate with ``factor`` when a metric has not become better for some epochs.

    The only schedule with a state, which is in the checkpoint: the drops so far, the best value, the epochs since it.

    Args:
        metric: name of what is watched, as it is logged.
        mode: min: less of it is better; max: more is.
        factor: what a drop multiplies the rate with, above 0 and below 1.
        patience: epochs without a better value up to a drop; torch drops one epoch later. Those without a validation
            do not count.
        min_delta: in the metric's unit: a value is better if it is so by more than this.
        warmup: updates over which the rate first rises linearly; 0: none.

    Raises:
        UserError: an argument is out of range; at the start of a run, or when it first shows: nobody logs the metric.
    """

    exclusive = True
    uniform = True

    def __init__(
        self,
        metric: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 5,
        min_delta: float = 0.0,
        warmup: int = 0,
    ) -> None:
        super().__init__(warmup)
        if not 0 < factor < 1:
            raise UserError(f"ReduceOnPlateau: expected factor above 0 and below 1, got {factor}")
        self.plateau = Plateau(metric, mode, patience, min_delta)
        self.factor = factor

    _watch: PlateauWatch | None = None
    """Like the next, of the current run; set when one starts."""
    _drops: int = 0
    _start: int = 0
    """Number of updates before the part of the run that the drops are of."""

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._watch is None:
            return {}
        return {"drops": self._drops, "start": self._start, "watch": self._watch.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._begin(state_dict["start"]).load_state_dict(state_dict["watch"])
        self._drops = state_dict["drops"]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is loaded
            self._begin(0)

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().check(trainer, pl_module)
        check_metric(pl_module, self.plateau.metric, "ReduceOnPlateau", self.plateau.mode)

    @override
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_sanity(trainer, self.plateau.metric, "ReduceOnPlateau")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        check_validates(trainer, self.plateau.metric, "ReduceOnPlateau")

    @override
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        return float(self.factor**self._drops) if segment_of(trainer).update == self._start else 1.0

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        watch, start = self._watch, segment_of(trainer).update
        if watch is None or start != self._start:
            watch = self._begin(start)
        value = fresh_value(trainer, self.plateau.metric, "ReduceOnPlateau")
        if value is None or not watch.update(value):
            return
        self._drops += 1
        watch.wait = 0
        metric, patience = self.plateau.metric, self.plateau.patience
        log.info("%s is no better than %g, patience %d: rate times %g", metric, watch.best, patience, self.factor)

    def _begin(self, start: int) -> PlateauWatch:
        self._watch, self._drops, self._start = PlateauWatch(self.plateau), 0, start
        return self._watch
