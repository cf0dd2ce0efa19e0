"""Freeze layers for the whole run."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import LayerSpec, NormMode, freeze, frozen_modules, layers_of, network_of, select

log = logging.getLogger("tlkit")


class LayerFreezing(Callback):
    """Freezes layers: their weights do not change in the whole run.

    The module's network is its attribute ``network`` if it has one, else the module itself. Several of these callbacks
    together freeze the union of their layers.

    Args:
        layers: the first k layers (negative: the last k), a name, a group, a glob, or a list of names, groups, globs.
        norm: normalisation in frozen layers. ``eval``: statistics and affine parameters fixed, dropout off;
            ``affine``: affine parameters fixed, statistics follow the data; ``train``: it trains on.

    Raises:
        UserError: at the start of a run: a layer that does not exist, or nothing left to train.
    """

    def __init__(self, layers: LayerSpec, norm: NormMode = "eval") -> None:
        self.layers = layers
        self.norm: NormMode = norm

    _quiet: list[nn.Module]
    """Modules that are in evaluation mode while the rest trains; set when a run starts."""

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        network, names = network_of(pl_module), self.frozen(pl_module)
        freeze(network, names, self.norm)
        self._quiet = frozen_modules(network, names, self.norm)
        if not any(parameter.requires_grad for parameter in pl_module.parameters()):
            raise UserError(
                f"expected at least one layer to train, got all of them frozen: {', '.join(layers_of(network))}; "
                "freeze fewer layers (callbacks.LayerFreezing.layers)"
            )
        _warn_if_random(pl_module, names)

    def frozen(self, pl_module: LightningModule) -> list[str]:
        """Returns the names of the layers that it freezes.

        Raises:
            UserError: a layer that does not exist.
        """
        return select(network_of(pl_module), self.layers)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # whoever calls .train() on the network (Lightning, a module's own hook) switches frozen modules on again
        if any(module.training for module in self._quiet):
            freeze(network_of(pl_module), self.frozen(pl_module), self.norm)


def _warn_if_random(pl_module: LightningModule, frozen: list[str]) -> None:
    transferred: list[str] | None = getattr(pl_module, "transferred", None)
    random = [name for name in frozen if transferred is not None and name not in transferred]
    if random:
        log.warning(
            "LayerFreezing freezes layers with random weights, they were not transferred: %s; "
            "transfer at least as many layers as are frozen (pretrain.layers)",
            ", ".join(random),
        )
