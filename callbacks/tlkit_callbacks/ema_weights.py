"""Average the weights exponentially over the updates."""

import logging
import math
from typing import Any

from typing_extensions import override

from tlkit.errors import UserError
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.weight_average import Buffers, Evaluate, WeightAverage

log = logging.getLogger("tlkit")

DECAY = 0.999
MOSTLY = 0.1
"""Share of the start weights in the average above which it is warned about."""


class EMAWeights(WeightAverage):
    """Keeps an exponential moving average of the weights and evaluates it.

    After an update, ``average = decay · average + (1 - decay) · weights``; it begins as the weights at the start, which
    after n averagings still have the share decay^n. Validation metrics, and so the choice of the best checkpoint, are
    those of the average. So is what every checkpoint holds as ``state_dict``; the raw weights are in it as the state of
    this callback, and a resumed run goes on with both. After the run the module holds the average: a test that follows
    is of it. With ``evaluate: raw`` all this is the other way round.

    Parameters of frozen layers are averaged too, so a layer that is thawed later has its average. It takes the memory
    of the weights once more, during a validation and after the run twice.

    Source: equation 10.8; the warm-up is that of TensorFlow's ``ExponentialMovingAverage``.

    Args:
        decay: share that the average keeps in each averaging, at least 0 and below 1; null: 0.999, or as half_life.
        half_life: updates in which a share falls to a half, in the place of decay.
        warmup: whether the decay in averaging t (from 0) is at most (1 + t) / (10 + t).
        start: when the average begins, as the weights then: ``{epoch: 5}``, ``{step: 100}`` or ``{fraction: 0.3}``;
            null: with the run. Before it, validation and checkpoints have the raw weights.
        every: updates from one averaging to the next, at least 1; the decay is per averaging.
        buffers: what belongs to the average: ``copied``, the module's own, or ``averaged`` ones; integers are copied.
        evaluate: ``averaged``; ``raw``; or ``both``: as averaged, and one more pass over the validation data logs the
            raw weights' metrics as ``raw/val/…``.

    Raises:
        UserError: an argument cannot be; at the start of a run: another callback averages the weights as well, or the
            strategy divides them among processes.
    """

    label = "EMA"

    def __init__(
        self,
        decay: float | None = None,
        half_life: float | None = None,
        warmup: bool = False,
        start: Moment | None = None,
        every: int = 1,
        buffers: Buffers = "copied",
        evaluate: Evaluate = "averaged",
    ) -> None:
        super().__init__(start, every, buffers, evaluate)
        if decay is not None and half_life is not None:
            raise UserError(f"EMAWeights: expected decay or half_life, got both: {decay} and {half_life}; remove one")
        if decay is not None and not 0 <= decay < 1:
            raise UserError(f"EMAWeights: expected decay to be at least 0 and below 1, got {decay}")
        if half_life is not None and not 0 < half_life < math.inf:
            raise UserError(f"EMAWeights: expected half_life to be more than 0 updates, got {half_life}")
        self.decay = decay
        self.half_life = half_life
        self.warmup = warmup

    @property
    def _decay(self) -> float:
        if self.half_life is not None:
            return math.exp2(-self.every / self.half_life)
        return DECAY if self.decay is None else self.decay

    @override
    def weight(self, averaged: int) -> float:
        return 1 - (min(self._decay, (1 + averaged) / (10 + averaged)) if self.warmup else self._decay)

    @override
    def foresee(self, planned: int) -> None:
        super().foresee(planned)
        share = self._decay**planned
        if planned and not self.warmup and share > MOSTLY:
            enough = 0.01 ** (1 / planned)  # leaves 1 %
            log.warning(
                "EMAWeights: after the %d averagings of this run, %.0f %% of the average will still be the weights "
                "that it began with (decay %.4g); give decay: %.3g, or warmup: true",
                *(planned, 100 * share, self._decay, enough),
            )

    @override
    def summary(self) -> dict[str, Any]:
        return {"decay": self._decay} | super().summary()
