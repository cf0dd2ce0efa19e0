"""The answer of a study in one sentence with its interval, its caveats, and how to make the report again."""

import pandas as pd

from tlkit.study.report.differences import best_two, unpaired
from tlkit.study.report.main_effects import interval_text
from tlkit.study.report.nuisance import chosen_by
from tlkit.study.report.section import Shown, capital, cell, number, percent
from tlkit.study.report.statistics import main_shares, varies
from tlkit.study.report.tidy import Factor, Runs


def answer(runs: Runs, sizes: Shown | None) -> str:
    """Returns one sentence: which level is best, by how much against the next best, and how sure that is.

    Args:
        runs: at the best nuisance setting.
        sizes: the best level for each target size, if there are sizes.
    """
    if not runs.factors:
        median = number(runs.frame["y"].median())
        return f"No factor has two levels, so nothing can be compared; median {runs.metric}: {median}."
    if not varies(runs):
        return f"{capital(runs.metric)} is {number(runs.frame['y'].iloc[0])} in every run: no level is the better one."
    key = most_important(runs)[0]
    factor = next(factor for factor in runs.factors if factor.key == key)
    first, second, table = best_two(runs, factor)
    share = main_shares(runs)[key]
    known = [] if pd.isna(first["low"]) else [f"95 % interval {number(first['low'])} to {number(first['high'])}"]
    known += [] if pd.isna(share) else [f"the factor explains {percent(share)} of the variance"]
    asked = runs.mapping.factors.get(runs.mapping.answer or "", "")
    start = f"{asked} does not vary here, so nothing can be said of it. " if asked in runs.fixed else ""
    behind = table["difference"] if runs.lower else -table["difference"]  # above 0: worse in matched runs
    rival, which = second[key], "against the next best, "
    if (behind > 0).any():
        rival, which = behind.idxmax(), "but against "
        start += f"where runs are matched, {factor.label} = {rival} is better: "
    start += (
        f"{factor.label} = {first[key]} has the {'lowest' if runs.lower else 'highest'} mean {runs.metric}, "
        f"{number(first['mean'])}{' (' + '; '.join(known) + ')' if known else ''}"
    )
    against = _against(runs, table.loc[str(rival)], len(table))
    return capital(f"{start}; {which}{rival}, {against}") + _exceptions(runs, factor, str(first[key]), sizes)


def _against(runs: Runs, row: pd.Series, comparisons: int) -> str:
    """Returns how much better the best level of a factor is than another one (a row of `paired`), and how sure."""
    if not row["pairs"]:
        return "no run of one matches a run of the other."
    if row["verdict"] == "equal":
        return (
            f"all {row['pairs']:,} matched runs of both are equal to the last digit: does the level have any effect "
            "on these runs?"
        )
    change = f"{number(abs(row['difference']))} {'lower' if row['difference'] < 0 else 'higher'}"
    between = f"95 % interval of the difference {cell(row['low'])} to {cell(row['high'])}; "
    sure = {
        "inconclusive": "inconclusive: the interval holds 0",
        "no interval": f"one {'replicate' if runs.replicated else 'pair'} only: there is no interval",
        "better": "better than random variation" + f", not corrected for {comparisons} comparisons" * (comparisons > 1),
        "worse": "worse than it where they are matched",
    }[row["verdict"]]
    return (
        f"it is {change}{'' if unpaired(runs) else ' in matched runs'} ({between if row['low'] == row['low'] else ''}"
        f"better in {percent(row['probability_of_improvement'])} of {row['pairs']:,} pairs): {sure}."
    )


def _exceptions(runs: Runs, factor: Factor, best: str, sizes: Shown | None) -> str:
    """Returns for which sizes of the target data set another level has the best mean; empty: for none."""
    size = runs.role("size")
    if sizes is None or size is None or factor == size:
        return ""
    others = sizes.frame.loc[sizes.frame["best"] != best, "size"]
    return (
        f" At {size.label} {', '.join(others)} another level has the best mean: see the table." if len(others) else ""
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
        if part.frame[factor.key].nunique() < 2:
            continue
        best, second, pairs = best_two(part, factor)
        row = pairs.loc[str(second[factor.key])].to_dict()
        mean = {"mean": best["mean"], "mean_low": best["low"], "mean_high": best["high"]}
        rows.append({"size": level, "best": row["level"]} | mean | row)
    headings = {
        "size": size.label, "best": f"best {factor.label}", "mean": runs.metric, "mean_low": "95 % low",
        "mean_high": "95 % high", "against": "next best", "difference": "difference", "low": "95 % low",
        "high": "95 % high", "verdict": "verdict",
    }  # fmt: skip
    table = pd.DataFrame(rows).drop(columns="level") if rows else pd.DataFrame()
    shown = {name: heading for name, heading in headings.items() if name in table}
    return Shown("best_by_size", f"Best {factor.label} by {size.label}.", table, shown) if rows else None


def most_important(runs: Runs) -> list[str]:
    """Returns the keys of the factors: the one that the question is about first, then by share of variance.

    Domains come last, unless asked for: where a network comes from and is to go is given, not chosen.
    """
    shares = main_shares(runs) if runs.factors else {}
    asked = runs.factor(runs.mapping.answer)
    domains = [factor.key for role in ("source", "target") for factor in runs.roles(role)]

    def place(key: str) -> tuple[bool, bool, bool, float]:
        return asked is None or key != asked.key, key in domains, shares[key] != shares[key], -shares[key]

    return sorted(shares, key=place)


def caveats(runs: Runs, chosen: Runs) -> list[str]:
    """Returns what the answer depends on, and what was left out on the way.

    Args:
        runs: all runs.
        chosen: those at the best nuisance setting.
    """
    said = [interval_text(runs)] if runs.replicated else []
    if not runs.fixed:
        said.append("What was fixed is not known: the mapping names nothing under 'fixed'.")
    if len(chosen.factors) < len(runs.factors):
        names = ", ".join(factor.label for factor in runs.factors if factor not in chosen.factors)
        said.append(f"Nuisance factors ({names}) are at the best setting for each of the others, {chosen_by(runs)}.")
    return [*said, *(f"{capital(remark)}." for remark in runs.remarks)]
