"""Curves of learning rate and momentum over training: pure functions of progress.

Equations are those of section 10.1 of the lecture notes after J. Johnson, EECS 498 (2022); T there is the last update
here: ``T = steps - 1``, so that the first of ``steps`` updates is at the curve's start and the last one at its end.
A curve of one update is at its start.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any


def step_decay(epoch: int, *, every: int | None, factor: float, start: int) -> float:
    """Returns the rate in an epoch relative to the first: a drop by ``factor`` at ``start`` and every so often after.

    Args:
        epoch: counted from 0.
        every: epochs from one drop to the next; None: there is one drop.
        factor: what each drop multiplies the rate with.
        start: epoch of the first drop; 0 drops before the first update.

    Returns:
        ``factor ** drops``.
    """
    if epoch < start:
        return 1.0
    drops = 1 if every is None else 1 + (epoch - start) // every
    return float(factor**drops)


def cosine_decay(step: int, steps: int) -> float:
    """Returns the rate of an update relative to the first: half a cosine from 1 to 0 (equation 10.1).

    Args:
        step: number of the update, from 0.
        steps: number of updates.
    """
    return half_cosine(_remaining(step, steps))


def linear_decay(step: int, steps: int) -> float:
    """Returns the rate of an update relative to the first: a line from 1 to 0 (equation 10.2); see `cosine_decay`."""
    return _remaining(step, steps)


def inverse_sqrt_decay(step: int) -> float:
    """Returns the rate of an update relative to the first, 1/√(step + 1) (equation 10.3, whose t starts at 1)."""
    return 1 / math.sqrt(step + 1)


def one_cycle(step: int, steps: int, *, pct_start: float, div_factor: float, final_div_factor: float) -> float:
    """Returns the rate of an update relative to the peak: half a cosine up, half a cosine down (equation 10.5).

    Args:
        step: number of the update, from 0.
        steps: number of updates.
        pct_start: p, the share of the run up to the peak, between 0 and 1.
        div_factor: peak rate over that of the first update.
        final_div_factor: peak rate over that of the last update.
    """
    up, down = _phases(step, steps, pct_start)
    first, last = 1 / div_factor, 1 / final_div_factor
    return first + (1 - first) * up if down is None else last + (1 - last) * down


def one_cycle_momentum(step: int, steps: int, *, pct_start: float, low: float, high: float) -> float:
    """Returns the momentum of an update: from ``high`` to ``low`` at the peak of the rate, and back (equation 10.6).

    Args:
        step: number of the update, from 0.
        steps: number of updates.
        pct_start: p, the share of the run up to the peak, between 0 and 1.
        low: momentum at the peak.
        high: momentum of the first and of the last update.
    """
    up, down = _phases(step, steps, pct_start)
    return high - (high - low) * up if down is None else high - (high - low) * down


def cyclic_cosine(step: int, steps: int, cycles: int) -> float:
    """Returns the rate of an update relative to the first: `cosine_decay` again and again (arXiv:1704.00109).

    Args:
        step: number of the update, from 0.
        steps: number of updates.
        cycles: how often it starts anew, the first time included; at most ``steps``.
    """
    starts = [0, *cycle_ends(steps, cycles)]
    cycle = bisect_right(starts, step) - 1
    return cosine_decay(step - starts[cycle], starts[cycle + 1] - starts[cycle])


def cycle_ends(steps: int, cycles: int) -> list[int]:
    """Returns the number of updates made when each cycle ends; their lengths differ by at most one update."""
    return [steps * (cycle + 1) // cycles for cycle in range(cycles)]


def linear_warmup(step: int, warmup: int) -> float:
    """Returns what an update's rate is multiplied with: a line from 1/warmup in the first update to 1.

    Args:
        step: number of the update, from 0.
        warmup: number of updates until the line has reached 1; 0: it always has.
    """
    return (step + 1) / warmup if step < warmup else 1.0


def half_cosine(progress: float) -> float:
    """Returns (1 - cos(π progress)) / 2, which rises from 0 to 1, without its cancellation near 0."""
    return math.sin(math.pi / 2 * progress) ** 2


def momentum_of(group: Mapping[str, Any]) -> float | None:
    """Returns the momentum of an optimizer's parameter group, beta 1 of Adam's kin; None if there is none."""
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0)) or None


def _remaining(step: int, steps: int) -> float:
    return (steps - 1 - step) / (steps - 1) if steps > 1 else 1.0


def _phases(step: int, steps: int, pct_start: float) -> tuple[float, float | None]:
    """Returns the height of the rise, from 0 to 1, and that of the fall, from 1 to 0; None: it has not begun."""
    last = steps - 1
    peak = pct_start * last
    if step <= peak:
        return half_cosine(step / peak if peak else 0.0), None
    return 1.0, half_cosine((last - step) / (last - peak))
