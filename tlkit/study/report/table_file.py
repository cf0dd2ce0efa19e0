"""Tables as they come: CSV or Parquet."""

import csv
from pathlib import Path

import pandas as pd

from tlkit.errors import UserError

CURVES = ("run", "epoch", "value")
SIGNS = {";": "semicolons", "\t": "tabs"}


def read_table(path: Path) -> pd.DataFrame:
    """Reads a CSV (all cells as text) or a Parquet file.

    Raises:
        UserError: it cannot be read, is empty, has a column twice, no commas, or rows with more cells than columns.
    """
    try:
        if path.suffix in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
            if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
                frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
        else:
            with path.open(newline="", encoding="utf-8") as file:
                header = next(csv.reader(file), [])
            twice = {name for name in header if header.count(name) > 1}
            if len(header) == 1 and (found := next((name for sign, name in SIGNS.items() if sign in header[0]), "")):
                raise UserError(
                    f"{path}: expected cells separated by commas, got {found} in the header; save it with commas "
                    "between cells and points in decimals"
                )
            if twice:
                raise UserError(f"{path}: expected each column once, got twice: {', '.join(sorted(twice))}")
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=True)
            if not isinstance(frame.index, pd.RangeIndex):  # pandas takes the first columns for an index
                names, cells = len(frame.columns), len(frame.columns) + frame.index.nlevels
                raise UserError(
                    f"{path}: expected as many cells in a row as in the header, {names}, got {cells}; remove the comma "
                    "that ends each row, or name every column"
                )
    except UnicodeDecodeError as error:
        raise UserError(f"expected a table as CSV or Parquet, got {path}: {error}; save it as UTF-8") from error
    except (OSError, ValueError, pd.errors.ParserError) as error:  # pyarrow's and pandas' errors are ValueErrors
        raise UserError(f"expected a table as CSV or Parquet, got {path}: {error}") from error
    frame.columns = frame.columns.map(str)
    if frame.empty:
        raise UserError(f"{path}: expected a header and at least one row, got {len(frame)} rows")
    return frame


def read_curves(path: Path) -> pd.DataFrame:
    """Reads training curves: columns run, epoch and value.

    Raises:
        UserError: it cannot be read, or a column is missing or holds no numbers.
    """
    curves = read_table(path)
    absent = [name for name in CURVES if name not in curves]
    if absent:
        raise UserError(f"{path}: expected the columns {', '.join(CURVES)}, got {', '.join(curves)}")
    for name in ("epoch", "value"):
        curves[name] = pd.to_numeric(curves[name], errors="coerce")
    return curves[list(CURVES)]
