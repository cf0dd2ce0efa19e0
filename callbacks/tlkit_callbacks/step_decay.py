"""Drop the learning rate every so many epochs."""

import math
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

    Several of them multiply; see also `InitialDecay`.

    Args:
        every: epochs between drops; null: there is only the one at ``start``.
        factor: what a drop multiplies the rate with.
        start: epoch of the first drop, counted from 0 (0: before the first update); ``every`` by default.
        layers: the layers it applies to; all by default. Needs named parameter groups (`tlkit.optim`).
        warmup: updates over which the rate first rises linearly, while the epochs count already; 0: none.
        updates_per_epoch: counts so many updates as an epoch, whatever the data have: advice from a larger data set
            that names epochs means updates; null: the epochs of the data.

    Raises:
        UserError: neither ``every`` nor ``start`` is given, or one of them cannot be; at the start of a run: a layer
            that does not exist, or unnamed parameter groups.
    """

    multiplies = True

    def __init__(
        self,
        every: int | None = 30,
        factor: float = 0.1,
        start: int | None = None,
        layers: LayerSpec | None = None,
        warmup: int = 0,
        updates_per_epoch: int | None = None,
    ) -> None:
        super().__init__(warmup)
        who = type(self).__name__
        if every is None and start is None:
            raise UserError(f"{who}: expected `every`, `start` or both, got neither; every: 30 is the common choice")
        if every is not None and every < 1:
            raise UserError(f"{who}: expected `every` to be at least 1 epoch, got {every}")
        if start is not None and start < 0:
            raise UserError(f"{who}: expected `start` to be epoch 0 or later, got {start}")
        if not 0 < factor < math.inf:
            raise UserError(f"{who}: expected `factor` to be larger than 0, got {factor}")
        if updates_per_epoch is not None and updates_per_epoch < 1:
            raise UserError(f"{who}: expected `updates_per_epoch` to be at least 1, got {updates_per_epoch}")
        if layers is not None and warmup:
            raise UserError(f"{who}: expected a warm-up of all layers, got one of some; give it to another schedule")
        self.every = every
        self.factor = factor
        self.start = start
        self.layers = layers
        self.updates_per_epoch = updates_per_epoch
        self.exclusive = self.uniform = layers is None

    _names: frozenset[str] | None = None
    """Layers it is restricted to; set when a run starts."""

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().check(trainer, pl_module)
        if self.layers is not None:
            select(network_of(pl_module), self.layers)

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
        updates, epochs = self.since_restart(trainer)
        epoch = epochs if self.updates_per_epoch is None else updates // self.updates_per_epoch
        return step_decay(epoch, every=self.every, factor=self.factor, start=start)
