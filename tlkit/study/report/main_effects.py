"""Which factors matter: means and medians per level with intervals, shares of variance, two-way interactions."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlkit.study.report import drawing
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, capital, percent
from tlkit.study.report.statistics import effects, interaction_shares, main_shares, summary, varies
from tlkit.study.report.tidy import Factor, Runs

STRONGEST = 3  # interactions that are drawn


def main_effects(runs: Runs, chosen: Runs) -> Section | LeftOut:
    """Returns the main effects.

    Args:
        runs: all runs; nuisance factors are described by them.
        chosen: those at the best nuisance setting; the other factors are described by these.
    """
    if not runs.factors:
        return LeftOut("Main effects", "no factor has two levels")
    nuisance = [factor.column for factor in runs.factors if factor not in chosen.factors]
    table = effects(chosen).assign(over="chosen runs" if nuisance else "all runs")
    if nuisance:
        everything = effects(runs).assign(over="all runs")
        table = pd.concat([table, everything[everything["factor"].isin(nuisance)]], ignore_index=True)
    text = [
        "Each point is the mean over all other factors, with its 95 % interval; the tick is the median. "
        + interval_text(chosen)
        + " Two levels are compared by their paired differences: what all runs of a replicate share cancels there."
        * chosen.replicated,
        "Share of variance: η² = sum of squares of the factor (type II, main effects) over the sum about the mean.",
    ]
    if nuisance:
        text.append(
            f"{', '.join(nuisance)}: nuisance, over all runs; the other factors are over the runs at its best setting "
            "each. Their shares have different denominators."
        )
    if not varies(runs):
        text.append("The metric has the same value in every run: there is no variance to share.")
    untold = table.loc[table["eta_squared"].isna(), "label"].unique()
    if len(untold) and varies(runs):
        text.append(
            f"Shares left out: {', '.join(untold)} cannot be told from the other factors, which change with them."
        )
    headings = {
        "label": "factor", "eta_squared": "share of variance η²", "level": "level", "n": "runs",
        "no_value": "no value", "median": "median", "mean": "mean", "low": "95 % low", "high": "95 % high",
        "replicates": "replicates", "over": "over",
    }  # fmt: skip
    if not nuisance:
        del headings["over"]
    if not table["no_value"].any():
        del headings["no_value"]
    caption = capital(f"{runs.metric} per level of each factor.")
    drawn = Drawn("main_effects", caption, draw_effects(runs, table))
    return Section("Main effects", text, [drawn], [Shown("effects", caption, table, headings)])


def interval_text(runs: Runs) -> str:
    """Returns what the intervals of a report are taken over."""
    if runs.replicated:
        if (count := runs.frame["r"].nunique()) < 2:
            return f"There is no interval: what is compared has one replicate only ({runs.mapping.replicate})."
        return f"Intervals are Student's t over the means of {count} replicates ({runs.mapping.replicate})."
    return "Intervals are Student's t over runs: they do not reflect replication."


def draw_effects(runs: Runs, table: pd.DataFrame) -> Figure:
    """Draws one panel per factor, all with the same scale.

    Args:
        runs: for the factors.
        table: see `statistics.effects`.
    """
    figure, axes = drawing.panels(len(runs.factors), sharey=True)
    for panel, factor in zip(axes, runs.factors, strict=True):
        rows = table[table["factor"] == factor.column].rename(columns={"level": factor.key})
        drawing.level_axis(panel, factor)
        drawing.with_intervals(panel, rows, factor, color=drawing.OKABE_ITO[0], linestyle="-" if factor.ordered else "")
        at = [factor.levels.index(level) for level in rows[factor.key]]
        panel.plot(at, rows["median"], "_", color=drawing.OKABE_ITO[1], markersize=11, markeredgewidth=1.6)
        share = rows["eta_squared"].iloc[0]
        panel.set_title(f"{drawing.short(factor.label)}: η² {percent(share)}" if share == share else factor.label)
    figure.supylabel(drawing.better(runs, 70), fontsize=9)
    drawing.note_intervals(figure, runs)
    return figure


def interactions(runs: Runs) -> Section | LeftOut:
    """Returns the two-way interactions: all shares, the cells of each, and pictures of the strongest."""
    title = "Interactions"
    if len(runs.factors) < 2:
        return LeftOut(title, "there are fewer than two factors with two levels")
    names = {factor.key: factor for factor in runs.factors}
    strengths = interaction_shares(runs)
    labels = strengths[["a", "b"]].map(lambda key: names[key].label)
    shares = pd.DataFrame({"factor_a": labels["a"], "factor_b": labels["b"], "eta_squared": strengths["eta_squared"]})
    text = [
        "Does the effect of one factor depend on another? η² of each pair, beyond both main effects; each is added "
        "alone to all main effects.",
        f"All shares are over all runs. At most the {STRONGEST} strongest are drawn. Lines that are parallel mean no "
        "interaction.",
    ]
    untold = shares[shares["eta_squared"].isna()]
    if len(untold) and varies(runs):
        pairs = "; ".join(f"{a} × {b}" for a, b in zip(untold["factor_a"], untold["factor_b"], strict=True))
        text.append(f"Left out, no combination of levels is left to tell them from the main effects: {pairs}.")
    text += _determined(runs)
    strongest = strengths.dropna().head(STRONGEST)
    pairs_drawn = [_in_order(names[a], names[b]) for a, b in zip(strongest["a"], strongest["b"], strict=True)]
    bars = _bars(runs, shares)
    figures = [Drawn("shares", "Shares of variance of factors and pairs, over all runs.", _draw_shares(bars))]
    if pairs_drawn:
        figures.append(Drawn("interactions", "Means with intervals per pair of levels.", _draw(runs, pairs_drawn)))
    cells = pd.concat([_cells(runs, a, b) for a, b in combinations(runs.factors, 2)], ignore_index=True)
    tables = [
        Shown(
            "interactions", "All pairs, strongest first.", shares,
            {"factor_a": "factor", "factor_b": "and", "eta_squared": "share of variance η²"},
        ),
        Shown("shares", "", bars, rows=0),
        Shown("interaction_cells", "", cells, rows=0),
    ]  # fmt: skip
    return Section(title, text, figures, tables)


def _determined(runs: Runs) -> Iterator[str]:
    """Yields which factors have no share of their own over all runs, one sentence each."""
    for key, share in main_shares(runs).items() if varies(runs) else ():
        if np.isnan(share):
            factor = next(factor for factor in runs.factors if factor.key == key)
            levels = {f.label: runs.frame.groupby(f.key, observed=True)[key].nunique() for f in runs.factors}
            alone = [label for label, seen in levels.items() if seen.max() == 1 and label != factor.label]
            by = " and by ".join(alone) or "the other factors together"
            yield f"{capital(factor.label)} is determined by {by}: it has no share of its own."


def _in_order(a: Factor, b: Factor) -> tuple[Factor, Factor]:
    """Returns the factor along x, with more levels, and that of the lines."""
    return (a, b) if len(a.levels) >= len(b.levels) else (b, a)


def _cells(runs: Runs, a: Factor, b: Factor) -> pd.DataFrame:
    table = summary(runs, [a.key, b.key]).rename(columns={a.key: "level_a", b.key: "level_b"})
    table.insert(0, "factor_a", a.label)
    table.insert(1, "factor_b", b.label)
    return table


def _bars(runs: Runs, pairs: pd.DataFrame) -> pd.DataFrame:
    """Returns what the figure of shares shows, largest first: factor_a, factor_b (empty: no pair), eta_squared."""
    main = main_shares(runs)
    alone = pd.DataFrame([(f.label, "", main[f.key]) for f in runs.factors], columns=list(pairs))
    bars = pd.concat([alone.dropna(), pairs.dropna().head(8)], ignore_index=True)
    return bars.sort_values("eta_squared", ascending=False, ignore_index=True)


def _draw_shares(bars: pd.DataFrame) -> Figure:
    figure, (axes,) = drawing.panels(1, height=0.9 + 0.24 * len(bars))
    at = np.arange(len(bars))[::-1]
    colours = np.where(bars["factor_b"] == "", drawing.OKABE_ITO[0], drawing.OKABE_ITO[4])
    axes.barh(at, 100 * bars["eta_squared"], color=colours, height=0.7)
    for y, share in zip(at, bars["eta_squared"], strict=True):
        axes.annotate(percent(share), (100 * share, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    pairs = [[drawing.short(name, 26) for name in row if name] for row in bars[["factor_a", "factor_b"]].to_numpy()]
    axes.set_yticks(at, [" × ".join(pair) for pair in pairs])
    axes.set_xlabel("share of variance η² (%)")
    figure.suptitle("factors (blue) and pairs beyond them (orange), over all runs", fontsize=10)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    return figure


def _draw(runs: Runs, pairs: list[tuple[Factor, Factor]]) -> Figure:
    figure, axes = drawing.panels(len(pairs), columns=2, height=3.4)
    for panel, (x, lines) in zip(axes, pairs, strict=True):
        draw_lines(panel, runs, x, lines)
        panel.set_ylabel(drawing.better(runs))
    drawing.note_intervals(figure, runs)
    return figure


def draw_lines(panel: Axes, runs: Runs, x: Factor, lines: Factor, column: str = "y", named: bool = True) -> None:
    """Draws the mean with its interval over one factor, one line per level of another.

    Args:
        panel: where.
        runs: what is averaged.
        x: the factor along x.
        lines: the other.
        column: what is averaged.
        named: whether there is a legend.
    """
    drawing.level_axis(panel, x, room=44)
    table = summary(runs, [x.key, lines.key], column)
    shades, handles, seen = drawing.colours(lines), [], []
    for level, shift in zip(lines.levels, drawing.shifts(len(lines.levels)), strict=True):
        part = table[table[lines.key] == level]
        if len(part):
            handles.append(drawing.with_intervals(panel, part, x, shift=shift, color=shades[level]))
            seen.append(level)
    if named:
        drawing.legend(panel, handles, seen, lines.label)
