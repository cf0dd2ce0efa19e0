"""A learning rate that falls by the same factor in every epoch."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit_callbacks.schedule import Schedule


class ExponentialDecay(Schedule):
    """Multiplies the learning rate with ``factor`` after every epoch.

    0.99 is what Rangel DaCosta, Oill & Scott trained U-Nets on HRTEM images with (DOI 10.69761/kjte5358).

    Args:
        factor: rate of an epoch over that of the epoch before, above 0 and at most 1.
        warmup: updates over which the rate first rises linearly, while the epochs count already; 0: none.

    Raises:
        UserError: ``factor`` is out of range.
    """

    exclusive = True
    uniform = True

    def __init__(self, factor: float = 0.99, warmup: int = 0) -> None:
        super().__init__(warmup)
        if not 0 < factor <= 1:
            raise UserError(f"ExponentialDecay: expected factor above 0 and at most 1, got {factor}")
        self.factor = factor

    @override
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        return float(self.factor ** self.since_restart(trainer)[1])
