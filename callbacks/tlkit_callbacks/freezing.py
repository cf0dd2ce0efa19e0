"""The base of all protocols that freeze layers."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import (
    NormMode,
    freeze,
    frozen_modules,
    frozen_parameters,
    is_frozen,
    layers_of,
    network_of,
    thaw,
)
from tlkit.optim import clear_state
from tlkit_callbacks.updates import count_updates

log = logging.getLogger("tlkit")

MARK = "frozen_by_protocol"
"""Attribute of a parameter that is frozen here, and not kept fixed by the module itself."""


class Freezing(Callback, ABC):
    """Freezes layers for as long as `frozen_now` names them.

    The module's network is its attribute ``network`` if it has one, else the module itself. What is frozen is a
    function of the moment, applied anew before every batch whose state differs: it survives ``.train()``, validation
    and resume. Several of these callbacks together freeze the union of their layers. What the module itself keeps fixed
    (``requires_grad=False``) stays so when its layer is thawed. A warning names layers that were not transferred: they
    are frozen with random weights.

    Raises:
        UserError: at the start of a run: a layer that does not exist, nothing left to train, or what is frozen changes
            under a DDP strategy that does not look for unused parameters.
    """

    norm: NormMode = "eval"
    """Normalisation in frozen layers, see `tlkit.layers.freeze`."""

    changes: bool = True
    """Whether what is frozen changes within a run."""

    @abstractmethod
    def frozen(self, pl_module: LightningModule) -> list[str]:
        """Returns the names of the layers that are frozen when a run starts.

        Raises:
            UserError: a layer that does not exist.
        """

    def freezes(self, pl_module: LightningModule) -> list[str]:
        """Returns the names of the layers that are frozen at some time of a run."""
        return self.frozen(pl_module)

    def frozen_now(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        """Returns the names of the layers that are frozen in the batch that comes next."""
        return self.frozen(pl_module)

    def advance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decides what holds from the batch that comes next. Idempotent: called several times before one batch."""

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what can be known to be wrong before anything is trained; see the class."""
        wanted = [(callback.frozen(pl_module), callback.norm) for callback in _all(trainer)]
        refuse_all_frozen(pl_module, wanted, "")

    _applied: list[tuple[list[str], NormMode]]
    """What the first callback of its kind has frozen for all of them; set when a run starts, as the next two."""
    _still: list[nn.Module]
    """The modules that therefore stay in evaluation mode."""
    _trains: dict[str, float]
    """Layer -> 1 if it trains, 0 if it is frozen, as charted."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._applied, self._still, self._trains = [], [], {}
        network = network_of(pl_module)
        if _all(trainer)[0] is self:  # what an earlier fit has left frozen
            _thaw(network, [n for n, layer in layers_of(network).items() if any(_marked(network, layer.parameters))])
        if not self.changes:  # before DDP wraps the module: what never trains, it need not wait for
            self.check(trainer, pl_module)
            _freeze_all(network, [(self.frozen(pl_module), self.norm)])

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)
        wrapped = trainer.strategy.model
        if self.changes and isinstance(wrapped, DistributedDataParallel) and not wrapped.find_unused_parameters:
            raise UserError(
                f"{type(self).__name__}: expected a strategy that looks for unused parameters, as layers are thawed or "
                "frozen during training; give trainer.strategy: ddp_find_unused_parameters_true"
            )
        if self.changes and any(
            g.get("fused") and g.get("momentum") for o in trainer.optimizers for g in o.param_groups
        ):
            raise UserError(
                f"{type(self).__name__}: expected an optimizer that takes weights without momentum, as those that are "
                "thawed have none yet, got a fused SGD, which fails; leave out fused"
            )
        transferred: list[str] | None = getattr(pl_module, "transferred", None)
        frozen = self.freezes(pl_module) if self.norm != "statistics" and transferred is not None else []
        random = [name for name in frozen if name not in (transferred or ())]
        if random:
            log.warning(
                "%s freezes layers with random weights, they were not transferred: %s; "
                "transfer at least as many layers as are frozen (pretrain.layers)",
                type(self).__name__,
                ", ".join(random),
            )
        super().on_fit_start(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_updates(trainer)
        super().on_train_start(trainer, pl_module)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        callbacks = _all(trainer)
        if callbacks[0] is self:
            for callback in callbacks:
                callback.advance(trainer, pl_module)
            self._apply(trainer, pl_module, [(c.frozen_now(trainer, pl_module), c.norm) for c in callbacks])
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def _apply(
        self, trainer: Trainer, pl_module: LightningModule, wanted: Sequence[tuple[list[str], NormMode]]
    ) -> None:
        network = network_of(pl_module)
        if wanted == self._applied:
            # whoever calls .train() on the network (Lightning, a module's own hook) switches frozen modules on again
            if any(module.training for module in self._still):
                _freeze_all(network, wanted)
            return
        refuse_all_frozen(pl_module, wanted, f" from step {trainer.global_step} on")
        before = {id(p) for p in _parameters(network, self._applied)}
        _thaw(network, sorted({name for names, _ in self._applied for name in names}))
        _freeze_all(network, wanted)
        newly = [p for p in _parameters(network, wanted) if id(p) not in before]
        for optimizer in trainer.optimizers:
            clear_state(optimizer, newly)
        self._applied = list(wanted)
        self._still = [module for names, norm in wanted for module in frozen_modules(network, names, norm)]
        trains = {f"trains/{n}": float(not is_frozen(network, layer)) for n, layer in layers_of(network).items()}
        chart_step(trainer, self._trains, trains)
        self._trains = trains

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        chart_step(trainer, self._trains, {})
        super().on_train_end(trainer, pl_module)


def chart_step(trainer: Trainer, before: Mapping[str, float], now: Mapping[str, float]) -> None:
    """Logs what holds from the next update on, and what held up to it: charts join points by slopes, not by steps."""
    for logger in trainer.loggers:
        if before and trainer.global_step:
            logger.log_metrics(dict(before), step=trainer.global_step - 1)
        if now:
            logger.log_metrics(dict(now), step=trainer.global_step)


def refuse_all_frozen(pl_module: LightningModule, wanted: Sequence[tuple[list[str], NormMode]], when: str) -> None:
    """Refuses to freeze everything.

    Raises:
        UserError: no parameter is left to train.
    """
    frozen = {id(p) for p in _parameters(network_of(pl_module), wanted)}
    if all(id(p) in frozen for p in pl_module.parameters()):
        names = ", ".join(layers_of(network_of(pl_module)))
        raise UserError(
            f"expected at least one layer to train, got all of them frozen{when}: {names}; freeze fewer layers"
        )


def _all(trainer: Trainer) -> "list[Freezing]":
    return [callback for callback in trainer.callbacks if isinstance(callback, Freezing)]  # type: ignore[attr-defined]


def _freeze_all(network: nn.Module, wanted: Sequence[tuple[list[str], NormMode]]) -> None:
    for parameter in _parameters(network, wanted):
        if parameter.requires_grad:
            setattr(parameter, MARK, True)
    for names, norm in wanted:
        freeze(network, names, norm)


def _thaw(network: nn.Module, names: Sequence[str]) -> None:
    fixed = [p for p in network.parameters() if not p.requires_grad and not hasattr(p, MARK)]
    thaw(network, names)
    for parameter in fixed:
        parameter.requires_grad_(False)
    for parameter in network.parameters():
        if parameter.requires_grad and hasattr(parameter, MARK):
            delattr(parameter, MARK)


def _marked(network: nn.Module, keys: Sequence[str]) -> list[bool]:
    return [hasattr(network.get_parameter(key), MARK) for key in keys]


def _parameters(network: nn.Module, wanted: Sequence[tuple[list[str], NormMode]]) -> list[nn.Parameter]:
    return [parameter for names, norm in wanted for parameter in frozen_parameters(network, names, norm)]
