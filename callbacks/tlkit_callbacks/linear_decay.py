"""A line down to a learning rate of 0."""

from typing_extensions import override

from tlkit.schedules import linear_decay
from tlkit_callbacks.schedule import Curve


class LinearDecay(Curve):
    """Lowers the learning rate along a line, to 0 in the last update.

    ``α₀ (1 - t / T)`` (equation 10.2) in update t = 0 … T.

    Args:
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.
    """

    @override
    def curve(self, step: int, steps: int) -> float:
        return linear_decay(step, steps)
