"""Source × target: how good before and after the transfer, what the transfer gained, and what was forgotten."""

from typing import Any

import pandas as pd

from tlkit.study.report import drawing
from tlkit.study.report.main_effects import interval_text
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, capital, own_names
from tlkit.study.report.statistics import summary
from tlkit.study.report.tidy import Runs


def domain_matrix(runs: Runs) -> Section | LeftOut:
    """Returns the matrices source × target: before, after, and the gain."""
    title = "Domains: source × target"
    source, target = runs.role("source"), runs.role("target")
    if source is None or target is None or source == target:
        return LeftOut(title, "it needs the roles 'source' and 'target', two factors with two levels or more each")
    columns = {"y": "after the transfer"}
    frame = runs.frame
    text = [f"Mean {runs.metric} over all else. White: no such run."]
    if "before" in frame:
        sign = -1.0 if runs.lower else 1.0
        frame = frame.assign(gain=sign * (frame["y"] - frame["before"]))
        columns = {"before": "before the transfer", "y": "after the transfer", "gain": "gain (positive: better)"}
    else:
        text.append("Before the transfer: left out, the mapping names no column 'before'.")
    marked, keys = runs.with_frame(frame), [source.key, target.key]
    beside = len(columns) if len(target.levels) <= 6 else 1
    figure, axes = drawing.panels(len(columns), columns=beside, height=1.5 + 0.28 * len(source.levels))
    parts = {column: summary(marked, keys, column) for column in columns}
    values = pd.concat(part["mean"] for column, part in parts.items() if column != "gain")
    limits = float(values.min()), float(values.max())  # the same for before and after
    images = {}
    for panel, (column, part) in zip(axes, parts.items(), strict=True):
        wide, gain = part.pivot(index=source.key, columns=target.key, values="mean"), column == "gain"
        look: dict[str, Any] = {"low_is_good": runs.lower and not gain, "limits": None if gain else limits}
        images[column] = drawing.heat_map(panel, wide, source, target, columns[column], **look)
    absolute = axes[: len(columns) - ("gain" in columns)]
    figure.colorbar(images["y"], ax=absolute)
    if "gain" in columns:
        figure.colorbar(images["gain"], ax=axes[-1:])
    figure.suptitle(drawing.better(runs, 90), fontsize=10)
    table = pd.concat([part.assign(what=columns[column]) for column, part in parts.items()], ignore_index=True)
    table = table.rename(columns=own_names(table, {source.key: source.label, target.key: target.label}))
    caption = f"{capital(runs.metric)}: {source.label} down, {target.label} across; before and after in equal colours."
    return Section(title, text, [Drawn("domains", caption, figure)], [Shown("domains", "", table, rows=0)])


def forgetting(runs: Runs) -> Section | LeftOut:
    """Returns how much worse networks are on their source domain after the transfer."""
    title = "Forgetting of the source"
    if not {"source_before", "source_after"} <= set(runs.frame) or not runs.factors:
        return LeftOut(title, "it needs the columns 'source_before' and 'source_after'")
    sign = 1.0 if runs.lower else -1.0
    frame = runs.frame.assign(forgotten=sign * (runs.frame["source_after"] - runs.frame["source_before"]))
    marked = runs.with_frame(frame)
    figure, axes = drawing.panels(len(runs.factors), height=2.5, sharey=True)
    parts = []
    for panel, factor in zip(axes, runs.factors, strict=True):
        means = summary(marked, [factor.key], "forgotten")
        drawing.level_axis(panel, factor)
        line = "-" if factor.ordered else ""
        drawing.with_intervals(panel, means, factor, color=drawing.OKABE_ITO[3], linestyle=line)
        panel.axhline(0, color="black", linewidth=0.8)
        part = means.rename(columns={factor.key: "level"}).astype({"level": str})
        part.insert(0, "factor", factor.column)
        part.insert(1, "label", factor.label)
        parts.append(part)
    change = "after − before" if runs.lower else "before − after"
    figure.supylabel(f"{drawing.short(runs.metric, 44)}\non the source, {change}", fontsize=9)
    drawing.note_intervals(figure, runs)
    headings = {
        "label": "factor",
        "level": "level",
        "n": "runs",
        "mean": "forgotten",
        "low": "95 % low",
        "high": "95 % high",
    }
    text = [
        "How much worse the metric on the source domain is after the transfer than before, in its own unit; positive: "
        f"forgotten. {interval_text(runs)}"
    ]
    drawn = Drawn("forgetting", "Loss of the source domain per level of each factor.", figure)
    return Section(title, text, [drawn], [Shown("forgetting", "", pd.concat(parts, ignore_index=True), headings)])
