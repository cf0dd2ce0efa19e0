"""Half a cosine down to a learning rate of 0."""

from typing_extensions import override

from tlkit.schedules import cosine_decay
from tlkit_callbacks.schedule import Curve


class CosineDecay(Curve):
    """Lowers the learning rate along half a cosine, to 0 in the last update.

    ``½ α₀ (1 + cos(π t / T))`` (equation 10.1) in update t = 0 … T.

    Args:
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.
    """

    @override
    def curve(self, step: int, steps: int) -> float:
        return cosine_decay(step, steps)
