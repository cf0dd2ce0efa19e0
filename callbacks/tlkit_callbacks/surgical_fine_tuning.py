"""Surgical fine-tuning: one block of a network trains, everything else keeps its weights."""

from lightning.pytorch import LightningModule
from typing_extensions import override

from tlkit.layers import LayerSpec, NormMode, layers_of, network_of, select
from tlkit_callbacks.layer_freezing import LayerFreezing


class SurgicalFineTuning(LayerFreezing):
    """Trains one block of layers only, for the whole run.

    Which block is best depends on how the new data differ: an early one where their input does (noise, blur), the last
    one where their labels do. Source: Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution
    Shifts".

    Args:
        layers: the block that trains: a group, a name, a glob, the first k layers (negative: the last k), or a list.
        norm: normalisation in all other layers, as in `LayerFreezing`.
    """

    def __init__(self, layers: LayerSpec, norm: NormMode = "eval") -> None:
        super().__init__(layers, norm)

    @override
    def freezes(self, pl_module: LightningModule) -> list[str]:
        network = network_of(pl_module)
        block = select(network, self.layers)
        return [name for name in layers_of(network) if name not in block]
