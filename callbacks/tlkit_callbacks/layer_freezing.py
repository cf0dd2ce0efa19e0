"""Freeze layers, for the whole run or a part of it."""

from typing import get_args

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import LayerSpec, NormMode, network_of, select
from tlkit_callbacks.freezing import Freezing, refuse_all_frozen
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.updates import check_length


class LayerFreezing(Freezing):
    """Freezes layers: their weights do not change, in the whole run or from a start until an end.

    Several of these callbacks together freeze the union of their layers. Batch normalisation's statistics alone, for a
    window around the peak of `OneCycle`: ``LayerFreezing("all", "statistics", {fraction: 0.25}, {fraction: 0.35})``.

    Args:
        layers: the first k layers (negative: the last k), a name, a group, a glob, or a list of names, groups, globs.
        norm: normalisation in frozen layers. ``eval``: statistics and affine parameters fixed, dropout off;
            ``affine``: affine parameters fixed, statistics follow the data; ``train``: it trains on;
            ``statistics``: nothing is fixed but running statistics, all weights train.
        start: when it begins: ``{epoch: 5}``, ``{step: 100}`` (updates) or ``{fraction: 0.3}`` (of the run's updates);
            null: with the run.
        end: when it ends, given in the same way; null: with the run.

    Raises:
        UserError: at the start of a run: a layer that does not exist, nothing left to train, an end before the start.
    """

    def __init__(
        self,
        layers: LayerSpec,
        norm: NormMode = "eval",
        start: Moment | None = None,
        end: Moment | None = None,
    ) -> None:
        if norm not in get_args(NormMode):
            raise UserError(f"{type(self).__name__}: expected norm {', '.join(get_args(NormMode))}, got {norm}")
        self.layers = layers
        self.norm: NormMode = norm
        self.start = start
        self.end = end
        if start is not None and end is not None and start.unit == end.unit and start.value >= end.value:
            raise UserError(f"LayerFreezing: expected an end after the start, got start {start} and end {end}")

    @property
    def changes(self) -> bool:  # type: ignore[override]
        """Whether it holds for a part of the run only."""
        return self.start is not None or self.end is not None

    _names: list[str]
    """What `freezes` returns; set when a run starts."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._names = self.freezes(pl_module)
        super().setup(trainer, pl_module, stage)

    @override
    def freezes(self, pl_module: LightningModule) -> list[str]:
        return select(network_of(pl_module), self.layers)

    @override
    def frozen(self, pl_module: LightningModule) -> list[str]:
        weights = self.norm != "statistics"
        return self.freezes(pl_module) if weights and (self.start is None or not self.start.value) else []

    @override
    def frozen_now(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        begun = self.start is None or self.start.reached(trainer)
        ended = self.end is not None and self.end.reached(trainer)
        return self._names if begun and not ended else []

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().check(trainer, pl_module)
        refuse_all_frozen(pl_module, [(self.freezes(pl_module), self.norm)], "")
        for moment in (self.start, self.end):
            if moment is not None and moment.fraction is not None:
                check_length(trainer, f"{type(self).__name__}, {moment}")
        if self.end is not None and not self.end.value:
            raise UserError(f"{type(self).__name__}: expected an end after the run begins, got {self.end}")
        if self.start is not None and _after_the_run(trainer, self.start):
            raise UserError(f"{type(self).__name__}: expected a start within the run, got {self.start}")

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.start is not None and self.end is not None:
            first, last = self.start.update(trainer), self.end.update(trainer)
            if first is not None and last is not None and first >= last:
                raise UserError(
                    f"{type(self).__name__}: expected an end after the start, got {self.start}, which is update "
                    f"{first}, and {self.end}, which is update {last}"
                )


def _after_the_run(trainer: Trainer, moment: Moment) -> bool:
    limit = {"epoch": trainer.max_epochs, "step": trainer.max_steps, "fraction": 1.0}[moment.unit]
    return limit is not None and limit > 0 and moment.value >= limit and not trainer.fast_dev_run  # type: ignore[attr-defined]
