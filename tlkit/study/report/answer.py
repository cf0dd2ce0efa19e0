"""The answer of a study in one sentence with its interval, its caveats, and how to make the report again."""

import pandas as pd

from tlkit.study.report.comparison import differences
from tlkit.study.report.main_effects import interval_text
from tlkit.study.report.section import Shown, capital, cell, number, percent
from tlkit.study.report.statistics import main_shares, paired, summary
from tlkit.study.report.tidy import Runs


def answer(runs: Runs, sizes: Shown | None) -> str:
    """Returns one sentence: which level is best, by how much against the next best, and how sure that is.

    Args:
        runs: at the best nuisance setting.
        sizes: the best level for each target size, if there are sizes.
    """
    if not runs.factors:
        median = number(runs.frame["y"].median())
        return f"No factor has two levels, so nothing can be compared; median {runs.metric}: {median}."
    shares = main_shares(runs)
    first_key = most_important(runs)[0]
    factor = next(factor for factor in runs.factors if factor.key == first_key)
    means = summary(runs, [factor.key]).sort_values("mean", ascending=runs.lower)
    first, second = means.iloc[0], means.iloc[1]
    table = differences(runs)
    row = table[(table["factor"] == factor.column) & (table["against"] == str(second[factor.key]))].iloc[0]
    share = (
        f" (it explains {percent(shares[factor.key])} of the variance)"
        if shares[factor.key] == shares[factor.key]
        else ""
    )
    start = (
        f"{capital(factor.label)} = {first[factor.key]} has the {'lowest' if runs.lower else 'highest'} mean "
        f"{runs.metric}, {_with_interval(first['mean'], first['low'], first['high'])}"
    )
    against = f"the next best, {second[factor.key]}, "
    if not row["pairs"]:
        return f"{start}{share}; {against}has {number(second['mean'])}, but no run of one matches a run of the other."
    change = f"{number(abs(row['difference']))} {'lower' if row['difference'] < 0 else 'higher'}"
    sure = {
        "inconclusive": "inconclusive: the interval holds 0",
        "no interval": "one replicate: there is no interval",
        "better": "better than random variation",
        "worse": "worse than it where they are matched",
    }[row["verdict"]]
    if sizes and factor.key != runs.roles("size")[0].key and set(sizes.frame["best"]) != {str(first[factor.key])}:
        sure += f"; but it is not the best for every {runs.roles('size')[0].label}, see the table"
    between = f", 95 % interval {cell(row['low'])} to {cell(row['high'])}" if row["low"] == row["low"] else ""
    return (
        f"{start}{share}; against {against}it is {change} in matched runs "
        f"(difference {number(row['difference'])}{between}; "
        f"better in {percent(row['probability_of_improvement'])} of {row['pairs']:,} pairs): {sure}."
    )


def by_size(runs: Runs) -> Shown | None:
    """Returns the best level of the factor that the question is about, for each target size; None without sizes.

    Columns: the size, the best level, its mean with interval, the next best level, the paired difference with its
    interval, and the verdict.

    Args:
        runs: at the best nuisance setting.
    """
    size = runs.role("size")
    key = next((key for key in most_important(runs) if size and key != size.key), None)
    factor = next((factor for factor in runs.factors if factor.key == key), None)
    if size is None or factor is None:
        return None
    rest = tuple(other for other in runs.factors if other != size)
    rows = []
    for level in size.levels:
        part = runs.with_frame(runs.frame[runs.frame[size.key] == level], rest)
        means = summary(part, [factor.key]).sort_values("mean", ascending=runs.lower)
        if len(means) < 2:
            continue
        best, second = means.iloc[0], means.iloc[1]
        pairs = paired(part, factor)
        row = pairs[pairs["against"] == str(second[factor.key])].iloc[0].to_dict()
        mean = {"mean": best["mean"], "mean_low": best["low"], "mean_high": best["high"]}
        rows.append({"size": level, "best": row["level"]} | mean | row)
    headings = {
        "size": size.label, "best": f"best {factor.label}", "mean": runs.metric, "mean_low": "95 % low",
        "mean_high": "95 % high", "against": "next best", "difference": "difference", "low": "95 % low ",
        "high": "95 % high ", "verdict": "verdict",
    }  # fmt: skip
    table = pd.DataFrame(rows).drop(columns="level") if rows else pd.DataFrame()
    shown = {name: heading for name, heading in headings.items() if name in table}
    return Shown("best_by_size", f"Best {factor.label} for each {size.label}.", table, shown) if rows else None


def most_important(runs: Runs) -> list[str]:
    """Returns the keys of the factors: the one that the question is about first, then by share of variance."""
    shares = main_shares(runs) if runs.factors else {}
    asked = runs.factor(runs.mapping.answer)
    return sorted(shares, key=lambda key: (not asked or key != asked.key, shares[key] != shares[key], -shares[key]))


def _with_interval(mean: float, low: float, high: float) -> str:
    return number(mean) if low != low else f"{number(mean)} (95 % interval {number(low)} to {number(high)})"


def caveats(runs: Runs, chosen: Runs) -> list[str]:
    """Returns what the answer depends on, and what was left out on the way.

    Args:
        runs: all runs.
        chosen: those at the best nuisance setting.
    """
    said = [interval_text(runs)] if runs.replicated else []
    if runs.fixed:
        said.append("Fixed, so nothing is known beyond: " + "; ".join(f"{k}: {v}" for k, v in runs.fixed.items()) + ".")
    else:
        said.append("What was fixed is not known: the mapping names nothing under `fixed`.")
    if len(chosen.factors) < len(runs.factors):
        names = ", ".join(factor.label for factor in runs.factors if factor not in chosen.factors)
        said.append(
            f"Nuisance factors ({names}) are set to the best value for each setting of the others, chosen by the same "
            "metric that is compared: a little optimistic for what had more settings to choose from."
        )
    return [*said, *(f"{capital(remark)}." for remark in runs.remarks)]
