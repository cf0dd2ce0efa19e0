"""Tables from elsewhere with holes and strange names: the report says what it left out."""

# ruff: noqa: F811

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from study_tables import save
from test_report import MINIMAL, Make, little, make, unsaved, visible  # noqa: F401  the fixtures apply here too

from tlkit.errors import UserError
from tlkit.study.commands import run
from tlkit.study.report import training
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.tidy import prepare


def test_runs_without_a_value_are_counted_per_level(make: Make, tmp_path: Path) -> None:
    table = little().astype({"loss": object})
    table.loc[[0, 1], "loss"] = "nan"
    table.loc[17, "loss"] = "inf"
    text = make(table, MINIMAL)
    assert "3 of 18 runs have no finite loss and are left out of every figure" in text
    assert "The table is unbalanced: 3 of 18 pairs" in text
    lost = pd.read_csv(tmp_path / "out" / "tables" / "effects.csv").set_index("level")["no_value"]
    assert lost.to_dict() == {"a": 2, "b": 1, "x": 2, "y": 0, "z": 1}
    runs = pd.read_csv(tmp_path / "out" / "tables" / "runs.csv")
    assert runs[["f", "g", "seed"]].equals(table[["f", "g", "seed"]])
    assert list(runs.index[runs["loss"].isna()]) == [0, 1, 17]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("57,96", "expected numbers in column 'loss', got text in 2 of 18 cells, as '57,96'; write 57.96"),
        ("57.19 %", "got text in 2 of 18 cells, as '57.19 %'; write the number alone, or leave the cell empty"),
    ],
)
def test_text_in_place_of_a_number_is_refused(make: Make, cell: str, message: str) -> None:
    table = little().astype({"loss": object})
    table.loc[[0, 1], "loss"] = cell
    with pytest.raises(UserError, match=re.escape(message)):
        make(table, MINIMAL)


def test_words_in_place_of_a_number_are_named_and_counted(make: Make) -> None:
    table = little().astype({"loss": object})
    table.loc[[0, 1, 2, 3], "loss"] = ["FAILED", "nan", "", "-inf"]
    text = make(table, MINIMAL)
    assert "1 of 18 cells of loss are words (FAILED): these runs have no value" in text
    assert "4 of 18 runs have no finite loss" in text
    with pytest.raises(UserError, match="got none that is finite, but 'FAILED', 'nan'"):
        make(little().assign(loss=["FAILED", "nan"] * 9), MINIMAL)


def test_without_replicates_it_says_that_intervals_do_not_reflect_them(make: Make) -> None:
    text = make(little(), MINIMAL | {"replicate": None})
    assert "There is no replicate column: intervals are over runs and do not reflect replication." in text
    assert "Intervals are Student's t over runs: they do not reflect replication." in text
    assert "There is one replicate only (1): intervals do not reflect replication." in make(
        little().query("seed == 1"), MINIMAL
    )


def test_one_level_no_variance_and_nothing_to_compare(make: Make) -> None:
    text = make(little().query("f == 'a'"), MINIMAL)
    assert "F has one level only (a): it is fixed, not a factor." in text
    assert "Fixed, so nothing is known beyond these values: F: a " in text
    assert "Interactions : there are fewer than two factors with two levels." in text
    text = make(little().query("f == 'a'"), MINIMAL | {"answer": "f"})
    assert "F does not vary here, so nothing can be said of it. G = " in text
    text = make(little().assign(loss=1.0), MINIMAL)
    assert "Loss is 1.000 in every run: no level is the better one." in text
    assert "The metric has the same value in every run: there is no variance to share." in text
    assert "Distributions : the metric has the same value in every run." in text
    text = make(little().query("f == 'a' and g == 'x'"), MINIMAL)
    assert "No factor has two levels, so nothing can be compared; median loss: " in text
    assert "Main effects : no factor has two levels." in text


def test_missing_columns_are_said_on_the_page_and_on_the_command_line(
    tmp_path: Path, capsys: Any, unsaved: None
) -> None:
    mapping = MINIMAL | {"factors": {"f": "F", "gg": "G"}, "columns": {"seconds": "secs"}}
    table, path = save(tmp_path, little(), mapping)
    run(["report", "--table", str(table), "--mapping", str(path), "--out", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert "note: factors: the table has no column 'gg'; did you mean 'g'? it has f, g, seed, loss\n" in out
    assert "note: columns.seconds: the table has no column 'secs'" in out
    assert out.endswith(f"report: {tmp_path / 'out' / 'report.html'}\n")
    assert "Factors: the table has no column 'gg'" in visible(tmp_path / "out" / "report.html")


def test_the_report_may_lie_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsaved: None) -> None:
    table, path = save(tmp_path, little(), MINIMAL)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(["report", "--table", str(table), "--mapping", str(path), "--out", "."])
    assert sorted(p.name for p in Path().iterdir()) == ["figures", "report.html", "tables"]
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_is_logged_at_fewer_epochs_is_drawn_from_one_to_the_next() -> None:
    table = pd.DataFrame({"rate": ["1", "2"], "y": [1.0, 2.0], "run": ["a", "b"]})
    mapping = TableMapping("y", "min", {"rate": "rate"}, columns={"run": ("run",)})
    logged = pd.DataFrame({"run": list("aaaabb"), "epoch": [0, 1, 2, 3, 1, 3], "value": 1.0})
    section: Any = training.training_curves(prepare(table, mapping), logged)
    (lines,) = section.figures[0].figure.axes[0].collections
    assert [path.vertices.tolist() for path in lines.get_paths()][1] == [[1, 1], [3, 1]]


def test_curves_that_cannot_be_read_are_left_out(make: Make, tmp_path: Path) -> None:
    (tmp_path / "curves.csv").write_text("run,step,value\na,1,2\n")
    text = make(little().assign(run="a"), MINIMAL | {"curves": "curves.csv", "columns": {"run": "run"}})
    assert "Curves left out: " in text and "expected the columns run, epoch, value, got run, step, value" in text
    assert "Training curves : it needs 'curves'" in text


def test_words_that_mean_no_value_elsewhere_are_levels_and_named(make: Make) -> None:
    table = little()
    table.loc[0, "f"] = "NaN"
    assert "F has levels called NaN; where that means no value, leave the cell empty." in make(table, MINIMAL)


def test_names_are_shown_as_they_are_written(make: Make, tmp_path: Path) -> None:
    evil = "</script><script>document.title='hacked'</script>"
    table = little().rename(columns={"f": evil, "loss": "lo$s_{x"})
    table["g"] = table["g"].map({"x": evil, "y": "_y\"'&", "z": "$\\frac"})
    metric = {"column": "lo$s_{x", "mode": "min", "label": evil}
    mapping = {"goal": evil, "metric": metric, "factors": {evil: evil, "g": "</style>_G"}, "replicate": "seed"}
    text = make(table, mapping | {"fixed": {evil: evil}})
    assert text.count(evil) > 10
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>document.title" not in page
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert data["factors"][0]["label"] == evil
    assert data["factors"][1]["levels"] == [evil, "_y\"'&", "$\\frac"]
    assert evil in set(pd.read_csv(tmp_path / "out" / "tables" / "effects.csv")["level"])
