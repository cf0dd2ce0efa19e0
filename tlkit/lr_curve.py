"""What can be read off the curve of a learning-rate range test: pure functions, and the result that holds them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tlkit.runs import write_text

Array = NDArray[np.float64]
Mode = Literal["min", "max"]

IMPROVED, SETTLED = 0.1, 0.95
"""Shares of the whole improvement: where the curve has begun to improve, and where hardly any is left."""
DIV_FACTORS = (3, 25)
"""What is reasonable between the peak of OneCycle and the rate it starts from."""


@dataclass(frozen=True)
class LRRange:
    """The curve of a range test and what it suggests.

    Smoothing averages over the points before, which alone would shift the curve to higher rates; so the (logarithm of
    the) rate is averaged alike, and a smoothed value stands over a smoothed rate.

    Attributes:
        metric: what was measured: ``training loss`` or the name of a validation metric.
        mode: whether less (``min``) or more (``max``) of it is better.
        rates: learning rates, of a parameter group with ratio 1.
        values: the metric: the loss of the batches from which the update at this rate came, or validated after it.
        smoothed_rates: where the smoothed values stand.
        smoothed: the metric, an exponential moving average over about a tenth of the sweep.
        stopped: why the sweep ended before its last rate; None if it did not.
        suggestions: rates by name; empty if none can be made. ``steepest``: where the curve improves fastest over the
            logarithm of the rate. ``valley``: the middle of the longest descent. ``minimum/10``: a tenth of the rate at
            which the curve is best.
        band: η_min and η_max, None if there is none. From η_min on the curve is better than at its start by a tenth of
            its whole improvement; at η_max 95 % of it are reached: what follows, up to divergence, brings nothing.
        momentum: whether the optimizer has one, for OneCycle to vary.
        remark: why there are no suggestions, or what limits them, and what to do; None if there is nothing to say.
    """

    metric: str
    mode: Mode
    rates: list[float]
    values: list[float]
    smoothed_rates: list[float]
    smoothed: list[float]
    stopped: str | None
    suggestions: dict[str, float]
    band: tuple[float, float] | None
    momentum: bool
    remark: str | None

    @property
    def one_cycle(self) -> dict[str, float | None] | None:
        """The arguments of a OneCycle over the band: ``peak_lr`` is η_max, ``div_factor`` reaches down to η_min."""
        if self.band is None:
            return None
        low, high = self.band
        peak: dict[str, float | None] = {"peak_lr": float(f"{high:.2g}")}
        fixed = {} if self.momentum else {"momentum_min": None, "momentum_max": None}
        return peak | {"div_factor": round(float(np.clip(high / low, *DIV_FACTORS)))} | fixed

    def save(self, path: Path, **more: Any) -> None:
        """Writes everything, and what else is to be kept with it, as JSON."""
        write_text(path, json.dumps(asdict(self) | {"one_cycle": self.one_cycle} | more, indent=1) + "\n")

    def draw(self, path: Path) -> None:
        """Draws the curve, the band and the suggestions as PNG."""
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.plot(self.rates, self.values, color="0.7", linewidth=1, label="measured")
        axes.plot(self.smoothed_rates, self.smoothed, color="black", label="smoothed")
        if self.band:
            text = f"band: {self.band[0]:.2g} … {self.band[1]:.2g}"
            axes.axvspan(*self.band, color="tab:green", alpha=0.15, label=text)
        for (name, rate), marker in zip(self.suggestions.items(), "vos", strict=False):
            height = np.interp(np.log(rate), np.log(self.smoothed_rates), self.smoothed)
            axes.plot(rate, height, marker, markersize=9, linestyle="none", label=f"{name}: {rate:.2g}")
        axes.set(xlabel="learning rate", ylabel=self.metric, ylim=self._limits())
        axes.set_title(self.stopped or "", fontsize="medium")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
        temporary = path.with_name(f".{path.name}")
        figure.savefig(temporary, dpi=120, format="png")
        temporary.replace(path)

    def _limits(self) -> tuple[float, float]:
        """Keeps what comes before the divergence in the picture, which else would squash it."""
        values = np.array(self.values)
        best = int(np.argmin(_descending(values, self.mode)))
        seen = values[: best + 1] if best > 0 else values
        margin = 0.15 * float(np.ptp(seen)) or 0.1 * abs(float(seen[0])) or 1.0
        return float(seen.min()) - margin, float(seen.max()) + margin


def read_curve(
    rates: list[float],
    values: list[float],
    *,
    planned: int,
    metric: str,
    mode: Mode,
    stopped: str | None = None,
    momentum: bool = True,
) -> LRRange:
    """Reads what a curve suggests.

    Args:
        rates: ascending.
        values: the metric at each of them, finite; at least one.
        planned: how many there are where the sweep is not stopped; a tenth of it is averaged over.
        metric: its name.
        mode: whether less or more of it is better.
        stopped: why the sweep ended early.
        momentum: whether the optimizer has one.
    """
    window = max(1.0, planned / 10)
    x, y = smooth(np.log(rates), window), smooth(np.array(values), window)
    first = planned // 10  # the average is over too few points before
    curve, raw = _descending(y, mode)[first:], _descending(np.array(values), mode)
    low = int(curve.argmin()) if len(curve) else 0
    start = float(raw[: max(first, (first + low) // 3) + 1].mean())
    descent = start - float(curve[low]) if low else 0.0
    chance = max(_chance(raw, curve, window), 0.01 * abs(start))
    suggestions: dict[str, float] = {}
    band, remark = None, None
    if stopped and len(curve) < 3:
        remark = "no suggestion: it diverged from the start; lower min_lr, or check the normalisation of the input"
    elif descent <= chance:
        remark = (
            f"no suggestion: the curve improves by {max(descent, 0):.2g}, which is no more than chance ({chance:.2g}); "
            f"use more updates or larger batches{'' if stopped else ', or raise max_lr'}"
        )
    else:
        suggestions, band = _suggestions(x[first:], curve[: low + 1], max(start, float(curve[0])))
        if first + low == len(values) - 1 and not stopped:
            remark = "it still improves at the last rate: η_max is only a lower bound; raise max_lr"
    smoothed = (np.exp(x).tolist(), y.tolist())
    return LRRange(metric, mode, rates, values, *smoothed, stopped, suggestions, band, momentum, remark)


def smooth(values: Array, window: float) -> Array:
    """Returns the exponential moving average ``(n,)`` of ``(n,)`` values with a memory of ``window`` points.

    It is divided by the sum of its weights, so that it is unbiased from the first point on, and does not know of any
    point but these.
    """
    keep = 1 - 1 / window
    average, weight, smoothed = 0.0, 0.0, []
    for value in values:
        average, weight = keep * average + (1 - keep) * float(value), keep * weight + (1 - keep)
        smoothed.append(average / weight)
    return np.array(smoothed)


def diverged(losses: list[float], planned: int) -> bool:
    """Tells whether the smoothed loss has risen above 4 times its best, and above where it began.

    (The second, since a loss that has come near 0 multiplies easily.)
    """
    smoothed = smooth(np.array(losses), max(1.0, planned / 10))
    best = smoothed.min()
    return bool(smoothed[-1] > max(best + 3 * abs(best), smoothed[0]))


def _suggestions(x: Array, fall: Array, top: float) -> tuple[dict[str, float], tuple[float, float]]:
    """Reads a curve from its start, at the height ``top``, to its lowest point; ``x`` is the logarithm of the rate."""
    gained = (top - fall) / (top - fall[-1])
    before = np.flatnonzero(gained < IMPROVED)
    begin, settled = int(before[-1]) + 1 if len(before) else 0, int(np.argmax(gained >= SETTLED))
    end = max(begin, settled)
    # where the curve is flat there may be steeper noise
    steepest = begin + int(np.gradient(fall, x[: len(fall)])[begin : end + 1].argmin())
    upper, lower = _longest_descent(fall)
    logs = {
        "steepest": x[steepest],
        "valley": (x[upper] + x[lower]) / 2,
        "minimum/10": x[len(fall) - 1] - np.log(10),
    }
    return {name: float(np.exp(log)) for name, log in logs.items()}, (float(np.exp(x[begin])), float(np.exp(x[end])))


def _longest_descent(fall: Array) -> tuple[int, int]:
    """Returns the first and the last index of the longest subsequence that falls at every step.

    It may leave out points, so that bumps do not end it (fastai's ``valley`` looks for the same).
    """
    length, start = np.ones(len(fall), dtype=int), np.arange(len(fall))
    for i in range(1, len(fall)):
        above = np.flatnonzero(fall[:i] > fall[i])
        if len(above):
            before = above[::-1][length[above[::-1]].argmax()]  # of several the nearest, not across a plateau
            length[i], start[i] = length[before] + 1, start[before]
    end = int(length.argmax())
    return int(start[end]), end


def _chance(values: Array, smoothed: Array, window: float) -> float:
    """Returns the height of a descent that a flat curve has by chance, in about one of ten sweeps.

    It is 4 standard deviations of the smoothed curve, the smaller of two estimates: from the scatter of single values,
    of which smoothing leaves 1 / sqrt(2 · window − 1), and from smoothed values one to two windows apart, which differ
    less where few batches come round in the same order. Both are medians (0.6745 standard deviations), which the end of
    a sweep, where it diverges, does not move.
    """
    # second differences of independent values around any smooth course have 6 times their variance
    deviations = [np.abs(np.diff(values, 2)) / np.sqrt(6 * (2 * window - 1))]
    lags = range(round(window), min(2 * round(window), len(smoothed)))
    kept = {lag: (1 - 1 / window) ** lag for lag in lags}  # correlation of smoothed values
    apart = [np.abs(smoothed[lag:] - smoothed[:-lag]) / np.sqrt(2 * (1 - kept[lag])) for lag in lags]
    deviations += [np.concatenate(apart)] if apart else []
    return min((4 * float(np.median(part)) / 0.6745 for part in deviations if len(part)), default=0.0)


def _descending(values: Array, mode: Mode) -> Array:
    return values if mode == "min" else -values
