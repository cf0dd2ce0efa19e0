"""The column that runs are compared by: numbers, no value, or text that somebody meant as a number."""

import numpy as np
import pandas as pd

from tlkit.errors import UserError
from tlkit.study.report.levels import NO_VALUES

COMMA = r"[+-]?\d+,\d+"
SHOWN = 40  # characters of a cell


def metric_values(column: pd.Series, name: str, remarks: list[str]) -> pd.Series:
    """Returns a metric as floats, NaN where it is not finite.

    Args:
        column: one cell per run.
        name: of the column.
        remarks: added to, where cells are words, such as FAILED.

    Raises:
        UserError: a cell is text with a digit in it, such as ``57,96``.
    """
    values = pd.to_numeric(column.replace("", None), errors="coerce").astype(float)
    cells = column.astype("object").map(lambda cell: cell.strip() if isinstance(cell, str) else "")
    text = cells[values.isna() & ~cells.str.lower().isin(("", "none", *NO_VALUES))]
    faulty = text[text.str.contains(r"\d")]
    if len(faulty):
        one, comma = faulty.iloc[0], faulty.str.fullmatch(COMMA).all()
        remedy = f"write {one.replace(',', '.')}" if comma else "write the number alone, or leave the cell empty"
        raise UserError(
            f"expected numbers in column '{name}', got text in {len(faulty):,} of {len(column):,} cells, as "
            f"'{one[:SHOWN]}'; {remedy}"
        )
    if len(text):
        words = ", ".join(word[:SHOWN] for word in text.unique()[:3])
        remarks.append(
            f"{len(text):,} of {len(column):,} cells of {name} are words ({words}): these runs have no value"
        )
    return values.replace([np.inf, -np.inf], np.nan)
