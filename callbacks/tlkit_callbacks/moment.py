"""A point in a run, as YAML gives it."""

import math
from dataclasses import dataclass

from lightning.pytorch import Trainer

from tlkit.errors import UserError
from tlkit_callbacks.updates import completed_updates, total_updates, updates_of_epochs


@dataclass(frozen=True)
class Moment:
    """A point in a run: ``{epoch: 5}``, ``{step: 100}`` or ``{fraction: 0.3}``.

    Attributes:
        epoch: number of epochs before it.
        step: number of optimizer updates before it; those skipped by a gradient scaler do not count.
        fraction: of the updates of the whole run, between 0 and 1.

    Raises:
        UserError: not exactly one of them is given, or it is out of range.
    """

    epoch: int | None = None
    step: int | None = None
    fraction: float | None = None

    def __post_init__(self) -> None:
        """Checks; see the class."""
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise UserError(
                f"a moment of a run: expected exactly one of epoch, step, fraction, got {', '.join(given) or 'none'}; "
                "for example {epoch: 5}"
            )
        if not 0 <= self.value <= (1 if self.unit == "fraction" else math.inf):
            expected = "between 0 and 1" if self.unit == "fraction" else "at least 0"
            raise UserError(f"expected {self.unit} {expected}, got {self.value}")

    @property
    def unit(self) -> str:
        """Which of the three is given."""
        return next(name for name, value in vars(self).items() if value is not None)

    @property
    def value(self) -> float:
        """The one that is given."""
        number: float = getattr(self, self.unit)
        return number

    def update(self, trainer: Trainer) -> int | None:
        """Returns the number of updates before it, of a run that has its data; None: they have no length."""
        if self.epoch is not None:
            return None if trainer.num_training_batches == math.inf else updates_of_epochs(trainer, self.epoch)
        if self.fraction is not None:
            return round(self.fraction * total_updates(trainer, f"fraction: {self.fraction}"))
        return self.step

    def reached(self, trainer: Trainer) -> bool:
        """Tells whether the next batch is at it or after it."""
        if self.epoch is not None:
            return trainer.current_epoch >= self.epoch
        update = self.update(trainer)
        assert update is not None
        return completed_updates(trainer) >= update

    def __str__(self) -> str:
        """Returns it as in YAML, for messages."""
        return f"{self.unit} {self.value:g}"
