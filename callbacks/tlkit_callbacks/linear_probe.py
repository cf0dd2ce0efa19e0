"""Linear probing, then fine-tuning (LP-FT)."""

from torch import nn
from typing_extensions import override

from tlkit.layers import LayerSpec, NormMode
from tlkit.protocol import LATER_RATE
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.phase import REST, Phase


class LinearProbeThenFineTune(GradualUnfreezing):
    """Trains the head alone at first, then everything at a lower rate; schedules begin anew in between.

    A head that fits already distorts the features less once everything trains. Source: Kumar et al. 2022, "Fine-Tuning
    can Distort Pretrained Features and Underperform Out-of-Distribution" (LP-FT).

    Args:
        probe_epochs: epochs in which the head trains alone.
        head: the last layer, or those given as in `LayerFreezing`.
        rate: of all layers after that, relative to their full one.
        norm: normalisation in frozen layers, as in `LayerFreezing`.
    """

    def __init__(
        self, probe_epochs: int, head: LayerSpec = -1, rate: float = LATER_RATE, norm: NormMode = "eval"
    ) -> None:
        super().__init__(norm=norm)
        self.probe_epochs, self.head, self.rate = probe_epochs, head, rate

    @override
    def phases_for(self, network: nn.Module) -> list[Phase]:
        everything = Phase(REST, epoch=self.probe_epochs, rate=self.rate, rate_before=self.rate, restart=True)
        return [Phase(self.head), everything]
