"""A table from elsewhere as runs: factors with ordered levels, one number to compare, and what had to be left out."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np
import pandas as pd

from tlkit.errors import UserError
from tlkit.study.expression import as_numbers, select
from tlkit.study.report.balance import balance_remarks, hole_remarks
from tlkit.study.report.levels import as_levels, as_replicates
from tlkit.study.report.mapping import FACTOR_ROLES, NUMBER_ROLES, TableMapping
from tlkit.study.report.metric_column import SHOWN, metric_values

MOST_LEVELS = 24  # more cannot be told apart in a figure
FEW_LEVELS = 8  # of a nuisance factor, which figures show beside what the question is about


@dataclass(frozen=True)
class Factor:
    """What was varied.

    Attributes:
        key: its column in `Runs.frame`; never a name from the table.
        column: its column in the table.
        label: its name on axes, with its unit.
        levels: in order, as text.
        numeric: whether all levels are numbers, which orders them.
    """

    key: str
    column: str
    label: str
    levels: tuple[str, ...]
    numeric: bool

    @property
    def ordered(self) -> bool:
        """Returns whether levels are a scale: numbers, with at most one word after two or more of them ("all")."""
        words = int(pd.to_numeric(pd.Series(self.levels), errors="coerce").isna().sum())
        return self.numeric or (words == 1 and len(self.levels) > 2)


@dataclass(frozen=True)
class Runs:
    """Runs to be compared.

    Attributes:
        frame: one row per run with a finite metric: ``y`` (the metric), ``r`` (replicate as text, if there is one), a
            categorical per factor under its key, the numbers of a nuisance factor beside it (see `exact`), and the
            columns of numeric roles under the role's name.
        missing: the same columns for the runs without a finite metric.
        factors: those with two levels or more.
        mapping: what the table was read with.
        fixed: name -> value of what did not vary.
        remarks: what was left out or changed on the way, one sentence each.
        replicated: whether intervals are over replicates: the study has two or more, though a part of it may have one.
    """

    frame: pd.DataFrame
    missing: pd.DataFrame
    factors: tuple[Factor, ...]
    mapping: TableMapping
    fixed: dict[str, str]
    remarks: tuple[str, ...]
    replicated: bool

    @property
    def metric(self) -> str:
        """Returns the metric's name on axes."""
        return self.mapping.metric_label or self.mapping.metric

    @property
    def lower(self) -> bool:
        """Returns whether less of the metric is better."""
        return self.mapping.mode == "min"

    def factor(self, column: str | None) -> Factor | None:
        """Returns the factor of a column, or that it is a part of; None if there is none, or it was left out."""
        whole = self.mapping.part_of.get(column or "", column)
        return next((factor for factor in self.factors if factor.column == whole), None)

    def role(self, name: str) -> Factor | None:
        """Returns the factor that plays a role; None if none does."""
        columns = self.mapping.columns.get(name, ())
        return self.factor(columns[0]) if columns else None

    def roles(self, name: str) -> list[Factor]:
        """Returns all factors that play a role, each once."""
        found = dict.fromkeys(self.factor(column) for column in self.mapping.columns.get(name, ()))
        return [factor for factor in found if factor]

    def with_frame(self, frame: pd.DataFrame, factors: tuple[Factor, ...] | None = None) -> "Runs":
        """Returns the same study with fewer rows or factors."""
        return replace(self, frame=frame, factors=self.factors if factors is None else factors)


def prepare(table: pd.DataFrame, mapping: TableMapping) -> Runs:
    """Returns the runs that a report is about.

    Rows without a finite metric or without a level of some factor are set apart, factors with one level are fixed,
    numeric factors with very many levels (of nuisance: more than a handful) are cut into five bins.

    Args:
        table: one row per run.
        mapping: what its columns mean.

    Raises:
        UserError: ``where`` is wrong or leaves nothing; no row has a finite metric, or one has text for a number.
    """
    remarks = list(mapping.missing)
    table = _kept(table, mapping, remarks)
    frame = pd.DataFrame({"y": metric_values(table[mapping.metric], mapping.metric, remarks)})
    most = {column: FEW_LEVELS if column in mapping.nuisance else MOST_LEVELS for column in mapping.factors}
    levels = {c: as_levels(table[c], label, remarks, most[c]) for c, label in mapping.factors.items()}
    varied = [column for column, (text, _) in levels.items() if text.notna().any()]
    unknown = pd.DataFrame({column: levels[column][0].isna() for column in varied}, index=table.index).any(axis=1)
    if unknown.any():
        remarks.append(f"{unknown.sum():,} rows have no level of some factor and are left out")
    _others(table, mapping, frame, remarks)
    if "r" in frame and (without := frame["r"].isna() & ~unknown).any():
        remarks.append(f"{without.sum():,} rows have no {mapping.replicate} and are left out")
        unknown |= without
    factors, fixed = _factors(levels, mapping, frame, frame["y"].notna() & ~unknown, remarks)
    for factor in factors:
        if factor.numeric and factor.column in mapping.nuisance:
            frame[f"{factor.key}_exact"] = as_numbers(table[factor.column])
    frame = frame[~unknown]
    missing = frame[frame["y"].isna()]
    if len(missing):
        remarks.append(
            f"{len(missing):,} of {len(frame):,} runs have no finite {mapping.metric} and are left out of every "
            "figure; if they diverged, levels with many of them look better than they are: see the column 'no value'"
        )
    frame = frame.dropna(subset=["y"])
    if frame.empty:
        found = ", ".join(repr(str(cell)[:SHOWN]) for cell in table[mapping.metric].unique()[:3])
        raise UserError(f"expected numbers in column '{mapping.metric}', got none that is finite, but {found}")
    remarks += _doubts(table, frame, factors, mapping)
    replicated = "r" in frame and frame["r"].nunique() > 1
    return Runs(frame, missing, tuple(factors), mapping, mapping.fixed | fixed, tuple(remarks), replicated)


