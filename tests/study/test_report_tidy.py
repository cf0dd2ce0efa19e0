"""Tables from elsewhere, from the file to runs: what is read, cleaned, merged, cut into bins, and said of it."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlkit.errors import UserError
from tlkit.study.report.answer import by_size
from tlkit.study.report.main_effects import interval_text
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.nuisance import compared
from tlkit.study.report.protocols import over_factors
from tlkit.study.report.statistics import summary
from tlkit.study.report.table_file import read_table
from tlkit.study.report.tidy import Runs, prepare


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


def test_a_part_with_one_replicate_has_no_intervals_where_the_study_has_several() -> None:
    rows = [*product("12", "ab", "xyz", range(3)), *product("3", "ab", "xyz", [0])]
    table = pd.DataFrame(rows, columns=["size", "level", "width", "seed"])
    table["acc"] = (table["level"] == "a") + 0.01 * np.random.default_rng(0).normal(size=len(table))
    roles = {"size": ("size",), "over": ("level",), "panel": ("size",)}
    factors = {"size": "size", "level": "level", "width": "width"}
    runs = prepare(table, TableMapping("acc", "max", factors, replicate="seed", answer="level", columns=roles))
    sizes = by_size(runs)
    assert sizes is not None
    told = sizes.frame.set_index("size")[["verdict", "replicates"]].to_numpy().tolist()
    assert told == [["better", 3], ["better", 3], ["no interval", 1]]
    assert sizes.frame[["mean_low", "mean_high", "low", "high"]].notna().all(axis=1).tolist() == [True, True, False]
    roles |= {"size": ("width",)}
    runs = prepare(table, TableMapping("acc", "max", factors, replicate="seed", columns=roles))
    section = over_factors(runs)
    drawn = section.figures[0].figure.axes  # type: ignore[union-attr]
    assert [[len(bars.get_segments()) for bars in axis.collections] for axis in drawn[:3]] == [
        [2] * 3,
        [2] * 3,
        [0] * 3,
    ]


def test_nuisance_settings_of_one_replicate_are_compared_without_intervals() -> None:
    rows = [*product("ab", ["0.1"], "01"), *product("ab", ["0.2"], "2")]
    table = pd.DataFrame(rows, columns=["level", "lr", "seed"]).assign(acc=lambda t: t["lr"].astype(float))
    runs = prepare(
        table, TableMapping("acc", "max", {"level": "level", "lr": "lr"}, replicate="seed", nuisance=("lr",))
    )
    chosen = compared(runs)
    assert summary(chosen, ["f0"])["low"].isna().all()
    assert interval_text(chosen) == "There is no interval: what is compared has one replicate only (seed)."


def tidied(**columns: list[object]) -> Runs:
    table = pd.DataFrame({"acc": np.arange(len(next(iter(columns.values())))) * 1.0} | columns)
    factors = {name: name for name in columns if name != "seed"}
    return prepare(table, TableMapping("acc", "max", factors, replicate="seed" if "seed" in columns else None))


@pytest.mark.parametrize(
    ("seeds", "kept", "remark"),
    [
        (["0", "1", "nan", " "], ["0", "1"], "2 rows have no seed and are left out"),
        (["0", "0.0", " 1", "1.0"], ["0", "0", "1", "1"], "seed: numbers that are written in several ways"),
        (["a", "nan", "b", "a "], ["a", "nan", "b", "a"], "seed has levels called nan; where that means no value"),
        ([2**60, 2**60 + 1, 5, 6], [str(2**60), str(2**60 + 1), "5", "6"], ""),
        ([0.0, 1.0, None, 0.0], ["0", "1", "0"], "1 rows have no seed and are left out"),
    ],
)
def test_replicates_are_cleaned_as_levels_are(seeds: list[object], kept: list[str], remark: str) -> None:
    runs = tidied(level=list("abab"), seed=seeds)
    assert runs.frame["r"].tolist() == kept
    assert remark in " | ".join(runs.remarks)


def test_a_cell_of_blanks_is_empty() -> None:
    runs = tidied(level=["a", "b", " ", ""])
    assert runs.factors[0].levels == ("a", "b")
    assert "2 rows have no level of some factor and are left out" in runs.remarks


def test_a_factor_that_is_mostly_one_number_is_still_a_factor() -> None:
    runs = tidied(decay=[0.0] * 210 + list(np.linspace(0.001, 0.03, 30)))
    (decay,) = runs.factors
    counts = runs.frame[decay.key].value_counts()[list(decay.levels)].tolist()
    assert (decay.levels[0], counts) == ("0 – 0.006", [216, 6, 6, 6, 6])
    assert (
        "decay has 31 different numbers: cut into 5 bins of equally many numbers, for most runs have the same one"
        in runs.remarks
    )
    runs = tidied(decay=[0.0] * 30 + list(np.linspace(0.001, 0.03, 30)))
    assert "decay has 31 different numbers: cut into 3 bins" in runs.remarks


def test_lists_in_a_column_that_nobody_asks_for_do_not_matter() -> None:
    table = pd.DataFrame({"acc": [1.0, 1.0, 2.0], "level": ["a", "a", "b"]})
    table["history"] = [np.array([1.0, 2.0]), np.array([1.0, 2.0]), np.array([0.0])]
    runs = prepare(table, TableMapping("acc", "max", {"level": "level"}))
    assert "1 rows are exact copies of others; each of them counts" in runs.remarks
