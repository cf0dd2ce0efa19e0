"""The base of all protocols that freeze layers."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
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


class Freezing(Callback, ABC):
    """Freezes layers for as long as `frozen_now` names them.

    The module's network is its attribute ``network`` if it has one, else the module itself. What is frozen is a function
    of the moment, applied anew before every batch whose state differs: it survives ``.train()``, validation and resume.
    Several of these callbacks together freeze the union of their layers.

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
    """What the first callback of its kind has frozen for all of them; set when a run starts."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._applied = []
        self.check(trainer, pl_module)
        if not self.changes:  # before DDP wraps the module: what never trains, it need not wait for
            freeze(network_of(pl_module), self.frozen(pl_module), self.norm)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        wrapped = trainer.strategy.model
        if self.changes and isinstance(wrapped, DistributedDataParallel) and not wrapped.find_unused_parameters:
            raise UserError(
                f"{type(self).__name__}: expected a strategy that looks for unused parameters, as layers are thawed or "
                "frozen during training; give trainer.strategy: ddp_find_unused_parameters_true"
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
            if any(m.training for names, norm in wanted for m in frozen_modules(network, names, norm)):
                _freeze_all(network, wanted)
            return
        refuse_all_frozen(pl_module, wanted, f" from step {trainer.global_step} on")
        before = {id(p) for p in _parameters(network, self._applied)}
        thaw(network, sorted({name for names, _ in self._applied for name in names}))
        _freeze_all(network, wanted)
        newly = [p for p in _parameters(network, wanted) if id(p) not in before]
        for optimizer in trainer.optimizers:
            clear_state(optimizer, newly)
        self._applied = list(wanted)
        _log_trained(trainer, network)


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
    for names, norm in wanted:
        freeze(network, names, norm)


def _parameters(network: nn.Module, wanted: Sequence[tuple[list[str], NormMode]]) -> list[nn.Parameter]:
    return [parameter for names, norm in wanted for parameter in frozen_parameters(network, names, norm)]


def _log_trained(trainer: Trainer, network: nn.Module) -> None:
    """Says which layers train from now on, and charts each as 1 (trains) or 0 (frozen)."""
    trains = {name: float(not is_frozen(network, layer)) for name, layer in layers_of(network).items()}
    for logger in trainer.loggers:
        logger.log_metrics({f"trains/{name}": value for name, value in trains.items()}, step=trainer.global_step)
    log.debug(
        "epoch %d, step %d: these layers train: %s",
        trainer.current_epoch,
        trainer.global_step,
        ", ".join(name for name, value in trains.items() if value) or "none",
    )
