"""The callback of the learning-rate range test: it sets the rate of each update, and notes what comes of it."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from tlkit.errors import NonFinite, UserError, suggest
from tlkit.layers import freeze, network_of
from tlkit.lr_curve import LRRange, Mode, diverged, read_curve
from tlkit.optim import reference_lr
from tlkit.schedules import momentum_of


class Sweep(Callback):
    """Sets the rate of each update and notes what comes of it.

    Args:
        rates: of the updates, for a group with ratio 1.
        metric: validation metric to note; None: the training loss.
        freezing: callbacks whose ``frozen`` says which layers to freeze.
    """

    def __init__(self, rates: list[float], metric: str | None, freezing: Sequence[Any]) -> None:
        self.rates = rates
        self.metric = metric
        self.freezing = freezing
        self.losses: list[float] = []
        self.points: list[tuple[float, float]] = []
        self.stopped: str | None = None
        self._momentum = True
        self._updates = 0
        self._ratios: list[float] = []
        self._window: list[float] = []
        self._batch: Any = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (optimizer,) = trainer.optimizers
        self._momentum = any(map(momentum_of, optimizer.param_groups))
        schedulers, who = trainer.strategy.lr_scheduler_configs, f"{type(pl_module).__name__}.configure_optimizers"
        reference = reference_lr(optimizer)
        if not reference:
            raise UserError(f"expected an optimizer with a learning rate, got {optimizer!r}; see {who}")
        own = {id(parameter) for parameter in pl_module.parameters()}
        if any(id(parameter) not in own for group in optimizer.param_groups for parameter in group["params"]):
            raise UserError(f"expected {who} to take the parameters of `self`, got others; define it in the class")
        initial = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        self._ratios = [rate / reference for rate in initial]
        schedulers.clear()
        self._freeze(pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._batch = batch
        self._freeze(pl_module)  # whoever calls .train() switches frozen modules on again
        self._set(trainer.optimizers[0])  # for whoever reads it in the training step

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._set(optimizer)  # whatever the module has set since

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs and "loss" in outputs:  # Lightning has divided it by the number of batches of a whole window
            self._window.append(outputs["loss"].item() * trainer.accumulate_grad_batches)
        if trainer.global_step == self._updates:
            return
        if self._window:
            self._note(trainer, sum(self._window) / len(self._window))
        self._updates, self._window = trainer.global_step, []

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.metric is None or self.stopped:
            return
        logged = trainer.callback_metrics
        if self.metric not in logged:
            raise UserError(
                f"metric: expected one that is logged, got '{self.metric}'{suggest(self.metric, logged) or ';'} "
                f"logged: {', '.join(sorted(logged)) or 'none'}"
            )
        value = logged[self.metric].item()
        if math.isfinite(value):
            self.points.append((self.rates[self._updates - 1], value))
        else:
            self.stopped, trainer.should_stop = f"{self.metric} was not finite after update {self._updates}", True

    def blames_the_rate(self) -> bool:
        """Notes that the loss is not finite; returns False where it was so before any update, or an input is."""
        finite: list[bool] = []
        apply_to_collection(self._batch, Tensor, lambda tensor: finite.append(bool(torch.isfinite(tensor).all())))
        self.stopped = f"the training loss was not finite at {self._where()}"
        return bool(self.losses) and all(finite)

    def result(self, planned: int, mode: Mode) -> LRRange:
        """Reads the curve; ``planned`` is the number of its points where nothing stops the sweep."""
        if not self.points:
            why = self.stopped or f"there are no batches{', or there is no validation_step' if self.metric else ''}"
            raise UserError(f"expected {self.metric or 'training loss'} at each rate, got nothing: {why}")
        rates, values = (list(column) for column in zip(*self.points, strict=True))
        return read_curve(
            rates,
            values,
            planned=planned,
            metric=self.metric or "training loss",
            mode=mode,
            stopped=self.stopped,
            momentum=self._momentum,
        )

    def _freeze(self, pl_module: LightningModule) -> None:
        for callback in self.freezing:
            freeze(network_of(pl_module), callback.frozen(pl_module), callback.norm)

    def _set(self, optimizer: Optimizer) -> None:
        for group, ratio in zip(optimizer.param_groups, self._ratios, strict=True):
            rate = self.rates[self._updates] * ratio
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _note(self, trainer: Trainer, loss: float) -> None:
        if not math.isfinite(loss):
            if not self.blames_the_rate():
                raise NonFinite(f"expected a finite loss and finite inputs, got a training loss of {loss}")
            trainer.should_stop = True
            return
        self.losses.append(loss)
        if self.metric is None:
            self.points.append((self.rates[self._updates], loss))
        if diverged(self.losses, len(self.rates)):
            self.stopped, trainer.should_stop = f"the training loss diverged at {self._where()}", True

    def _where(self) -> str:
        return f"rate {self.rates[self._updates]:.2g} (update {self._updates + 1} of {len(self.rates)})"
