"""A learning rate that stays as it is."""

from typing_extensions import override

from tlkit_callbacks.schedule import Curve


class ConstantRate(Curve):
    """Keeps the learning rate constant, after a warm-up if there is one (equation 10.4).

    Args:
        warmup: updates over which the rate first rises linearly; 0: none.
    """

    ends = False

    @override
    def curve(self, step: int, steps: int) -> float:
        return 1.0
