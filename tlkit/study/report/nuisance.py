"""Nuisance factors: which setting of them is taken for each setting of the others, and whether enough was tried."""

from collections.abc import Iterator

import pandas as pd

from tlkit.study.report.section import LeftOut, Section, Shown, capital
from tlkit.study.report.tidy import Factor, Runs, exact
from tlkit.study.spec import Range

OUTER = 0.1  # of a range, at either end: what is best may well lie beyond
EDGES = {"lowest": "smaller", "highest": "larger"}
LISTED = 4  # cases that a sentence names


def compared(runs: Runs) -> Runs:
    """Returns the runs at the best nuisance setting of each setting of the other factors, without the nuisance factors.

    The best setting has the best mean, over the means of the replicates, of the validation value; of the metric itself
    where there is none, which is optimistic: the same luck chooses and is compared. Settings of which more runs have
    no value come last, for those that are left of them were lucky.
    """
    science, nuisance = _split(runs)
    if not nuisance or not science:
        return runs
    wanted = [*_keys(runs), *(exact(runs.frame, factor) for factor in nuisance)]
    kept = runs.frame.reset_index().merge(_chosen(runs)[wanted], how="inner").set_index("index")
    return runs.with_frame(kept, science)


def chosen_by(runs: Runs) -> str:
    """Returns what nuisance settings are chosen by, as the end of a sentence."""
    column = next(iter(runs.mapping.columns.get("selected_by", ())), "")
    if _selecting(runs) != "y":
        return f"chosen by {column} ({'lower' if _lower(runs) else 'higher'} is better), not by {runs.metric}"
    why = f"; {column} has no value for some settings of the others" if column else ""
    return (
        "chosen by the same metric that is compared: a little optimistic for what had more settings to choose from"
        + why
    )


def nuisance(runs: Runs) -> Section | LeftOut:
    """Returns which nuisance setting is taken for each setting of the others, of how many, and which lie at an edge.

    Args:
        runs: all of them.
    """
    title = "Nuisance settings"
    science, factors = _split(runs)
    if not factors:
        return LeftOut(title, "no nuisance factor has two levels")
    table = _chosen(runs)
    fewest, most = table["tried"].min(), table["tried"].max()
    tried = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"
    each = " for each setting of the other factors" if science else ""
    text = [f"Of {tried} nuisance settings, the best is taken{each}, {chosen_by(runs)}."]
    numbers = [factor for factor in factors if factor.numeric]
    advice = [line for factor in numbers for line in _advice(table, runs, factor)]
    text += advice or ["What is taken lies at no edge of what was tried."] * bool(numbers)
    if lost := int((_settings(runs)["lost"] > 0).sum()):
        text.append(f"{lost:,} settings have runs without a value: they come after those that have fewer.")
    return Section(title, text, [], [_shown(table, runs)])


def _split(runs: Runs) -> tuple[tuple[Factor, ...], tuple[Factor, ...]]:
    """Returns the other factors, and the nuisance factors."""
    nuisance = tuple(factor for factor in runs.factors if factor.column in runs.mapping.nuisance)
    return tuple(factor for factor in runs.factors if factor not in nuisance), nuisance


def _keys(runs: Runs) -> list[str]:
    """Returns the columns that tell the cases for which a setting is chosen; without other factors there is one."""
    return [factor.key for factor in _split(runs)[0]] or ["all"]


def _selecting(runs: Runs) -> str:
    """Returns the column of the frame that settings are chosen by: the validation value, if there is one per case."""
    if "selected_by" not in runs.frame:
        return "y"
    known = runs.frame.assign(all="").groupby(_keys(runs), observed=True)["selected_by"].count()
    return "selected_by" if known.all() else "y"


def _lower(runs: Runs) -> bool:
    """Returns whether less is better of what settings are chosen by."""
    given = runs.mapping.selected_mode if _selecting(runs) == "selected_by" else None
    return (given or runs.mapping.mode) == "min"


