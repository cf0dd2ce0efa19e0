"""The metric over what a protocol sets, one line per target size; protocols against each other; overfitting."""

import re

import pandas as pd
from matplotlib.figure import Figure

from tlkit.study.report import drawing
from tlkit.study.report.main_effects import draw_lines, interval_text
from tlkit.study.report.section import HEADINGS, Drawn, LeftOut, Section, Shown, own_names
from tlkit.study.report.statistics import summary
from tlkit.study.report.tidy import Factor, Runs

LOSSES = {"train_loss": "training", "val_loss": "validation", "difference": "validation − training"}
HEADINGS_OF_ALL = {"mean": "mean of all", "low": HEADINGS["low"], "high": HEADINGS["high"]}


def over_factors(runs: Runs) -> Section | LeftOut:
    """Returns the metric over layers transferred, frozen, decay epochs, …: one line per target size."""
    title = "Over what was set, by target size"
    size, over = runs.role("size"), [factor for factor in runs.roles("over") if factor != runs.role("size")]
    if not over or size is None:
        return LeftOut(title, "it needs the roles 'over' and 'size', factors with two levels or more each")
    panel = runs.role("panel")
    figures, tables = [], []
    for place, x in enumerate(over, 1):
        split = panel if panel not in (None, x, size) else None
        name = f"over_{place}_{re.sub('[^a-z0-9]+', '_', x.label.lower()).strip('_')[:40]}"
        keys = [x, size, *([split] if split else [])]
        figures.append(Drawn(name, f"Over {x.label}; one line per level of {size.label}.", _draw(runs, x, size, split)))
        tables.append(Shown(name, "", _named(summary(runs, [f.key for f in keys]), keys), rows=0))
    names = [factor.label for factor in runs.factors if factor not in (*over, size, panel)]
    rest = f" over {', '.join(names)}" if names else ""
    text = [f"Mean {runs.metric}{rest}. {interval_text(runs)}"]
    return Section(title, text, figures, tables)


def _draw(runs: Runs, x: Factor, size: Factor, split: Factor | None) -> Figure:
    levels: list[str | None] = list(split.levels) if split else [None]
    figure, axes = drawing.panels(len(levels), columns=2, height=3.6, sharey=True)
    for place, (axis, level) in enumerate(zip(axes, levels, strict=True)):
        part = runs.with_frame(runs.frame[runs.frame[split.key] == level]) if split and level else runs
        draw_lines(axis, part, x, size, named=place % 2 == 1 or place == len(levels) - 1)
        axis.set_ylabel(drawing.better(runs) if place % 2 == 0 else "")
        if split:
            axis.set_title(drawing.short(f"{split.label}: {level}", 60))
    drawing.note_intervals(figure, runs)
    return figure


def protocols(runs: Runs) -> Section | LeftOut:
    """Returns best against common against none, over the target size."""
    size, protocol = runs.role("size"), runs.role("protocol")
    if size is None or protocol is None or size == protocol:
        return LeftOut("Protocols against each other", "it needs the roles 'protocol' and 'size', two factors")
    figure, axes = drawing.panels(1, height=3.6)
    draw_lines(axes[0], runs, size, protocol)
    axes[0].set_ylabel(drawing.better(runs))
    drawing.note_intervals(figure, runs)
    table = _named(summary(runs, [protocol.key, size.key]), [protocol, size])
    headings = {name: HEADINGS.get(name, name) for name in table if name != "replicates"}
    drawn = Drawn("protocols", f"One line per {protocol.label}.", figure)
    return Section(
        "Protocols against each other", [interval_text(runs)], [drawn], [Shown("protocols", "", table, headings)]
    )


def overfitting(runs: Runs) -> Section | LeftOut:
    """Returns training and validation loss and their difference, by the first `over` factor and the size."""
    rows = next(iter(runs.roles("over")), None)
    if not {"train_loss", "val_loss"} <= set(runs.frame) or rows is None:
        return LeftOut(
            "Overfitting", "it needs the columns 'train_loss' and 'val_loss', and a factor in the role 'over'"
        )
    size = None if runs.role("size") == rows else runs.role("size")
    marked = runs.with_frame(runs.frame.assign(difference=runs.frame["val_loss"] - runs.frame["train_loss"]))
    means = {loss: summary(marked, [rows.key], loss) for loss in LOSSES}
    figure, axes = drawing.panels(1, height=3.2)
    drawing.level_axis(axes[0], rows)
    handles = [
        drawing.with_intervals(axes[0], table, rows, color=colour)
        for table, colour in zip(means.values(), drawing.OKABE_ITO, strict=False)
    ]
    drawing.legend(axes[0], handles, list(LOSSES.values()), "loss")
    axes[0].set_ylabel("loss")
    drawing.note_intervals(figure, runs)
    text = [
        "How far a network has adapted to its training images: the loss on them, on validation images, and the "
        f"difference. {interval_text(runs)}"
    ]
    drawn = Drawn("overfitting", "Training and validation loss, mean over all else.", figure)
    return Section("Overfitting", text, [drawn], [_losses(marked, rows, size, means)])


def _losses(runs: Runs, rows: Factor, size: Factor | None, means: dict[str, pd.DataFrame]) -> Shown:
    """Returns one row per level and loss: its mean per size, and over all."""
    parts = []
    for loss, mean in means.items():
        part = pd.DataFrame({rows.key: mean[rows.key].astype(str), "loss": loss.replace("_", " ")})
        if size:
            cells = summary(runs, [rows.key, size.key], loss).pivot(index=rows.key, columns=size.key, values="mean")
            for level in cells:
                part[size.levels.index(str(level))] = cells[level].reindex(mean[rows.key]).to_numpy()
        parts.append(part.join(mean[["mean", "low", "high"]]))
    order = {level: place for place, level in enumerate(rows.levels)}
    table = pd.concat(parts).sort_values(rows.key, key=lambda c: c.map(order), kind="stable", ignore_index=True)
    labels = {rows.key: rows.label} | {place: level for place, level in enumerate(size.levels if size else ())}
    table = table.rename(columns=own_names(table, {column: labels[column] for column in table if column in labels}))
    headings = {name: name for name in table} | HEADINGS_OF_ALL
    caption = f"Mean losses, one column per level of {size.label}." if size else "Mean losses."
    return Shown("overfitting", caption, table, headings)


def _named(table: pd.DataFrame, factors: list[Factor]) -> pd.DataFrame:
    """Returns a summary under the labels of its factors."""
    return table.rename(columns=own_names(table, {f.key: f.label for f in factors}))
