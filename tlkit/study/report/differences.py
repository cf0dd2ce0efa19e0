"""Whether a level is better than another: differences between runs that differ in nothing else, with intervals."""

import warnings

import numpy as np
import pandas as pd
from scipy import stats

from tlkit.study.report.statistics import CONFIDENCE, ranked, t_intervals
from tlkit.study.report.tidy import Factor, Runs


def paired(runs: Runs, factor: Factor) -> pd.DataFrame:
    """Returns the best level of a factor against each of the others, run against run of equal replicate and levels.

    Columns: level, against, difference (mean over replicates of the mean difference, in the metric's unit), low, high,
    probability_of_improvement (share of pairs in which `level` is better, a tie is half), pairs, replicates, verdict.
    Where nothing pairs runs, each run of one level is compared with each of the other.
    """
    others = [f.key for f in runs.factors if f != factor] + (["r"] if runs.replicated else [])
    best = ranked(runs, factor)[factor.key].iloc[0]
    wide = runs.frame.assign(all=0).pivot_table(
        index=others or ["all"], columns=factor.key, values="y", aggfunc="mean", observed=True
    )
    rows = []
    for level in wide.columns:
        if level != best and unpaired(runs):
            a, b = (runs.frame.loc[runs.frame[factor.key] == which, "y"] for which in (best, level))
            rows.append({"level": str(best), "against": str(level)} | _welch(a, b, runs.lower))
        elif level != best:
            pairs = (wide[best] - wide[level]).dropna().rename("d").reset_index()
            rows.append({"level": str(best), "against": str(level)} | difference(pairs, runs))
    return pd.DataFrame(rows)


def best_two(runs: Runs, factor: Factor) -> tuple[pd.Series, pd.Series, pd.DataFrame]:
    """Returns the `summary` of the best level of a factor and of the next best, and `paired`, a row per other level."""
    means = ranked(runs, factor)
    return means.iloc[0], means.iloc[1], paired(runs, factor).set_index("against", drop=False)


def unpaired(runs: Runs) -> bool:
    """Returns whether nothing tells which run of one level belongs to which of another: no replicate, no factor."""
    return not runs.replicated and len(runs.factors) == 1


def _welch(a: pd.Series, b: pd.Series, lower: bool) -> dict[str, object]:
    """Returns what `difference` does, for runs that nothing pairs: Welch's t, Mann and Whitney's share of pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one run or equal values: there is no interval
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(CONFIDENCE)
    more = float(stats.mannwhitneyu(a, b).statistic) / (len(a) * len(b))
    return {
        "difference": a.mean() - b.mean(),
        "low": float(low),
        "high": float(high),
        "probability_of_improvement": 1 - more if lower else more,
        "pairs": len(a) * len(b),
        "replicates": 0,
        "verdict": _verdict(low, high, lower),
    }


def difference(pairs: pd.DataFrame, runs: Runs) -> dict[str, object]:
    """Returns the mean of differences ``d`` with interval, the share of improvements and the verdict.

    That is "equal" where no pair differs by a single digit: then the level has hardly any effect at all.
    """
    if pairs.empty:
        unknown = dict.fromkeys(("difference", "low", "high", "probability_of_improvement"), float("nan"))
        return {**unknown, "pairs": 0, "replicates": 0, "verdict": "no matched pairs"}
    better = pairs["d"] < 0 if runs.lower else pairs["d"] > 0
    values = pairs.groupby("r")[["d"]].mean() if runs.replicated else pairs
    mean, low, high, count = t_intervals(values, [], "d").iloc[0]
    return {
        "difference": mean,
        "low": low,
        "high": high,
        "probability_of_improvement": float((better + 0.5 * (pairs["d"] == 0)).mean()),
        "pairs": len(pairs),
        "replicates": int(count) if runs.replicated else 0,
        "verdict": "equal" if (pairs["d"] == 0).all() else _verdict(low, high, runs.lower),
    }


def _verdict(low: float, high: float, lower: bool) -> str:
    """Returns what an interval of differences says: better, worse, inconclusive (it holds 0), no interval."""
    if np.isnan(low):
        return "no interval"
    if low <= 0 <= high:
        return "inconclusive"
    return "better" if (high < 0) == lower else "worse"
