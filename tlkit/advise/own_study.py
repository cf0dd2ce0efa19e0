"""Advice from the user's own runs: the best level of every factor at the size that is nearest to the one asked for."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tlkit.advise.arguments import Question
from tlkit.advise.text import columns, paragraph
from tlkit.errors import UserError
from tlkit.study.expression import select
from tlkit.study.plan import plan_study
from tlkit.study.report.differences import best_two
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.mapping_file import read_mapping
from tlkit.study.report.nuisance import chosen_by, compared
from tlkit.study.report.section import capital, number
from tlkit.study.report.statistics import configurations, of_setting
from tlkit.study.report.table_file import read_table
from tlkit.study.report.tidy import Factor, Runs, exact, prepare
from tlkit.study.study_report import finished

NO_SIZE = "No column has the role `size`, so there is no number of examples to go by."


def advice(question: Question) -> tuple[list[str], str | None]:
    """Returns the recommendation, and for a study the experiment of its best setting as YAML.

    Raises:
        UserError: what is wrong with the study, the table or the mapping; there is nothing in it to compare.
    """
    name, table, mapping = _runs(question)
    rows, near, where = _nearest(table, mapping, question.examples)
    runs = prepare(table[rows], near)
    chosen = compared(runs)
    free = _free(chosen, mapping)
    if not free.factors:
        raise UserError(f"{name}: expected a factor with two levels {where}, got none: there is nothing to compare")
    best = configurations(free).iloc[0]
    same = of_setting(free, best)
    given = [factor for factor in chosen.factors if factor not in free.factors]
    nuisance = [factor for factor in runs.factors if factor not in chosen.factors]
    lines = [
        paragraph(f"{name}{f': {mapping.goal}' if mapping.goal else ''}"),
        "",
        paragraph(
            f"{capital(where)}: {_count(runs.frame)}{_replicates(runs)}; {runs.metric},",
            f"{'less' if runs.lower else 'more'} is better.",
            "" if mapping.columns.get("size") else NO_SIZE,
        ),
        "",
        columns(_rows(chosen, free)),
        "",
        paragraph(f"Best setting: {_best(runs, nuisance, given, same)}: {_interval(best)}, {_count(same)}."),
        "",
        *_caveats(runs, chosen),
    ]
    if not question.study:
        return lines, None
    target = _setting(runs, given, same.iloc[0])
    return lines, _experiment(question, table.loc[same.index[0]], f"{target}, {where}" if target else where)


def _runs(question: Question) -> tuple[str, pd.DataFrame, TableMapping]:
    """Returns a name, the user's runs, and what their columns mean."""
    if question.study:
        planned = plan_study(question.study, question.runs)
        return planned.study.name, *finished(planned)
    assert question.table and question.mapping
    table = read_table(question.table)
    return question.table.stem, table, read_mapping(question.mapping, list(table))


def _nearest(table: pd.DataFrame, mapping: TableMapping, examples: int) -> tuple[pd.Series, TableMapping, str]:
    """Returns the rows of the size that is nearest in ratio, the mapping without the size, and which size it is."""
    rows = select(table, mapping.where) if mapping.where else pd.Series(True, index=table.index)
    selected = {role: names for role, names in mapping.columns.items() if role == "selected_by"}
    without = replace(mapping, where=None, columns=selected)  # the other roles serve figures
    column = next(iter(mapping.columns.get("size", ())), None)
    if column is None:
        return rows, without, "over all runs"
    if not examples:
        raise UserError(
            f"--examples-per-class: expected a whole number from 1 up, for {column} has the role `size`, got nothing"
        )
    sizes = pd.to_numeric(table[column], errors="coerce").astype(float)
    metric = pd.to_numeric(table[mapping.metric], errors="coerce").astype(float)
    known = sorted(sizes[rows & np.isfinite(metric) & (sizes > 0)].unique())
    if not known:
        raise UserError(
            f"{column}: expected numbers, for it has the role `size`, got none in a run that has {mapping.metric}"
        )
    nearest = min(known, key=lambda size: abs(math.log(size / examples)))
    factors = {name: label for name, label in mapping.factors.items() if name != column}
    without = replace(without, factors=factors)
    label = mapping.factors.get(column, column)
    of = f", the nearest to {examples} of {', '.join(f'{size:g}' for size in known)}" if nearest != examples else ""
    return rows & (sizes == nearest), without, f"at {label} {nearest:g}{of}"


