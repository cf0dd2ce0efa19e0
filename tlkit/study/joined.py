"""Paths that are varied together, as one factor or one replicate: a column of their own for the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from tlkit.study.spec import Study


def replicate(study: Study) -> str | None:
    """Returns the column of what is repeated; several have one of their own."""
    return ", ".join(study.columns("replicates")) or None


def part_of(study: Study) -> dict[str, str]:
    """Returns column -> factor, of the scientific factors that vary several paths together."""
    zipped = [f.columns for f in study.factors if f.role == "scientific" and not f.per and len(f.columns) > 1]
    return {column: ", ".join(columns) for columns in zipped for column in columns}


def factor_label(factor: str, labels: Mapping[str, Any]) -> str:
    """Returns the name of a factor on axes; several paths are called by their last words, where these differ."""
    columns = factor.split(", ")
    words = [column.rpartition(".")[2] for column in columns]
    names = words if 1 < len(columns) == len(set(words)) else columns
    return ", ".join(str(labels.get(column, name)) for column, name in zip(columns, names, strict=True))


def with_joined(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Adds one column for each factor of several paths, ``(res, 0.1)``, and one for all that is repeated together."""
    for factor in dict.fromkeys(part_of(study).values()):
        frame = frame.assign(**{factor: [f"({', '.join(row)})" for row in _rows(frame, factor.split(", "))]})
    columns, name = study.columns("replicates"), replicate(study)
    if name is None or len(columns) == 1:
        return frame
    short = [column.rpartition(".")[2] for column in columns]
    named = [", ".join(f"{n} {v}" for n, v in zip(short, row, strict=True)) for row in _rows(frame, columns)]
    return frame.assign(**{name: named})


def _rows(frame: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields the values of some columns as text, row by row."""
    texts = [[f"{v:.15g}" if isinstance(v, float) else str(v) for v in frame[column]] for column in columns]
    return zip(*texts, strict=True)


def crossed(frame: pd.DataFrame, study: Study) -> Iterator[str]:
    """Yields what is to be said of replicates where one value of a factor is repeated with several of another."""
    columns = list(study.columns("replicates"))
    if len(columns) > 1 and len(frame[columns].drop_duplicates()) > frame[columns].nunique().max():
        yield (
            f"replicates cross ({' × '.join(columns)}): those that share a value are not independent, so "
            "that intervals are too narrow; zip them in 'replicates', so that each value comes once"
        )
