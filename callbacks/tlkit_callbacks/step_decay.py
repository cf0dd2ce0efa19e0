"""Drop the learning rate every so many epochs."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import LayerSpec, network_of, select
from tlkit.optim import group_layers
from tlkit.schedules import step_decay
from tlkit_callbacks.schedule import Schedule


class StepDecay(Schedule):
    """Multiplies the learning rate with ``factor`` at epoch ``start`` and every ``every`` epochs after it.

    Several of them multiply. The initial decay epochs d of a transfer protocol, for one layer, beside the usual drop of
    all layers: ``StepDecay(every=None, start=d, layers="fc8")`` and ``StepDecay(every=30)``.

    Args:
        every: epochs between drops; null: there is only the one at ``start``.
        factor: what a drop multiplies the rate with.
        start: epoch of the first drop, counted from 0 (0: before the first update); ``every`` by default.
        layers: the layers it applies to; all by default. Needs named parameter groups (`tlkit.optim`).

    Raises:
        UserError: neither ``every`` nor ``start`` is given, or one of them cannot be.
    """

    def __init__(
        self,
        every: int | None = 30,
        factor: float = 0.1,
        start: int | None = None,
        layers: LayerSpec | None = None,
    ) -> None:
        if every is None and start is None:
            raise UserError("StepDecay: expected `every`, `start` or both, got neither; every: 30 is the common choice")
        if every is not None and every < 1:
            raise UserError(f"StepDecay: expected `every` to be at least 1 epoch, got {every}")
        if start is not None and start < 0:
            raise UserError(f"StepDecay: expected `start` to be epoch 0 or later, got {start}")
        if factor <= 0:
            raise UserError(f"StepDecay: expected `factor` to be larger than 0, got {factor}")
        self.every = every
        self.factor = factor
        self.start = start
        self.layers = layers

    _names: frozenset[str] | None = None
    """Layers it is restricted to; set when a run starts."""

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        if self.layers is not None:
            for optimizer in trainer.optimizers:
                group_layers(optimizer)
            self._names = frozenset(select(network_of(pl_module), self.layers))

    @override
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        if self._names is not None and group["layer"] not in self._names:
            return 1.0
        start = self.start if self.start is not None else self.every
        assert start is not None
        return step_decay(self.since_restart(trainer)[1], every=self.every, factor=self.factor, start=start)
