"""Factors × levels × replicates: the combinations of a study, and what each sets in the experiment."""

from dataclasses import dataclass
from itertools import product
from typing import Any

from tlkit.errors import UserError
from tlkit.study.spec import Study, label


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
