"""Average the weights evenly over the updates."""

from typing_extensions import override

from tlkit_callbacks.moment import Moment
from tlkit_callbacks.weight_average import Buffers, Evaluate, WeightAverage


class PolyakMean(WeightAverage):
    """Keeps the plain mean of the weights after each update since its start, and evaluates it.

    Best begun late, when the weights move around an optimum. What is evaluated, what is in a checkpoint and what the
    module holds after the run is as in `EMAWeights`, and so is what it costs.

    Source: Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30 (1992).

    Args:
        start: after which the weights count: ``{epoch: 5}``, ``{step: 100}`` or ``{fraction: 0.3}``; null: all.
        every: updates from one averaging to the next, at least 1.
        buffers: what belongs to the mean: ``copied``, the module's own, or ``averaged`` ones; integers are copied.
        evaluate: ``averaged``; ``raw``; or ``both``: as averaged, and one more pass over the validation data logs the
            raw weights' metrics as ``raw/val/…``.

    Raises:
        UserError: an argument cannot be; at the start of a run: another callback averages the weights as well, or the
            strategy divides them among processes.
    """

    label = "mean"

    def __init__(
        self,
        start: Moment | None = None,
        every: int = 1,
        buffers: Buffers = "copied",
        evaluate: Evaluate = "averaged",
    ) -> None:
        super().__init__(start, every, buffers, evaluate)

    @override
    def weight(self, averaged: int) -> float:
        return 1 / (averaged + 1)
