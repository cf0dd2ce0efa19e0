"""One learning-rate cycle with momentum coupled inversely."""

import math
from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.optim import reference_lr
from tlkit.schedules import momentum_of, one_cycle, one_cycle_momentum
from tlkit.tasks.base import Task
from tlkit_callbacks.schedule import Curve


class OneCycle(Curve):
    """Raises the learning rate to a peak, then lowers it to almost 0, along half cosines; momentum does the reverse.

    Equations 10.5 and 10.6 in update t = 0 … T; after Smith & Topin, "Super-Convergence" (2018, arXiv:1708.07120).
    `tlkit lr-range` suggests a peak. For Adam's kin, momentum is beta 1.

    Args:
        peak_lr: the highest rate, in place of the optimizer's ``lr``, which is it by default.
        pct_start: share of the updates up to the peak, above 0 and below 1; 0.2 to 0.4 are usual.
        div_factor: peak over the rate of the first update; 3 to 10 are usual.
        final_div_factor: peak (not the first rate, as in torch) over the rate of the last update; 1e3 to 1e4 are usual.
        momentum_min: momentum at the peak; null, and ``momentum_max`` too: it stays as it is.
        momentum_max: momentum of the first and of the last update.
        warmup: updates over which the rate first rises linearly, before the curve begins; 0: none.

    Raises:
        UserError: an argument is out of range; at the start of a run: momentum is coupled, and the optimizer has none.
    """

    def __init__(
        self,
        peak_lr: float | None = None,
        pct_start: float = 0.3,
        div_factor: float = 10.0,
        final_div_factor: float = 1e4,
        momentum_min: float | None = 0.85,
        momentum_max: float | None = 0.95,
        warmup: int = 0,
    ) -> None:
        super().__init__(warmup)
        if peak_lr is not None and not 0 < peak_lr < math.inf:
            raise UserError(f"OneCycle: expected peak_lr above 0, got {peak_lr}")
        if not 0 < pct_start < 1:
            raise UserError(f"OneCycle: expected pct_start above 0 and below 1, got {pct_start}")
        if not (1 <= div_factor < math.inf and 1 <= final_div_factor < math.inf):
            raise UserError(
                "OneCycle: expected div_factor and final_div_factor of at least 1, "
                f"got {div_factor} and {final_div_factor}"
            )
        if (momentum_min is None) != (momentum_max is None):
            raise UserError("OneCycle: expected both of momentum_min and momentum_max, or null for both, got one")
        if momentum_min is not None and momentum_max is not None and not 0 < momentum_min <= momentum_max < 1:
            raise UserError(
                "OneCycle: expected 0 < momentum_min <= momentum_max < 1, "
                f"got momentum_min {momentum_min} and momentum_max {momentum_max}"
            )
        self.peak_lr = peak_lr
        self.pct_start = pct_start
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        self.momentum_min = momentum_min
        self.momentum_max = momentum_max

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().check(trainer, pl_module)
        for optimizer in _optimizers(trainer, pl_module):
            name = type(optimizer).__name__
            if self.peak_lr is not None and not reference_lr(optimizer):
                raise UserError(f"OneCycle: expected {name} with an lr above 0, which peak_lr can replace, got 0")
            if self.momentum_min is not None and not all(map(momentum_of, optimizer.param_groups)):
                remedy = ", give it momentum: 0.9" if "momentum" in optimizer.defaults else ""
                raise UserError(
                    f"OneCycle: expected an optimizer with momentum, got {name} without{remedy}; set momentum_min and "
                    "momentum_max to null, or take an optimizer with momentum"
                )

    @override
    def curve(self, step: int, steps: int) -> float:
        return one_cycle(
            step,
            steps,
            pct_start=self.pct_start,
            div_factor=self.div_factor,
            final_div_factor=self.final_div_factor,
        )

    @override
    def momentum(self, trainer: Trainer) -> float | None:
        if self.momentum_min is None or self.momentum_max is None:
            return None
        step, steps = self.position(trainer)
        return one_cycle_momentum(step, steps, pct_start=self.pct_start, low=self.momentum_min, high=self.momentum_max)


def _optimizers(trainer: Trainer, pl_module: LightningModule) -> Sequence[Optimizer]:
    """Returns what trains; before a run, of a module that is known to build it without one; else nothing."""
    if trainer.optimizers or not isinstance(pl_module, Task):
        return trainer.optimizers
    built = pl_module.configure_optimizers()
    return [built] if isinstance(built, Optimizer) else []
