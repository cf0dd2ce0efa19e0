"""Factors × levels × replicates: the combinations of a study, and what each sets in the experiment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from tlkit.errors import UserError
from tlkit.study.spec import Factor, Level, Study, label


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        labels: column -> level, as in the table.
        overrides: path -> value.
    """

    labels: dict[str, Any]
    overrides: dict[str, Any]


def cells(study: Study) -> list[Cell]:
    """Returns all combinations that the study's ``where`` keeps, the replicates of one beside each other.

    Raises:
        UserError: ``where`` is no condition on the columns, or keeps nothing.
    """
    free = [factor.levels for factor in study.factors if not factor.per]
    decided = [factor for factor in study.factors if factor.per]
    found = []
    for levels in product(*free):
        chosen = list(levels)
        labels = {column: value for level in chosen for column, value in level.labels.items()}
        for factor in decided:
            chosen += [
                level for level in factor.levels if level.when == tuple(label(labels[column]) for column in factor.per)
            ]
        found.append(
            Cell(
                {column: value for level in chosen for column, value in level.labels.items()},
                {path: value for level in chosen for path, value in level.overrides.items()},
            )
        )
    return _kept(study, found) if study.where else found


def without(cells: list[Cell], study: Study) -> list[Cell]:
    """Returns combinations of a study's own factors alone, each once, of those of a study that has more."""
    columns = set(study.all_columns)
    paths = {path for factor in study.factors for level in factor.levels for path in level.nodes}
    found = {}
    for cell in cells:
        labels = {column: value for column, value in cell.labels.items() if column in columns}
        found[repr(labels)] = Cell(labels, {path: v for path, v in cell.overrides.items() if path in paths})
    return list(found.values())


def sound(study: Study, cells: list[Cell], faulty: list[Level]) -> tuple[Study, list[Cell]]:
    """Returns what is left of a study and its combinations without some levels.

    A factor that has no others is left out: what it sets is then as in the base.
    """
    levels = [(factor, tuple(level for level in factor.levels if level not in faulty)) for factor in study.factors]
    left = replace(study, factors=tuple(replace(factor, levels=some) for factor, some in levels if some))
    within = [level for factor, some in levels if some for level in factor.levels if level in faulty]
    return left, without([cell for cell in cells if not any(has(cell, level) for level in within)], left)


def with_context(study: Study, cells: list[Cell], like: Cell) -> Iterator[tuple[Factor, Level, Cell]]:
    """Yields each level that occurs with the combination that has it and is most like another."""

    def likeness(cell: Cell) -> int:
        return sum(cell.labels.get(column) == value for column, value in like.labels.items())

    for factor in study.factors:
        for level in factor.levels:
            shared = (cell for cell in cells if has(cell, level))
            if (cell := max(shared, key=likeness, default=None)) is not None:
                yield factor, level, cell


def has(cell: Cell, level: Level) -> bool:
    """Tells whether a combination has a level."""
    return all(cell.labels.get(column) == value for column, value in level.labels.items())


def _kept(study: Study, found: list[Cell]) -> list[Cell]:
    import pandas as pd

    from tlkit.study.expression import select

    columns = {column: [shown(cell.labels.get(column)) for cell in found] for column in found[0].labels}
    try:
        rows = select(pd.DataFrame(columns, dtype="object"), study.where)
    except UserError as error:
        raise UserError(f"where: {error}") from error
    kept = [cell for cell, keep in zip(found, rows, strict=True) if keep]
    if not kept:
        raise UserError(f"where: expected a condition that some combination fulfils, got {study.where}")
    return kept


def shown(value: Any) -> Any:
    """Returns a level as it stands in a table: numbers as they are, everything else as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else label(value)
