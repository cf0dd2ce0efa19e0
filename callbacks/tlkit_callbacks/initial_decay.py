"""Drop the learning rate of some layers once, early."""

from tlkit.errors import UserError
from tlkit.layers import LayerSpec
from tlkit_callbacks.step_decay import StepDecay


class InitialDecay(StepDecay):
    """Trains some layers, such as a new head, at their full rate for the initial epochs only.

    Their rate falls once by ``factor``; `StepDecay` beside it drops the rate of all layers. After Plested & Gedeon, who
    find fewer initial epochs better the smaller the data set is, if updates are counted.

    Args:
        epochs: at the full rate; 0: none.
        layers: the layers it applies to: the last one, or those given as in `LayerFreezing`.
        factor: what the rate falls by.
        updates_per_epoch: counts so many updates as an epoch, whatever the data have: advice from a larger data set
            that names epochs means updates; null: the epochs of the data.

    Raises:
        UserError: an argument is out of range; at the start of a run: a layer that does not exist, or unnamed parameter
            groups.
    """

    def __init__(
        self, epochs: int, layers: LayerSpec = -1, factor: float = 0.1, updates_per_epoch: int | None = None
    ) -> None:
        if epochs < 0:
            raise UserError(f"InitialDecay: expected `epochs` to be at least 0, got {epochs}")
        super().__init__(every=None, factor=factor, start=epochs, layers=layers, updates_per_epoch=updates_per_epoch)
        self.epochs = epochs