def _kept(table: pd.DataFrame, mapping: TableMapping, remarks: list[str]) -> pd.DataFrame:
    """Returns the rows that ``where`` keeps; all without it."""
    if not mapping.where:
        return table
    rows = select(table, mapping.where)
    if not rows.any():
        raise UserError(f"expected `where` to keep some rows, got none: {mapping.where}")
    remarks.append(f"where: {mapping.where}; it keeps {rows.sum():,} of {len(table):,} rows")
    return table[rows]


def _doubts(table: pd.DataFrame, frame: pd.DataFrame, factors: list[Factor], mapping: TableMapping) -> list[str]:
    """Returns which runs lack what, are there twice or not at all, one sentence each."""
    said = hole_remarks(frame, set(NUMBER_ROLES) - {"selected_by"})  # of that, `nuisance` speaks
    if copies := int(table.astype(str).duplicated().sum()):  # a cell of Parquet may be a list, which has no hash
        said.append(f"{copies:,} rows are exact copies of others; each of them counts")
    crossed = [factor for factor in factors if factor.column not in mapping.nuisance]
    combinations = prod(len(factor.levels) for factor in crossed)
    keys = [exact(frame, factor) for factor in factors]
    return said + balance_remarks(frame, keys, [factor.key for factor in crossed], combinations)


def exact(frame: pd.DataFrame, factor: Factor) -> str:
    """Returns the column of a frame that has a factor's levels before they were cut into bins."""
    return name if (name := f"{factor.key}_exact") in frame else factor.key


def _factors(
    levels: dict[str, tuple[pd.Series, bool]],
    mapping: TableMapping,
    frame: pd.DataFrame,
    counted: pd.Series,
    remarks: list[str],
) -> tuple[list[Factor], dict[str, str]]:
    """Adds a categorical per factor to a frame.

    Args:
        levels: column -> its levels per row, and whether they are numbers.
        mapping: for the labels.
        frame: one row per run.
        counted: which of them have a metric and a level of every factor.
        remarks: added to.

    Returns:
        The factors with two levels or more, and label -> level of the others.
    """
    factors, fixed = [], {}
    for number, (column, (text, numeric)) in enumerate(levels.items()):
        label, present = mapping.factors[column], set(text[counted].dropna())
        seen = tuple(level for level in text.cat.categories if level in present)
        lost = [level for level in text.cat.categories if level not in present]
        if len(seen) < 2:
            fixed[label] = seen[0] if seen else "no value"
            if lost:
                count = text.isin(lost).sum()
                all_ = f"all {count:,} runs" if count > 1 else "the only run"
                remarks.append(
                    f"{label}: {all_} at {', '.join(lost)} failed or had no value; only {fixed[label]} is left"
                )
            else:
                remarks.append(f"{label} has one level only ({fixed[label]}): it is fixed, not a factor")
        elif len(seen) > MOST_LEVELS:
            remarks.append(f"{label} has {len(seen)} levels that are no numbers: too many to compare; left out")
        else:
            if lost:
                remarks.append(f"{label} {', '.join(lost)}: left out, no run of it can be counted")
            factors.append(Factor(f"f{number}", column, label, seen, numeric))
            frame[f"f{number}"] = text.cat.set_categories(seen)
    return factors, fixed


def _others(table: pd.DataFrame, mapping: TableMapping, frame: pd.DataFrame, remarks: list[str]) -> None:
    """Adds the replicate, the run's name and the columns of numeric roles to a frame."""
    if mapping.replicate:
        frame["r"] = as_replicates(table[mapping.replicate], mapping.replicate, remarks)
        if frame["r"].isna().all():
            remarks.append(f"replicate: '{mapping.replicate}' holds nothing; left out")
            del frame["r"]
    for role, columns in mapping.columns.items():
        if role in FACTOR_ROLES:
            continue
        if role not in NUMBER_ROLES:
            frame[role] = table[columns[0]].astype(str)
            continue
        numbers = as_numbers(table[columns[0]])
        finite = None if numbers is None else numbers.replace([np.inf, -np.inf], np.nan)
        if finite is None or finite.isna().all():
            remarks.append(f"columns.{role}: '{columns[0]}' holds nothing finite, or more than numbers; left out")
        else:
            frame[role] = finite
