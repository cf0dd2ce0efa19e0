"""Half a cosine down to a learning rate of 0, several times."""

from lightning.pytorch import LightningModule, Trainer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.schedules import cycle_ends, cyclic_cosine
from tlkit_callbacks.schedule import Curve, segment_of
from tlkit_callbacks.updates import total_updates


class CyclicCosine(Curve):
    """Lowers the learning rate along half a cosine to 0, several times; a snapshot can be kept at the end of each.

    Source: Huang et al., "Snapshot Ensembles: Train 1, Get M for Free" (2017, arXiv:1704.00109).

    Args:
        cycles: how often; they are equally long, give or take one update.
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.

    Raises:
        UserError: ``cycles`` is less than 1; at the start of a run: there are more of them than updates.
    """

    def __init__(self, cycles: int, warmup: int = 0) -> None:
        super().__init__(warmup)
        if cycles < 1:
            raise UserError(f"CyclicCosine: expected cycles to be at least 1, got {cycles}")
        self.cycles = cycles

    @override
    def curve(self, step: int, steps: int) -> float:
        return cyclic_cosine(step, steps, self.cycles)

    def cycle_ends(self, trainer: Trainer) -> list[int]:
        """Returns the numbers of completed updates after which a cycle has ended, from ``on_fit_start`` on.

        The last one is that of all updates of the run, or of its part up to the next restart.
        """
        segment = segment_of(trainer)
        end = total_updates(trainer, "CyclicCosine") if segment.updates is None else segment.update + segment.updates
        start = segment.update + self.warmup
        return [start + update for update in cycle_ends(end - start, self.cycles)]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        updates = total_updates(trainer, "CyclicCosine") - self.warmup
        if self.cycles > updates and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"CyclicCosine: expected at most a cycle per update, got {self.cycles} in {updates} updates"
            )