def _settings(runs: Runs) -> pd.DataFrame:
    """Returns one row per setting of all factors: n, lost (runs without a value), value (which chooses), mean."""
    keys = [*_keys(runs), *(exact(runs.frame, factor) for factor in _split(runs)[1])]
    every = pd.concat([runs.frame, runs.missing]).assign(all="")
    every["value"] = every[_selecting(runs)].where(every["y"].notna())
    every["lost"] = every["value"].isna()
    counts = every.groupby(keys, observed=True).agg(n=("y", "count"), lost=("lost", "sum"))
    within = every.groupby([*keys, *(["r"] if "r" in every else [])], observed=True)[["value", "y"]].mean()
    means = within.groupby(keys, observed=True).mean().rename(columns={"y": "mean"})
    return counts.join(means).reset_index()


def _chosen(runs: Runs) -> pd.DataFrame:
    """Returns the setting that is taken per case, how many were tried, and for each number the span that was."""
    keys, settings = _keys(runs), _settings(runs)
    known = settings.dropna(subset=["value"])
    order = known.sort_values(["lost", "value"], ascending=[True, _lower(runs)], kind="stable")
    table = order.groupby(keys, observed=True).head(1).set_index(keys).sort_index()
    cases = settings.groupby(keys, observed=True)
    table["tried"] = cases.size()
    for factor in _split(runs)[1]:
        if factor.numeric:
            column = exact(runs.frame, factor)
            spans = zip(table[column], cases[column].min()[table.index], cases[column].max()[table.index], strict=True)
            searched = runs.mapping.ranges.get(factor.column)
            table[f"{factor.key} edge"] = [_edge(*span, searched) for span in spans]
    return table.reset_index()


def _edge(value: float, low: float, high: float, searched: Range | None) -> str:
    """Returns at which end of what was tried a value lies: lowest, highest, or neither (empty)."""
    place = searched.place(value) if searched else (value - low) / (high - low) if low < high else 0.5
    outer = OUTER if searched else 0
    return "lowest" if place <= outer else "highest" if place >= 1 - outer else ""


def _advice(table: pd.DataFrame, runs: Runs, factor: Factor) -> Iterator[str]:
    """Yields where to try further, one sentence per end of what was tried."""
    science, _ = _split(runs)
    searched = runs.mapping.ranges.get(factor.column)
    for edge, beyond in EDGES.items():
        rows = table[table[f"{factor.key} edge"] == edge]
        if rows.empty:
            continue
        cases = [", ".join(f"{f.label} {row[f.key]}" for f in science) for row in rows.to_dict("records")]
        more = f"; and {len(cases) - LISTED} more" if len(cases) > LISTED else ""
        where = f" for {'; '.join(cases[:LISTED])}{more}" if science else ""
        place = f"in the {edge} tenth of the range {searched}" if searched else f"at the {edge} value tried"
        yield (
            f"{capital(factor.label)}: what is taken lies {place}{where}. There may be better ones beyond: try "
            f"{beyond} values as well, where they make sense."
        )


def _shown(table: pd.DataFrame, runs: Runs) -> Shown:
    """Returns the table of chosen settings, under the names that factors have in the table from elsewhere."""
    table = table.rename(columns={"lost": "no_value", "value": "selected_by"})
    statistics = {"tried": "tried", "n": "runs", "no_value": "no value"}
    if _selecting(runs) != "y":
        statistics["selected_by"] = runs.mapping.columns["selected_by"][0]
    statistics["mean"] = runs.metric
    names, headings = {}, {}
    for factor in runs.factors:
        column = exact(runs.frame, factor)
        names[column] = f"{factor.column} (factor)" if factor.column in statistics else factor.column
        headings[names[column]] = factor.label
        if column != factor.key and (table[column] % 1 == 0).all():
            table[column] = table[column].astype(int)
        if (edge := f"{factor.key} edge") in table:
            names[edge] = f"{factor.column} edge"
            headings[names[edge]] = "edge"
    frame = table[[*names, *statistics]].rename(columns=names)
    headings |= {name: heading for name, heading in statistics.items() if name != "no_value" or frame[name].any()}
    caption = "The nuisance setting that is taken, and at which end of what was tried each number lies."
    return Shown("nuisance", caption, frame, headings)
