"""Chain-thaw: one layer at a time, then all."""

from collections.abc import Sequence

from torch import nn
from typing_extensions import override

from tlkit.layers import LayerSpec, layers_of, select
from tlkit.protocol import LATER_RATE
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.phase import Phase, in_turn
from tlkit_callbacks.plateau import Plateau


class ChainThaw(GradualUnfreezing):
    """Trains the head alone, then each other layer alone from the first to the last, then all layers.

    Source: Felbo et al. 2017 ("DeepMoji"), section 3.3; as in its authors' code the head is alone but once. There a
    phase lasts until the validation loss stops falling, and the next begins with the best weights: give ``plateau``.

    Args:
        epochs_per_phase: epochs of each phase, where there is no ``plateau``.
        plateau: ends a phase; the next one begins with the best checkpoint so far.
        head: the new layers: the last one, or those given as in `LayerFreezing`.
        rate: of all phases but the first, relative to the full one.
    """

    overlap = True

    def __init__(
        self, epochs_per_phase: int = 1, plateau: Plateau | None = None, head: LayerSpec = -1, rate: float = LATER_RATE
    ) -> None:
        super().__init__(epochs_per_phase=epochs_per_phase)
        self.plateau, self.head, self.rate = plateau, head, rate

    @override
    def phases_for(self, network: nn.Module) -> list[Phase]:
        head, every = select(network, self.head), list(layers_of(network))
        alone = [[name] for name in every if name not in head]
        return in_turn([head, *alone, every], self.epochs_per_phase, self.rate, self.plateau)

    @override
    def trained(self, index: int, layers: Sequence[Sequence[str]]) -> Sequence[str]:
        return layers[index]