def _free(runs: Runs, mapping: TableMapping) -> Runs:
    """Returns the runs without the factors that nobody can choose: the domain that is transferred to."""
    given = [runs.factor(column) for column in mapping.columns.get("target", ())]
    return runs.with_frame(runs.frame, tuple(factor for factor in runs.factors if factor not in given))


def _rows(runs: Runs, free: Runs) -> list[tuple[str, ...]]:
    """Returns the best level of each factor that is free beside the next best one, with a heading."""
    rows: list[tuple[str, ...]] = [
        ("", "best", "mean, 95 % interval", "next best", "difference, 95 % interval", "better?")
    ]
    for factor in free.factors:
        first, second, pairs = best_two(runs, factor)
        pair = pairs.loc[str(second[factor.key])]
        difference = _interval(pair.rename({"difference": "mean"})) if pair["pairs"] else "—"
        levels = str(first[factor.key]), _interval(first), str(second[factor.key])
        rows.append((factor.label, *levels, difference, VERDICTS.get(pair["verdict"], pair["verdict"])))
    return rows


VERDICTS = {"better": "yes", "worse": "no: worse where matched"}


def _interval(row: pd.Series) -> str:
    """Returns a mean with its interval, if it has one."""
    text = number(row["mean"])
    return text if math.isnan(row["low"]) else f"{text} ({number(row['low'])} to {number(row['high'])})"


def _best(runs: Runs, nuisance: Sequence[Factor], given: Sequence[Factor], same: pd.DataFrame) -> str:
    """Returns the best setting with that of nuisance factors, of which each target may have its own.

    Args:
        runs: all of them.
        nuisance: factors of nuisance.
        given: factors that nobody can choose.
        same: the runs at the best setting of all other factors.
    """
    free, first = [factor for factor in runs.factors if factor not in given], same.iloc[0]
    if all(same[exact(same, factor)].nunique() == 1 for factor in nuisance):
        return _setting(runs, free, first)
    each = [row for _, row in same.drop_duplicates([factor.key for factor in given]).iterrows()]
    own = "; ".join(f"{_setting(runs, nuisance, row)} at {_setting(runs, given, row)}" for row in each)
    return f"{_setting(runs, [factor for factor in free if factor not in nuisance], first)}, with {own}"


def _setting(runs: Runs, factors: Sequence[Factor], row: pd.Series) -> str:
    """Returns the level of factors in a run."""
    return ", ".join(f"{factor.label} {_level(runs, factor, row)}" for factor in factors)


def _level(runs: Runs, factor: Factor, row: pd.Series) -> Any:
    value = row[exact(runs.frame, factor)]
    return f"{value:g}" if isinstance(value, float) else value


def _replicates(runs: Runs) -> str:
    return f", {runs.frame['r'].nunique()} replicates" if runs.replicated else ""


def _caveats(runs: Runs, chosen: Runs) -> list[str]:
    over = "over the means of the replicates" if runs.replicated else "over runs"
    said = [
        f"Intervals are Student's t {over}; differences are between runs of equal replicate and equal levels of all "
        f"other factors; inconclusive: the interval holds 0. The best was chosen by {runs.metric} itself, so its value "
        "is optimistic: runs that had no part in the choice, of other seeds or splits, show what it is worth. Nothing "
        "is said of what was not varied."
    ]
    if len(chosen.factors) > 1:
        said.append("Each row is an average over the levels of the other factors.")
    if len(chosen.factors) < len(runs.factors):
        said.append(f"Nuisance factors are at the best setting for each of the others, {chosen_by(runs)}.")
    return [paragraph(*said), *(["", paragraph(f"Notes: {'; '.join(runs.remarks)}.")] if runs.remarks else [])]


def _count(frame: pd.DataFrame) -> str:
    return f"{len(frame)} run{'s' * (len(frame) > 1)}"


def _experiment(question: Question, row: pd.Series, where: str) -> str:
    """Returns the configuration of a run, as it stands in its directory."""
    config = yaml.safe_load((Path(row["run"]) / "config.yaml").read_text(encoding="utf-8"))
    config = {key: value for key, value in config.items() if key not in ("name", "runs")}
    again = (
        f"tlkit fit --config {shlex.quote(str(question.write))} --seed_everything {1000 + config['seed_everything']}"
    )
    header = (
        f"# Is the best setting of {question.study}, {where}, as good again?\n#\n#   {again}\n#\n"
        f"# With its own seed it is {row['run']} again, all defaults filled in. Metric: that of the study's runs.\n"
    )
    return header + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
