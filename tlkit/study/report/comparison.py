"""Is it better than random variation: paired differences by replicate, and the best configuration's replicates."""

import pandas as pd

from tlkit.study.report import drawing
from tlkit.study.report.differences import difference, paired, unpaired
from tlkit.study.report.section import Drawn, LeftOut, Section, Shown, number, own_names
from tlkit.study.report.statistics import configurations, of_setting
from tlkit.study.report.tidy import Runs

TOP = 10


def comparison(runs: Runs) -> Section | LeftOut:
    """Returns the best level of each factor against each other one, pair by pair.

    Args:
        runs: at the best nuisance setting.
    """
    title = "Is it better than random variation?"
    if not runs.factors:
        return LeftOut(title, "no factor has two levels")
    table = differences(runs)
    figure, axes = drawing.panels(1, height=0.9 + 0.24 * len(table))
    rows = table.iloc[::-1].reset_index(drop=True)
    for at, row in rows.iterrows():
        colour = drawing.OKABE_ITO[2] if row["verdict"] == "better" else drawing.GREY
        axes[0].hlines(at, row["low"], row["high"], color=colour, linewidth=2)
        axes[0].plot(row["difference"], at, "o", color=colour, markersize=5)
    axes[0].set_ylim(-0.6, len(rows) - 0.4)
    labels = (
        rows["label"].map(lambda text: drawing.short(text, 26)) + ": " + rows["level"] + " against " + rows["against"]
    )
    axes[0].set_yticks(range(len(rows)), [drawing.short(label, 64) for label in labels])
    axes[0].axvline(0, color="black", linewidth=0.8)
    axes[0].grid(False, axis="y")
    axes[0].set_xlabel(
        f"difference in {drawing.short(runs.metric, 60)}\n({'below' if runs.lower else 'above'} 0: better)"
    )
    text = [
        f"The best level of each factor against each of the others, by differences between {_pairs(runs)}, 95 %; "
        "'inconclusive': it holds 0; 'equal': no pair differs at all. "
        "Probability of improvement: the share of pairs in which the level is better.",
        f"Comparisons: {len(table)}, not corrected for their number, and the best level is picked from the same runs: "
        "where levels do not differ at all, some 'better' comes up more often than in 1 table of 20, the more often "
        "the more levels there are.",
    ]
    headings = {
        "label": "factor", "level": "best level", "against": "against", "difference": "difference", "low": "95 % low",
        "high": "95 % high", "probability_of_improvement": "probability of improvement", "pairs": "pairs",
        "replicates": "replicates", "verdict": "verdict",
    }  # fmt: skip
    tables = [Shown("differences", "Paired differences.", table, headings)]
    drawn = [Drawn("differences", "Green: better than random variation. Grey: all else.", figure)]
    return Section(title, text, drawn, tables)


def _pairs(runs: Runs) -> str:
    """Returns what is compared with what, and what the interval is."""
    if unpaired(runs):
        return "all runs of one and all runs of the other, which nothing pairs. The interval is Welch's t over runs"
    if runs.replicated:
        return "runs with the same replicate and equal levels of all other factors. The interval is Student's t"
    return (
        "runs with equal levels of all other factors. Without replicates the interval is Student's t over pairs and "
        "does not reflect replication"
    )


def differences(runs: Runs) -> pd.DataFrame:
    """Returns `differences.paired` for all factors in one table."""
    parts = []
    for factor in runs.factors:
        part = paired(runs, factor)
        part.insert(0, "factor", factor.column)
        part.insert(1, "label", factor.label)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def best(runs: Runs) -> Section | LeftOut:
    """Returns the best configurations with their replicates, and the best single run beside its own replicates."""
    title = "The best configurations"
    if not runs.factors:
        return LeftOut(title, "no factor has two levels")
    table = configurations(runs)
    top = table.head(TOP).copy()
    if runs.replicated:
        top = top.join(pd.DataFrame([_against_best(runs, top.iloc[0], row) for _, row in top.iterrows()]))
    row = runs.frame.loc[runs.frame["y"].idxmin() if runs.lower else runs.frame["y"].idxmax()]
    same = of_setting(runs, row)
    others = ", ".join(number(value) for value in same["y"].sort_values(ascending=runs.lower))
    setting = ", ".join(f"{factor.label} {row[factor.key]}" for factor in runs.factors)
    beside = f"All runs of that configuration: {others}" if len(same) > 1 else "There is no other of that configuration"
    text = [
        f"The best single run of those compared has {number(row['y'])} ({setting}). {beside}. "
        "The best of many runs is also the luckiest: its replicates say what to expect of it.",
        f"Best mean first, of {len(table):,} configurations. The best of many means is optimistic, too.",
    ]
    headings = {factor.key: factor.label for factor in runs.factors} | {
        "n": "runs", "mean": "mean", "low": "95 % low", "high": "95 % high", "best": "best", "worst": "worst",
    }  # fmt: skip
    if runs.replicated:
        headings["verdict"] = "the first against it"
    columns = own_names(top, {factor.key: factor.column for factor in runs.factors})
    replicates = same.assign(replicate=same["r"] if "r" in same else "")[["replicate", "y"]].rename(
        columns={"y": "value"}
    )
    tables = [
        Shown(
            "best",
            f"The first {len(top)}.",
            top.rename(columns=columns),
            {columns.get(k, k): v for k, v in headings.items()},
        ),
        Shown("best_run_replicates", "", replicates, rows=0),
        Shown("configurations", "", table.rename(columns=columns), rows=0),
    ]
    return Section(title, text, [], tables)


def _against_best(runs: Runs, first: pd.Series, row: pd.Series) -> dict[str, object]:
    """Returns the difference between the first configuration and another one, replicate by replicate."""
    if row.name == first.name:
        return dict.fromkeys(("difference", "difference_low", "difference_high"), float("nan")) | {"verdict": "—"}
    a, b = (of_setting(runs, which).groupby("r")["y"].mean() for which in (first, row))
    found = difference((a - b).dropna().rename("d").reset_index(), runs)
    return {
        "difference": found["difference"],
        "difference_low": found["low"],
        "difference_high": found["high"],
        "verdict": found["verdict"],
    }
