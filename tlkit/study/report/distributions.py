"""How the metric is distributed per level of each factor, and how many models are unacceptably bad."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import gaussian_kde

from tlkit.study.report import drawing
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, capital, number
from tlkit.study.report.statistics import interaction_shares, tail_risk, threshold, worse
from tlkit.study.report.tidy import Factor, Runs

MOST_BINS, FEWEST_BINS = 40, 8
DECADES = 30.0  # the 99th percentile over the 1st beyond which the axis is logarithmic
FEWEST_VALUES = 10  # of a density; one of fewer is a spike or a guess
CELLS = 60  # small multiples that can still be read


def distributions(runs: Runs) -> Section | LeftOut:
    """Returns histograms with density, one panel per factor, and small multiples for pairs of factors."""
    title = "Distributions"
    if not runs.factors:
        return LeftOut(title, "no factor has two levels")
    if runs.frame["y"].nunique() < 2:
        return LeftOut(title, "the metric has the same value in every run")
    scale = _Scale(runs.frame["y"], max(len(factor.levels) for factor in runs.factors))
    text = [
        f"{capital(runs.metric)}: histograms with kernel density (Gaussian, Scott's rule), each row with its own "
        f"height; the dark tick is the median, n the number of runs. {scale.text}",
        *_pairs_left_out(runs),
    ]
    figures = [Drawn("distributions", "One panel per factor, one row per level.", _draw_factors(runs, scale))]
    for place, (rows, columns) in enumerate(_pairs(runs)):
        caption = f"{rows.label} × {columns.label}; in grey: all runs; the line: the median of the cell."
        figures.append(Drawn(f"distributions_pair_{place + 1}", caption, _draw_pair(runs, rows, columns, scale)))
    quantiles = pd.concat([_quantiles(runs, factor) for factor in runs.factors], ignore_index=True)
    counts = pd.concat([_counts(runs, factor, scale) for factor in runs.factors], ignore_index=True)
    tables = [Shown("distributions", "", quantiles, rows=0), Shown("histograms", "", counts, rows=0)]
    return Section(title, text, figures, tables)


class _Scale:
    """The axis of the metric that all panels share."""

    def __init__(self, values: pd.Series, levels: int) -> None:
        low, high = values.quantile([0.005, 0.995])
        self.log = bool(values.min() > 0 and values.quantile(0.99) > DECADES * values.quantile(0.01))
        low, high = (values.min(), values.max()) if low == high else (low, high)
        margin = 0.05 * (high - low)
        self.low, self.high = (low, high) if self.log else (low - margin, high + margin)
        bins = int(np.clip(4 * (len(values) / levels) ** (1 / 3), FEWEST_BINS, MOST_BINS))
        self.edges = (np.geomspace if self.log else np.linspace)(self.low, self.high, bins + 1)
        outside = int(((values < self.low) | (values > self.high)).sum())
        self.text = f"{outside:,} runs lie beyond the axis, at either end." if outside else ""

    def heights(self, values: Any) -> Any:
        """Returns the share of values per unit of the axis (per decade, if it is logarithmic) in each bin."""
        counts, _ = np.histogram(values, self.edges)
        return counts / len(values) / np.diff(np.log10(self.edges) if self.log else self.edges)

    def density(self, values: Any) -> tuple[Any, Any] | None:
        """Returns x and density; None where there are too few different values for one."""
        inside = np.log10(values) if self.log else np.asarray(values)
        if len(np.unique(inside)) < FEWEST_VALUES:
            return None
        low, high = (np.log10(self.low), np.log10(self.high)) if self.log else (self.low, self.high)
        grid = np.linspace(low, high, 200)
        return (10**grid if self.log else grid), gaussian_kde(inside)(grid)

    def apply(self, axes: Axes) -> None:
        axes.set_xlim(self.low, self.high)
        if self.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # no 10 to a power in TeX
        else:
            axes.locator_params(axis="x", nbins=5)


def _draw_factors(runs: Runs, scale: _Scale) -> Figure:
    tallest = max(len(factor.levels) for factor in runs.factors)
    figure, axes = drawing.panels(len(runs.factors), height=min(5.0, 1.4 + 0.42 * tallest))
    for panel, factor in zip(axes, runs.factors, strict=True):
        shades = drawing.colours(factor)
        for row, level in enumerate(reversed(factor.levels)):
            values = runs.frame.loc[runs.frame[factor.key] == level, "y"].to_numpy()
            _ridge(panel, values, scale, row, shades[level])
            _count(panel, values, ("axes fraction", "data"), (1, row + 0.4), (3, 0), ha="left", va="center")
        names = [drawing.short(level, 18) for level in reversed(factor.levels)]
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(-0.1, len(names))
        panel.set(title=drawing.short(factor.label, 44), xlabel=drawing.short(runs.metric, 48))
        panel.grid(False, axis="y")
        scale.apply(panel)
    return figure


def _ridge(panel: Axes, values: Any, scale: _Scale, row: float, colour: Any) -> None:
    """Draws one histogram with density, standing on a row of a panel, 0.85 high."""
    if not len(values):
        return
    heights, density = scale.heights(values), scale.density(values)
    top = max(heights.max(), 0.0 if density is None else density[1].max()) or 1.0
    panel.stairs(row + 0.85 * heights / top, scale.edges, baseline=row, fill=True, color=colour, alpha=0.45)
    if density is not None:
        panel.plot(density[0], row + 0.85 * density[1] / top, color=colour, linewidth=1.3)
    panel.vlines(np.median(values), row, row + 0.3, color="black", linewidth=1.5)


def _count(
    panel: Axes, values: Any, coords: Any, at: tuple[float, float], shift: tuple[float, float], **look: Any
) -> None:
    """Writes the number of runs where no histogram is: beside a row, or above it."""
    panel.annotate(f"n {len(values):,}", at, shift, coords, "offset points", fontsize=7, color="#555555", **look)


def _pairs(runs: Runs) -> list[tuple[Factor, Factor]]:
    """Returns the pairs that the mapping names, else that with the strongest interaction; few enough cells only."""
    named = [(runs.factor(a), runs.factor(b)) for a, b in runs.mapping.pairs]
    pairs = [(a, b) for a, b in named if a and b and _legible(a, b)]
    if not runs.mapping.pairs and len(runs.factors) > 1:
        names = {factor.key: factor for factor in runs.factors}
        pairs = [(names[a], names[b]) for a, b in interaction_shares(runs)[["a", "b"]].itertuples(index=False)]
        pairs = [pair for pair in pairs if _legible(*pair)][:1]
    return pairs


def _legible(rows: Factor, columns: Factor) -> bool:
    return len(rows.levels) * len(columns.levels) <= CELLS


def _pairs_left_out(runs: Runs) -> list[str]:
    """Returns which pairs that the mapping names are not drawn, and why; one sentence, or none."""
    labels, said = runs.mapping.factors, []
    for names in runs.mapping.pairs:
        rows, columns = (runs.factor(name) for name in names)
        if not rows or not columns or not _legible(rows, columns):
            why = f"more than {CELLS} cells" if rows and columns else "a factor without two levels"
            said.append(f"{' × '.join(labels.get(name, name) for name in names)} ({why})")
    return [f"Pairs left out: {'; '.join(said)}."] if said else []


def _draw_pair(runs: Runs, rows: Factor, columns: Factor, scale: _Scale) -> Figure:
    shape = len(rows.levels), len(columns.levels)
    figure = Figure(figsize=(drawing.WIDTH, 0.6 + max(0.75, min(1.7, 6 / shape[0])) * shape[0]), layout="constrained")
    grid: Any = figure.subplots(*shape, sharex=True, squeeze=False)
    background = scale.density(runs.frame["y"].to_numpy())
    for i, j in np.ndindex(*shape):
        panel = grid[i, j]
        cell = (runs.frame[rows.key] == rows.levels[i]) & (runs.frame[columns.key] == columns.levels[j])
        values = runs.frame.loc[cell, "y"].to_numpy()
        if background is not None:
            panel.fill_between(background[0], 0.85 * background[1] / background[1].max(), color="#E6E6E6", linewidth=0)
        _ridge(panel, values, scale, 0.0, drawing.OKABE_ITO[0])
        _count(panel, values, "axes fraction", (1, 1), (-2, 1), ha="right", va="top")
        panel.set_yticks([])
        panel.set_ylim(0, 1)
        scale.apply(panel)
        panel.set_title(drawing.short(columns.levels[j], 20) if i == 0 else "")
        panel.set_ylabel(drawing.short(rows.levels[i], 14) if j == 0 else "", rotation=0, ha="right", va="center")
    figure.suptitle(drawing.short(columns.label, 60), fontsize=10)
    figure.supylabel(drawing.short(rows.label, 34), fontsize=10)
    figure.supxlabel(drawing.short(runs.metric, 80), fontsize=9)
    return figure


def _quantiles(runs: Runs, factor: Factor) -> pd.DataFrame:
    groups = runs.frame.groupby(factor.key, observed=True)["y"]
    table = groups.quantile([0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]).unstack().reset_index(names="level")
    table.columns = ["level", "lowest", "q05", "q25", "median", "q75", "q95", "highest"]
    table.insert(0, "factor", factor.column)
    table.insert(2, "n", groups.size().to_numpy())
    return table


def _counts(runs: Runs, factor: Factor, scale: _Scale) -> pd.DataFrame:
    parts = []
    for level, values in runs.frame.groupby(factor.key, observed=True)["y"]:
        heights, _ = np.histogram(values, scale.edges)
        part = pd.DataFrame({"low": scale.edges[:-1], "high": scale.edges[1:], "runs": heights})
        part.insert(0, "factor", factor.column)
        part.insert(1, "level", str(level))
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def tails(runs: Runs) -> Section | LeftOut:
    """Returns the fraction of models worse than a threshold, per level."""
    if not runs.factors:
        return LeftOut("Tail risk", "no factor has two levels")
    limit, given = threshold(runs)
    beyond = "above" if runs.lower else "below"
    origin = "as given" if given else "the worst quarter of all runs, as no threshold is given"
    named = f"{limit:g}".replace("-", "−") if given else number(limit)
    table = tail_risk(runs, limit)
    figure, axes = drawing.panels(len(runs.factors), height=2.5, sharey=True)
    for panel, factor in zip(axes, runs.factors, strict=True):
        rows = table[table["factor"] == factor.column].rename(columns={"level": factor.key})
        rows = rows.assign(**{name: 100 * rows[name] for name in ("fraction", "low", "high")})
        drawing.level_axis(panel, factor)
        drawing.with_intervals(panel, rows, factor, value="fraction", color=drawing.OKABE_ITO[1], linestyle="")
        panel.axhline(100 * worse(runs, limit).mean(), color=drawing.GREY, linewidth=1)
    figure.supylabel(f"runs worse than {named} (%)", fontsize=9)
    drawing.from_zero(axes)
    text = [
        f"How likely is a bad run? One is worse if its {runs.metric} is {beyond} {named} ({origin}). "
        "Grey: the fraction of all runs. Interval: "
        + ("Student's t over replicates; where these agree, " if runs.replicated else "")
        + "Wilson's over runs, which ignores replication."
    ]
    headings = {
        "label": "factor", "level": "level", "n": "runs", "fraction": "fraction worse", "low": "95 % low",
        "high": "95 % high",
    }  # fmt: skip
    shown = Shown("tail_risk", f"Fraction of runs worse than {named}.", table.assign(threshold=limit), headings)
    drawn = Drawn("tail_risk", "Fraction of runs worse than the threshold, per level.", figure)
    return Section("Tail risk", text, [drawn], [shown])
