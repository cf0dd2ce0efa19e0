"""What it costs: seconds, joules and memory per epoch, the metric against cost with the Pareto front, scaling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tlkit.study.report import drawing
from tlkit.study.report.main_effects import interval_text
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, capital, own_names
from tlkit.study.report.statistics import pareto, summary
from tlkit.study.report.tidy import MOST_LEVELS, Factor, Runs

GIB = 2.0**30
UNITS = {"seconds": "seconds", "joules": "joules", "memory": "peak memory (GiB)"}
DASHES = ("-", "--", ":", "-.")
UNCAPPED = ("none", "no", "off", "false", "uncapped", "0")


def compute(runs: Runs) -> Section | LeftOut:
    """Returns seconds, joules and memory per epoch, by freeze strategy, precision, cap and batch size."""
    title = "What an epoch costs"
    ways = [factor for name in ("batch_size", "freeze", "cap", "precision") if (factor := runs.role(name))]
    ways = list(dict.fromkeys(ways))  # one factor may play several roles
    per_epoch = "epochs" in runs.frame
    frame = runs.frame.copy()
    for name in UNITS:
        if name in frame:
            divisor = GIB if name == "memory" else frame["epochs"] if per_epoch else 1
            frame[name] = (frame[name] / divisor).replace([np.inf, -np.inf], np.nan)
    quantities = [name for name in UNITS if name in frame and frame[name].notna().any()]
    if not quantities or not ways:
        return LeftOut(
            title, "it needs a column 'seconds', 'joules' or 'memory', and a factor in the role 'freeze', 'precision', "
            "'cap' or 'batch_size'",
        )  # fmt: skip
    marked = runs.with_frame(frame)
    spans = [f"'{runs.mapping.columns[name][0]}'" for name in ("seconds", "joules") if name in quantities]
    each = "by epochs" if per_epoch else "as they are: there is no column 'epochs' to divide by"
    each = f"Seconds and joules: {' and '.join(spans)} {each}; mean. " if spans else ""
    text = [each + interval_text(runs)]
    absent = [name for name in UNITS if name not in quantities]
    if absent:
        text.append(f"Left out, no values of: {', '.join(absent)}.")
    figure = _draw_compute(marked, quantities, ways, per_epoch)
    drawn = Drawn("compute", f"By {', '.join(factor.label for factor in ways)}.", figure)
    return Section(title, text, [drawn], [_compute_table(marked, quantities, ways, per_epoch)])


def _unit(quantity: str, per_epoch: bool) -> str:
    """Returns what a quantity is called where its values are."""
    return UNITS[quantity] + (" per epoch" if per_epoch and quantity != "memory" else "")


def _compute_table(runs: Runs, quantities: list[str], ways: list[Factor], per_epoch: bool) -> Shown:
    """Returns one row per combination: of each quantity the mean with its interval, and the median."""
    keys = [factor.key for factor in ways]
    parts: list[pd.DataFrame] = []
    headings: dict[str, str] = {}
    for quantity in quantities:
        name = _unit(quantity, per_epoch)
        names = {"mean": name, "low": f"{name} low", "high": f"{name} high", "median": f"{name} median"}
        names["n"] = f"{name} runs"
        parts.append(summary(runs, keys, quantity).set_index(keys)[list(names)].rename(columns=names))
        headings |= {name: name, f"{name} low": "95 % low", f"{name} high": "95 % high", f"{name} runs": "runs"}
    table = pd.concat(parts, axis=1).reset_index()
    names = own_names(table, {factor.key: factor.label for factor in ways})
    headings = {names[factor.key]: factor.label for factor in ways} | headings
    return Shown("compute", "Means with intervals.", table.rename(columns=names), headings, rows=60)


def _draw_compute(runs: Runs, quantities: list[str], ways: list[Factor], per_epoch: bool) -> Figure:
    """Draws one row of panels per quantity, one column per precision, over the batch size or what else there is."""
    precision = runs.role("precision") if len(ways) > 1 else None
    rest = [factor for factor in ways if factor != precision]
    x = rest[0]
    colour = next((f for f in rest if f != x and f == runs.role("freeze")), None) or next(iter(rest[1:]), None)
    dash = next((f for f in rest if f not in (x, colour)), None)
    names = list(precision.levels) if precision else [None]
    # one quantity per column, unless precision takes the columns
    columns = len(names) if precision else min(3, len(quantities))
    figure, axes = drawing.panels(
        len(names) * len(quantities), columns=columns, height=2.9, sharey="row" if precision else False
    )
    for place, panel in enumerate(axes):
        quantity, level = quantities[place // len(names)], names[place % len(names)]
        part = runs.frame[runs.frame[precision.key] == level] if precision else runs.frame
        last = place % columns == columns - 1 or place == len(axes) - 1
        _draw_cost(panel, runs.with_frame(part), x, colour, dash, quantity, last)
        panel.set_ylabel(_unit(quantity, per_epoch))
        panel.set_title(drawing.short(f"{precision.label}: {level}", 50) if precision else "")
    drawing.from_zero(axes)
    drawing.note_intervals(figure, runs)
    return figure


def _draw_cost(
    panel: Axes, runs: Runs, x: Factor, colour: Factor | None, dash: Factor | None, quantity: str, named: bool
) -> None:
    keys = [factor for factor in (x, colour, dash) if factor]
    table = summary(runs, [factor.key for factor in keys], quantity)
    drawing.level_axis(panel, x)
    handles, names = [], []
    shades = drawing.colours(colour) if colour else {None: drawing.OKABE_ITO[0]}
    for level, shade in shades.items():
        for place, style in enumerate(_styles(runs, dash)):
            part = table if level is None or colour is None else table[table[colour.key] == level]
            part = part if dash is None else part[part[dash.key] == style]
            if part.empty:
                continue
            line = "" if not x.numeric else DASHES[place % len(DASHES)]
            look: dict[str, Any] = {"linestyle": line, "color": shade, "marker": "os^D"[place % 4], "markersize": 5}
            handles.append(drawing.with_intervals(panel, part, x, **look))
            names.append(", ".join(str(word) for word in (level, style) if word is not None))
    if named and colour:
        drawing.legend(panel, handles, names, colour.label + (f", {dash.label}" if dash else ""))


def _styles(runs: Runs, dash: Factor | None) -> Sequence[str | None]:
    """Returns the levels that have a line style each: uncapped is solid, and the lower the cap the more broken."""
    if dash is None:
        return [None]
    levels = dash.levels[::-1] if dash == runs.role("cap") and dash.ordered else dash.levels
    return sorted(levels, key=lambda level: dash == runs.role("cap") and level.lower() not in UNCAPPED)


def front(runs: Runs) -> Section | LeftOut:
    """Returns the metric against joules (else seconds), every configuration, with the Pareto front."""
    title, metric = "Metric against cost", runs.mapping.metric
    costs = [name for name in ("joules", "seconds") if name in runs.frame]
    costs = [name for name in costs if runs.mapping.columns[name][0] != metric and not metric.startswith(name)]
    if not costs or not runs.factors:
        return LeftOut(title, "it needs a column 'joules' or 'seconds', and a metric that is not of the same kind")
    cost, column = costs[0], runs.mapping.columns[costs[0]][0]
    keys = [factor.key for factor in runs.factors]
    table = runs.frame.dropna(subset=[cost]).groupby(keys, observed=True)[["y", cost]].mean().reset_index()
    if table.empty:
        return LeftOut(title, f"column '{cost}' is empty")
    table["on_front"] = pareto(table[cost], table["y"], runs.lower)
    chosen = table[table["on_front"]].sort_values(cost)
    drawn = Drawn("pareto", capital(f"{runs.metric} against {UNITS[cost]}."), _draw_front(runs, table, chosen, cost))
    text = [
        "Each point is a configuration, its mean over replicates. Black: the Pareto front, beaten by none in both. "
        f"The cost: '{column}'."
    ]
    if cost == "seconds" and "joules" not in runs.frame:
        text.append("No energy was measured, or none is in the table: seconds stand for the cost.")
    if runs.mapping.shared_pretrain:
        text.append("Without the pretrain that a run starts from, which runs share.")
    labels = {cost: UNITS[cost], "y": runs.metric} | {f.key: f.label for f in runs.factors}
    names = own_names(table, labels)
    headings = {names[column]: labels[column] for column in chosen if column in labels}
    tables = [
        Shown("pareto", "The front, cheapest first.", chosen.rename(columns=names), headings, rows=15),
        Shown("metric_and_cost", "", table.rename(columns=names), rows=0),
    ]
    return Section(title, text, [drawn], tables)


def _draw_front(runs: Runs, table: pd.DataFrame, chosen: pd.DataFrame, cost: str) -> Figure:
    """Draws all configurations over their cost, and those on the front as a line."""
    figure, (axes,) = drawing.panels(1, height=4.0)
    look: dict[str, Any] = {"markersize": 4, "rasterized": True}
    if colour := runs.role("freeze") or runs.role("protocol"):
        shades, handles = drawing.colours(colour), []
        for level in colour.levels:
            part = table[table[colour.key] == level]
            handles += axes.plot(part[cost], part["y"], ".", color=shades[level], alpha=0.6, **look)
        drawing.legend(axes, handles, colour.levels, colour.label)
    else:
        axes.plot(table[cost], table["y"], ".", color=drawing.GREY, **look)
    axes.plot(chosen[cost], chosen["y"], "-o", color="black", markersize=4, linewidth=1, drawstyle="steps-post")
    axes.set(xlabel=f"{UNITS[cost]} per run", ylabel=drawing.better(runs))
    return figure


def scaling(runs: Runs) -> Section | LeftOut:
    """Returns execution time, scaling efficiency and utilisation over workers × threads."""
    title = "Scaling"
    keys = [factor for factor in (runs.role("workers"), runs.role("threads")) if factor]
    if "wall_seconds" not in runs.frame or not keys or not all(_numbers(factor) for factor in keys):
        return LeftOut(
            title,
            "it needs a column 'wall_seconds' and the role 'workers' or 'threads', factors of at most "
            f"{MOST_LEVELS} numbers",
        )
    table, smallest = _efficiency(runs, keys)
    shown = [name for name in ("efficiency", "utilisation") if name in table]
    text = [
        f"Efficiency: speed-up against the smallest setting ({smallest}), over how many times more workers × threads "
        f"were used; 1 is perfect. Its interval is that of the execution time. {interval_text(runs)}"
    ]
    drawn = Drawn("scaling", f"Over {keys[0].label}.", _draw_scaling(runs, table, keys, shown))
    table = table.rename(columns={"mean": "wall_seconds"})
    names = own_names(table, {f.key: f.label for f in keys})
    headings = {names[f.key]: f.label for f in keys} | {"wall_seconds": "execution time (s)"}
    headings |= {"low": "95 % low", "high": "95 % high", "speed_up": "speed-up"}
    for name in shown:
        headings |= {name: name, f"{name}_low": "95 % low", f"{name}_high": "95 % high"}
    return Section(title, text, [drawn], [Shown("scaling", "", table.rename(columns=names), headings)])


def _numbers(factor: Factor) -> bool:
    """Returns whether each level is one number, not a bin of many."""
    return bool(pd.to_numeric(pd.Series(factor.levels), errors="coerce").notna().all())


def _efficiency(runs: Runs, factors: list[Factor]) -> tuple[pd.DataFrame, str]:
    """Returns execution time, speed-up, efficiency and utilisation per setting, and what the smallest setting is."""
    keys = [factor.key for factor in factors]
    table = summary(runs, keys, "wall_seconds").drop(columns=["n", "median", "replicates"])
    units = np.prod([table[key].astype(str).astype(float) for key in keys], axis=0)
    first = table.iloc[int(np.argmin(units))]
    table["speed_up"] = first["mean"] / table["mean"]
    table["efficiency"] = table["speed_up"] * units.min() / units
    table["efficiency_low"] = table["efficiency"] * table["mean"] / table["high"]
    table["efficiency_high"] = table["efficiency"] * table["mean"] / table["low"].where(table["low"] > 0)
    if "utilisation" in runs.frame:
        used = summary(runs, keys, "utilisation")[[*keys, "mean", "low", "high"]]
        names = {"mean": "utilisation", "low": "utilisation_low", "high": "utilisation_high"}
        table = table.merge(used.rename(columns=names), on=keys, how="left")
    return table, ", ".join(f"{factor.label} {first[factor.key]}" for factor in factors)


def _draw_scaling(runs: Runs, table: pd.DataFrame, factors: list[Factor], shown: list[str]) -> Figure:
    """Draws execution time, efficiency and utilisation over the first factor, one line per level of the second."""
    x, lines = factors[0], factors[1] if len(factors) > 1 else None
    figure, axes = drawing.panels(1 + len(shown), height=3.2)
    for panel, name in zip(axes, ["execution time (s)", *shown], strict=True):
        values = table.copy()
        if name in shown:
            values[["mean", "low", "high"]] = table[[name, f"{name}_low", f"{name}_high"]]
        drawing.level_axis(panel, x, room=44)
        handles = []
        shades = drawing.colours(lines) if lines else {None: drawing.OKABE_ITO[0]}
        for (level, colour), shift in zip(shades.items(), drawing.shifts(len(shades)), strict=True):
            part = values if lines is None else values[values[lines.key] == level]
            handles.append(drawing.with_intervals(panel, part, x, shift=shift, color=colour))
        if name in shown:
            panel.axhline(1, color=drawing.GREY, linewidth=0.8)
        panel.set_ylabel(name)
    if lines:
        drawing.legend(panel, handles, lines.levels, lines.label)
    drawing.from_zero(axes)
    drawing.note_intervals(figure, runs)
    return figure
