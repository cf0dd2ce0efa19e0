"""Tables from elsewhere, from the file to runs: what is read, cleaned, merged, cut into bins, and said of it."""

from pathlib import Path

import pandas as pd
import pytest

from tlkit.errors import UserError
from tlkit.study.report.table_file import read_table


@pytest.mark.parametrize("rows", ["1,2,\n3,4,\n", "1,2,\n3,4\n", "r1,1,2\nr2,3,4\n"])
def test_a_row_with_more_cells_than_the_header_is_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n{rows}")
    with pytest.raises(UserError, match="t.csv: expected as many cells in a row as in the header, 2, got 3; remove"):
        read_table(tmp_path / "t.csv")


def test_a_header_and_rows_that_all_end_in_a_comma_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b,\n1,2,\n\n3,4,\n")
    assert read_table(tmp_path / "t.csv")[["a", "b"]].to_numpy().tolist() == [["1", "2"], ["3", "4"]]


@pytest.mark.parametrize(
    ("index", "columns"),
    [
        (pd.Index([0, 0]), ["a"]),
        (pd.Index(["r1", "r2"], name="run"), ["run", "a"]),
        (pd.RangeIndex(2, name="run"), ["run", "a"]),
        (pd.MultiIndex.from_tuples([("x", 1), ("x", 2)], names=["run", "seed"]), ["run", "seed", "a"]),
    ],
)
def test_an_index_of_a_parquet_file_is_a_column_if_it_has_a_name(
    tmp_path: Path, index: pd.Index, columns: list[str]
) -> None:
    pd.DataFrame({"a": [1.0, 2.0]}, index=index).to_parquet(tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (list(table), list(table.index), table.index.name) == (columns, [0, 1], None)
