"""Training curves of all runs, and where in a run the best epoch was: are there too many epochs, or too few."""

import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from tlkit.study.report import drawing
from tlkit.study.report.answer import most_important
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, own_names, percent
from tlkit.study.report.tidy import Runs

FIFTH = 0.2
MOSTLY = 0.5


def training_curves(runs: Runs, curves: pd.DataFrame | None) -> Section | LeftOut:
    """Returns the curves of all runs, with the median per level of the factor that matters most.

    Args:
        runs: with a column ``run``.
        curves: columns run, epoch, value; None: there are none.
    """
    title = "Training curves"
    if curves is None or "run" not in runs.frame:
        return LeftOut(title, "it needs 'curves', a table with columns run, epoch, value, and the column 'run'")
    factor = next((factor for key in most_important(runs)[:1] for factor in runs.factors if factor.key == key), None)
    names = runs.frame[["run", *([factor.key] if factor else [])]].drop_duplicates()  # a run may serve several levels
    curves = curves[np.isfinite(curves["value"])].assign(run=curves["run"].astype(str)).merge(names, on="run")
    if curves.empty:
        return LeftOut(title, "no run of the table is in the file of training curves")
    figure, (axes,) = drawing.panels(1, height=4.2)
    wide = curves.pivot_table(index="epoch", columns="run", values="value")
    logged = (wide[run].dropna() for run in wide)  # a run may be logged at fewer epochs than others
    lines = [np.column_stack([line.index, line]) for line in logged]
    alpha = max(0.03, min(0.5, 20 / len(lines)))
    # one artist: thousands would take longer to draw than all else of a report
    axes.add_collection(LineCollection(lines, colors=drawing.GREY, alpha=alpha, linewidth=0.6, rasterized=True))
    by = [factor.key, "epoch"] if factor else ["epoch"]
    medians = curves.groupby(by, observed=True)["value"].agg(median="median", runs="count").reset_index()
    if factor:
        shades, handles = drawing.colours(factor), []
        for level in factor.levels:
            part = medians[medians[factor.key] == level]
            handles += axes.plot(part["epoch"], part["median"], color=shades[level], linewidth=2)
        drawing.legend(axes, handles, factor.levels, factor.label)
        medians = medians.rename(columns=own_names(medians, {factor.key: factor.label}))
    else:
        axes.plot(medians["epoch"], medians["median"], color=drawing.OKABE_ITO[0], linewidth=2)
    low, high = np.nanquantile(wide.to_numpy(), [0.005, 0.995])
    if low < high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set(xlabel="epoch", ylabel=drawing.short(runs.mapping.curves_label, 64) or drawing.better(runs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    text = [f"{wide.shape[1]:,} runs, thin; thick: the median per level of {factor.label if factor else 'all runs'}."]
    absent = names["run"].nunique() - wide.shape[1]
    if absent:
        text.append(f"{absent:,} runs have no curve.")
    tables = [Shown("training_curves", "", medians, rows=0)]
    return Section(title, text, [Drawn("training_curves", "The value of each run per epoch.", figure)], tables)


def best_epoch(runs: Runs) -> Section | LeftOut:
    """Returns where in the run the best epoch was, and what to do about it."""
    title = "Best epoch: early or late?"
    if "best_epoch_fraction" not in runs.frame or runs.frame["best_epoch_fraction"].isna().all():
        return LeftOut(title, "it needs the column 'best_epoch_fraction'")
    fractions = runs.frame["best_epoch_fraction"].dropna()
    early, late = float((fractions <= FIFTH).mean()), float((fractions > 1 - FIFTH).mean())
    rows = [("all runs", "", len(fractions), early, late, float(fractions.median()))]
    for factor in runs.factors:
        for level, part in runs.frame.groupby(factor.key, observed=True)["best_epoch_fraction"]:
            part = part.dropna()
            if len(part):
                shares = float((part <= FIFTH).mean()), float((part > 1 - FIFTH).mean())
                rows.append((factor.label, str(level), len(part), *shares, float(part.median())))
    table = pd.DataFrame(rows, columns=["factor", "level", "n", "first_fifth", "last_fifth", "median"])
    headings = {
        "factor": "factor", "level": "level", "n": "runs", "first_fifth": "best in the first fifth",
        "last_fifth": "best in the last fifth", "median": "median fraction of the run",
    }  # fmt: skip
    figure, (axes,) = drawing.panels(1, height=2.6)
    edges = np.linspace(0, 1, 21)
    counts, _ = np.histogram(fractions - 1e-9, edges)  # epoch 8 of 10 ends at 0.8: it is before the last fifth
    axes.stairs(counts, edges, fill=True, color=drawing.OKABE_ITO[0], alpha=0.6)
    axes.axvspan(0, FIFTH, color="#DDDDDD", alpha=0.5, zorder=0)
    axes.axvspan(1 - FIFTH, 1, color="#DDDDDD", alpha=0.5, zorder=0)
    axes.set(xlabel="best epoch as a fraction of the run", ylabel="runs", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    text = [
        f"The best epoch lies in the first fifth of the run in {percent(early)} of the runs, in the last fifth in "
        f"{percent(late)}. {advice(early, late)}",
        "The number of epochs is no hyperparameter to tune: choose one for all runs, and take the best checkpoint.",
    ]
    drawn = Drawn("best_epoch", "Grey: the first and the last fifth.", figure)
    bars = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "runs": counts})
    tables = [Shown("best_epoch", "", table, headings), Shown("best_epoch_histogram", "", bars, rows=0)]
    return Section(title, text, [drawn], tables)


def advice(early: float, late: float) -> str:
    """Returns what to do about the number of epochs.

    The rule of the Deep Learning Tuning Playbook (Godbole et al. 2023): always in the first
    fifth, or mostly in the last.

    Args:
        early: fraction of runs whose best epoch is in the first fifth.
        late: the same for the last fifth.
    """
    if early == 1:
        return "Always early: fewer epochs would probably do."
    if late > MOSTLY:
        return "Mostly late: train for more epochs if the resources allow it; these runs had not finished learning."
    return "Neither always early nor mostly late: the number of epochs fits."
