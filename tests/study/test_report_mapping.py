"""What a mapping and a table may hold, and what is said of what they may not."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tlkit.errors import UserError
from tlkit.study.expression import select
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.mapping_file import read_mapping
from tlkit.study.report.table_file import read_table
from tlkit.study.report.tidy import prepare

COLUMNS = ["loss", "rate", "part", "seed", "val loss", "data.size"]


def mapping(tmp_path: Path, text: str) -> TableMapping:
    (tmp_path / "m.yaml").write_text(text)
    return read_mapping(tmp_path / "m.yaml", COLUMNS)


def refusal(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        mapping(tmp_path, text)
    return str(caught.value).splitlines()


MINIMAL = "metric: {column: loss, mode: min}\nfactors: {rate: learning rate, part: frozen part}\n"


def test_a_mapping_names_metric_factors_and_roles(tmp_path: Path) -> None:
    read = mapping(
        tmp_path, MINIMAL + "replicate: null\ncolumns: {over: [part], size: rate, epochs: seed}\ncurves: c.csv\n"
    )
    assert (read.metric, read.mode, read.replicate) == ("loss", "min", None)
    assert read.factors == {"rate": "learning rate", "part": "frozen part"}
    assert read.columns == {"over": ("part",), "size": ("rate",), "epochs": ("seed",)}
    assert read.curves == tmp_path / "c.csv"
    assert mapping(tmp_path, "metric: {column: loss, mode: max}\nfactors: [rate]").factors == {"rate": "rate"}
    assert mapping(tmp_path, "metric: {column: loss, mode: max, label: }\nfactors: [rate]").metric_label == ""


def test_all_faults_of_a_mapping_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "metric: {column: los, mode: least, unit: nm}\n"
        "factors: {rate: learning rate}\n"
        "replicat: seed\n"
        "replicate: 3\n"
        "threshold: high\n"
        "nuisance: [ratio]\n"
        "pairs: [[rate]]\n"
        "columns:\n"
        "  secnods: loss\n"
        "  size: rat\n"
        "  seconds: [loss, seed]\n"
        "fixed: 3\n"
    )
    lines = refusal(tmp_path, text)
    assert lines[0].endswith("m.yaml: 12 faults")
    assert refusal(tmp_path, "metric: {column: rate, mode: min}\nfactors: [rate, part]\nreplicate: part")[1:] == [
        "  line 1  metric: expected a column that is no factor, got 'rate'",
        "  line 3  replicate: expected a column that is no factor, got 'part'",
    ]
    for line in (
        "  line 1  metric.column: the table has no column 'los'; did you mean 'loss'? it has loss, rate,",
        "  line 1  metric.mode: expected min or max, got 'least'",
        "  line 1  metric.unit: unknown key; valid: column, mode, label",
        "  line 3  replicat: unknown key; did you mean 'replicate'? valid: metric, factors,",
        "  line 4  replicate: expected a text, got 3",
        "  line 5  threshold: expected a number, got 'high'",
        "  line 6  nuisance: expected a factor, got 'ratio'; did you mean 'rate'? factors: rate",
        "  line 7  pairs: expected a list of pairs of factors, got ['rate']",
        "  line 9  columns.secnods: unknown role; did you mean 'seconds'? valid: size, over,",
        "  line 10  columns.size: expected a factor, got 'rat'; did you mean 'rate'? factors: rate",
        "  line 11  columns.seconds: expected one column, got ['loss', 'seed']",
        "  line 12  fixed: expected a mapping of name: value, got 3",
    ):
        assert any(found.startswith(line) for found in lines), line


def test_what_a_report_cannot_do_without_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "") == [
        f"{tmp_path / 'm.yaml'}: 2 faults",
        "  line 1  factors: missing; expected column: label",
        "  line 1  metric: missing; expected column and mode",
    ]
    assert "none is a column of the table" in refusal(tmp_path, "metric: {column: loss, mode: min}\nfactors: [a, b]")[1]
    assert "not YAML" in refusal(tmp_path, "metric: {")[1]
    assert "expected a mapping with metric" in refusal(tmp_path, "- a")[1]
    assert len(refusal(tmp_path, "a,b\n" * 1000)[1]) < 300  # the table in place of the mapping
    with pytest.raises(UserError, match="expected a mapping in YAML, got .*nothing.yaml"):
        read_mapping(tmp_path / "nothing.yaml", COLUMNS)


def test_columns_that_the_table_does_not_have_are_left_out_and_named(tmp_path: Path) -> None:
    text = "metric: {column: loss, mode: min}\nfactors: {rate: rate, parts: part}\nreplicate: seeds\n"
    read = mapping(tmp_path, text + "columns: {seconds: secs, size: parts}\nanswer: parts\n")
    assert (list(read.factors), read.replicate, read.columns, read.answer) == (["rate"], None, {}, None)
    assert [text.partition(";")[0] for text in read.missing] == [
        "factors: the table has no column 'parts'",
        "replicate: the table has no column 'seeds'",
        "columns.seconds: the table has no column 'secs'",
    ]


TABLE = pd.DataFrame(
    {
        "loss": ["1", "2", "nan", "4"],
        "rate": ["1e-3", "0.001", "1e-4", "10"],
        "part": ["a", "a", "b", ""],
        "seed": list("0101"),
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("rate == 0.001", [0, 1]),
        ('part == "a" and not seed == 0', [1]),
        ("part in ['a', 'b'] or rate > 1", [0, 1, 2, 3]),
        ("0.0001 <= rate < 1", [0, 1, 2]),
        ("seed + 1 > 1.5", [1, 3]),
        ("part not in ('a',)", [2, 3]),
        ("`val loss` % 2 == 0", [0, 2]),
        ("data.size > -1 and data.size != 2", [0, 1, 3]),
        ("pretrain.with.data.size != data.size", [1, 2]),
        ("part == 'pretrain.with.x' or rate > 1", [3]),
    ],
)
def test_where_keeps_rows(expression: str, rows: list[int]) -> None:
    table = TABLE.assign(**{"val loss": [0, 1, 2, 3], "data.size": [0, 1, 2, 3]})
    table["pretrain.with.data.size"] = [0, 2, 1, 3]
    assert list(table.index[select(table, expression)]) == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("rat > 1", "expected a column, got 'rat'; did you mean 'rate'?"),
        ("val/loss > 1", "got 'val'; put it in backticks: `val/loss`; valid: "),
        ("part == a", "expected a column, got 'a'; a text is quoted: 'a'; valid: "),
        ("rate = 1", "got 'rate = 1'; equal is =="),
        ("part > 1", "expected two numbers or two texts, got 'part' against 1, one is text"),
        ('rate in ["a"]', "one is text"),
        ("rate", "expected a condition on the columns"),
        ("rate >", "expected an expression of comparisons"),
        ("rate.__class__ == 1", "expected a column, got 'rate.__class__'"),
        ("__import__('os').system('false') == 0", "expected comparisons"),
        ("[x for x in rate] == 1", "expected comparisons"),
        ("-part > 1", "expected a number to calculate with, got 'part'"),
        ("part + 1 > 2", "expected a number to calculate with, got 'part'"),
        ('rate + "a" == 1', "expected a number to calculate with, got ''a''"),
        ("rate + (rate > 0) > 1", "expected a number to calculate with, got 'rate > 0'"),
        ("rate > 1 / 0", "expected something to calculate, got division by zero"),
        ("part in [part]", "expected `column in [values]`, got 'part in [part]'"),
        ("rate in [[1]]", "expected `column in [values]`"),
        ("rate == [1]", "expected comparisons"),
    ],
)
def test_where_says_what_is_wrong_and_runs_nothing(expression: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        select(TABLE.assign(**{"val/loss": 1}), expression)
    assert message in str(caught.value)


def prepared(table: pd.DataFrame, **changes: object) -> tuple[list[tuple[str, ...]], str]:
    runs = prepare(table, TableMapping("loss", "min", {"rate": "rate", "part": "part"}, replicate="seed", **changes))  # type: ignore[arg-type]
    return [factor.levels for factor in runs.factors], " | ".join(runs.remarks)


def test_rows_without_a_metric_or_a_level_are_left_out_and_said() -> None:
    levels, said = prepared(TABLE)
    assert levels == []  # two rows are left, of the same rate and part
    assert "1 rows have no level of some factor and are left out" in said
    assert "1 of 3 runs have no finite loss and are left out" in said
    assert "rate: all 2 runs at 1e-4, 10 failed or had no value; only 1e-3 is left" in said
    assert "part: the only run at b failed or had no value; only a is left" in said
    assert "one level only" not in said


def test_levels_that_look_like_numbers_are_ordered_as_numbers() -> None:
    table = pd.DataFrame(
        {"loss": range(6), "rate": ["10", "9", "1e-3", "0.001", "2", "2"], "part": ["all", "25", "10", "all", "9", "9"]}
    )
    levels, said = prepared(table.assign(seed="0"))
    assert levels == [("1e-3", "2", "9", "10"), ("9", "10", "25", "all")]
    assert "rate: numbers that are written in several ways" in said
    assert "there is one replicate only (0)" in said
    booleans = pd.DataFrame({"loss": [1.0, 2.0], "rate": [True, False], "part": [64, 512], "seed": [0, 1]})
    assert prepared(booleans)[0] == [("True", "False"), ("64", "512")]


def test_very_many_levels_are_binned_or_left_out() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"loss": rng.normal(size=100), "rate": rng.uniform(size=100), "seed": 0})
    levels, said = prepared(table.assign(part=[f"p{number}" for number in range(100)]))
    edges = np.quantile(table["rate"], [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert levels == [tuple(f"{low:.3g} – {high:.3g}" for low, high in pairwise(edges))]
    assert "cut into 5 bins of equal count" in said
    assert "part has 100 levels that are no numbers: too many to compare; left out" in said


def test_missing_replicates_and_imbalance_are_said() -> None:
    full = pd.DataFrame(
        [(r, p, s, 1.0 + s) for r in (1, 2) for p in "ab" for s in (0, 1)], columns=["rate", "part", "seed", "loss"]
    )
    assert prepared(full)[1] == ""
    assert "1 of 8 pairs of configuration and replicate have no value" in prepared(full.drop(index=3))[1]
    twice = prepared(pd.concat([full, full.head(2)]))[1]
    assert "2 pairs of configuration and replicate have several runs" in twice
    assert "2 rows are exact copies of others; each of them counts" in twice
    holes = prepared(full[(full["rate"] == 1) | (full["part"] == "a")])[1]
    assert holes.startswith("the table is unbalanced: 1 of 4 combinations of levels have no run; means per level")
    unknown = prepared(full.assign(seed=[None, *full["seed"][1:]]))[1]
    assert unknown.startswith("1 rows have no seed and are left out | the table is unbalanced: 1 of 8 pairs")
    assert "replicate: 'seed' holds nothing; left out" in prepared(full.assign(seed=None))[1]
    runs = prepare(full, TableMapping("loss", "min", {"rate": "rate"}))
    assert "intervals are over runs and do not reflect replication" in runs.remarks[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "expected a table as CSV or Parquet"),
        ("empty.csv", b"", "expected a table as CSV or Parquet"),
        ("header.csv", b"a,b\n", "expected a header and at least one row"),
        ("twice.csv", b"a,b,a\n1,2,3\n", "expected each column once, got twice: a"),
        ("semi.csv", b"a;b\n1;2,5\n", "expected cells separated by commas, got semicolons in the header; save it"),
        ("tabs.csv", b"a\tb\n1\t2\n", "expected cells separated by commas, got tabs in the header; save it"),
        ("latin.csv", "a,b\nfür,1\n".encode("latin-1"), "latin.csv: 'utf-8' codec .*; save it as UTF-8"),
        ("latin_header.csv", "ä,b\n1,1\n".encode("latin-1"), "save it as UTF-8"),
        ("binary.csv", b"\xff\xfe\x00\x01", "expected a table as CSV or Parquet"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3,4\n", "expected a table as CSV or Parquet"),
        ("text.parquet", b"a,b\n1,2\n", "expected a table as CSV or Parquet"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / name)


def test_no_finite_metric_or_no_row_is_refused() -> None:
    with pytest.raises(UserError, match="expected numbers in column 'loss', got none that is finite"):
        prepared(TABLE.assign(loss="inf"))
    with pytest.raises(UserError, match="expected `where` to keep some rows, got none: rate > 100"):
        prepared(TABLE, where="rate > 100")


def test_the_word_none_is_a_level(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("loss,rate,part,seed\n1,None,NA,0\n2,1,b,1\n")
    levels, _ = prepared(read_table(tmp_path / "t.csv"))
    assert levels == [("1", "None"), ("NA", "b")]
