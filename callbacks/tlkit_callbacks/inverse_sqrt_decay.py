"""A learning rate that falls with the square root of the updates made."""

from typing_extensions import override

from tlkit.schedules import inverse_sqrt_decay
from tlkit_callbacks.schedule import Curve


class InverseSqrtDecay(Curve):
    """Lowers the learning rate with one over the square root of the updates; the run may have any length.

    ``α₀ / √(t + 1)`` in update t = 0, 1, … (equation 10.3, whose t starts at 1).

    Args:
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.
    """

    ends = False

    @override
    def curve(self, step: int, steps: int) -> float:
        return inverse_sqrt_decay(step)
