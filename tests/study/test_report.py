"""A whole report: its files, that every number is in a table, what it escapes, what it leaves out and says so."""

import html
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_tables import CLASSIFICATION, COMPUTE, classification, compute, curves, save

from tlkit.errors import UserError
from tlkit.study.commands import COMMANDS, run
from tlkit.study.report import report_table, writing
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.statistics import main_shares
from tlkit.study.report.tidy import prepare

MINIMAL: dict[str, Any] = {
    "metric": {"column": "loss", "mode": "min"},
    "factors": {"f": "F", "g": "G"},
    "replicate": "seed",
}


def little() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(f, g, s) for f in "ab" for g in "xyz" for s in range(3)], columns=["f", "g", "seed"])
    return table.assign(loss=rng.normal(1, 0.1, len(table)) + 0.3 * (table["f"] == "b"))


def visible(page: Path) -> str:
    """Returns the text of a page as one reads it, without its scripts."""
    text = page.read_text(encoding="utf-8")
    body = text[text.index("<body>") : text.index('<script type="application/json"')]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


Make = Callable[..., str]


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws figures but saves none of them, which is most of a report's time."""
    monkeypatch.setattr(writing, "_save", lambda drawn, folder: "data:,")


@pytest.fixture
def make(tmp_path: Path, unsaved: None) -> Make:
    """Makes a report of a table and returns its text."""

    def made(table: pd.DataFrame, mapping: dict[str, Any]) -> str:
        return visible(report_table(*save(tmp_path, table, mapping), tmp_path / "out", "cmd")[0])

    return made


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the classification study."""
    folder = tmp_path_factory.mktemp("classification")
    table = classification()
    paths = save(folder, table, CLASSIFICATION)
    curves(table).to_csv(folder / "curves.csv", index=False)
    run(["report", "--table", str(paths[0]), "--mapping", str(paths[1]), "--out", str(folder / "out")])
    return folder / "out"


def test_every_figure_is_there_as_png_and_pdf_and_in_the_page(classified: Path) -> None:
    names = sorted(path.stem for path in (classified / "figures").glob("*.png"))
    assert names == sorted(path.stem for path in (classified / "figures").glob("*.pdf"))
    assert {"differences", "main_effects", "interactions", "shares", "distributions", "distributions_pair_1"} < set(
        names
    )
    assert {"tail_risk", "protocols", "overfitting", "training_curves", "best_epoch"} < set(names)
    assert {"over_1_layers_transferred", "over_2_initial_decay_epochs"} < set(names)
    page = (classified / "report.html").read_text()
    assert page.count('<img src="data:image/svg+xml;base64,') == len(names)
    assert not re.search(r'<[^>]*(src|href)="(?!data:|#)', page[: page.index('<script type="application/json"')])
    assert "default-src 'none'" in page  # and the browser loads nothing that a script may ask for
    assert sorted(path.name for path in classified.iterdir()) == ["figures", "report.html", "tables"]


def test_effects_csv_holds_the_effects(classified: Path) -> None:
    effects = pd.read_csv(classified / "tables" / "effects.csv")
    columns = "factor label eta_squared level n median mean low high replicates no_value over".split()
    assert list(effects) == columns
    table = classification()
    for factor in ("layers", "decay", "examples", "protocol"):
        expected = table.groupby(factor)["accuracy"].agg(["size", "median", "mean"])
        rows = effects[effects["factor"] == factor].set_index("level")[["n", "median", "mean"]]
        assert rows.sort_index().to_numpy() == pytest.approx(expected.sort_index().to_numpy())
    assert list(effects[effects["factor"] == "examples"]["level"]) == ["10", "25", "50", "100", "250", "all"]


def test_every_number_on_the_page_is_in_a_table(classified: Path) -> None:
    assert unwritten(classified) == set()
    bars = pd.read_csv(classified / "tables" / "best_epoch_histogram.csv")
    assert bars["runs"].sum() == len(classification())


def test_every_number_is_in_a_table_where_nuisance_is_chosen_too(make: Make, tmp_path: Path) -> None:
    make(little(), MINIMAL | {"nuisance": ["g"]})
    assert unwritten(tmp_path / "out", least=30) == set()
    effects = pd.read_csv(tmp_path / "out" / "tables" / "effects.csv").groupby("factor")["over"].unique()
    assert effects.map(list).to_dict() == {"f": ["chosen runs"], "g": ["all runs"]}
    mapping = TableMapping("loss", "min", {"f": "F", "g": "G"}, replicate="seed", nuisance=("g",))
    expected = main_shares(prepare(little(), mapping))
    bars = pd.read_csv(tmp_path / "out" / "tables" / "shares.csv").set_index("factor_a")
    alone = bars[bars["factor_b"].isna()]["eta_squared"]
    assert alone.to_dict() == pytest.approx({"F": expected["f0"], "G": expected["f1"]})


def unwritten(report: Path, least: int = 200) -> set[str]:
    """Returns the numbers on a page that are in none of its tables."""
    text = visible(report / "report.html")
    shown = {word.replace("−", "-").replace(",", "") for word in re.findall(r"−?\b\d[\d,]*\.\d+(?:e-?\d+)?", text)}
    shown.discard("0.1")  # of the version
    known: set[str] = set()
    for path in (report / "tables").glob("*.csv"):
        values = pd.read_csv(path).select_dtypes("number").to_numpy(dtype=float).ravel()
        for value in values[np.isfinite(values) & (values != 0)]:
            for number in (value, 100 * value, abs(value)):  # "0.1 lower" is -0.1
                known |= {f"{number:.{digits}f}" for digits in range(1, 9)} | {
                    f"{number:.3e}",
                    f"{number:.3e}".replace("e-0", "e-"),
                }
    assert len(shown) > least
    return {number for number in shown - known if float(number)}


def test_the_answer_names_level_interval_and_evidence(classified: Path) -> None:
    text = visible(classified / "report.html")
    assert "How many layers to transfer, for which number of examples per class?" in text
    answer = re.search(r"Layers transferred = 7 has the highest mean test accuracy \(%\), [^:]*: [^.]*\.", text)
    assert answer and "95 % interval" in answer[0] and "better in" in answer[0]
    assert "At examples per class 10, 25, 50 another level has the best mean: see the table." in text
    best = pd.read_csv(classified / "tables" / "best_by_size.csv", dtype=str).set_index("size")["best"]
    assert best.to_dict() == {"10": "4", "25": "4", "50": "4", "100": "7", "250": "7", "all": "7"}
    assert "tlkit study report --table" in text
    assert "Always early: fewer epochs would probably do." in text
    assert "Domains: source × target : it needs the roles 'source' and 'target'" in text


def test_overfitting_is_the_difference_of_the_losses(classified: Path) -> None:
    table = pd.read_csv(classified / "tables" / "overfitting.csv").set_index(["layers transferred", "loss"])
    source = classification()
    source["gap"] = source["val_loss"] - source["train_loss"]
    for layers in (4, 5, 6, 7):
        rows = source[source["layers"] == str(layers)]
        assert table.loc[(layers, "difference"), "mean"] == pytest.approx(rows["gap"].mean())
        assert table.loc[(layers, "train loss"), "10"] == pytest.approx(
            rows[rows["examples"] == "10"]["train_loss"].mean()
        )


def test_what_an_epoch_costs_by_freeze_precision_cap_and_batch(make: Make, tmp_path: Path) -> None:
    text = make(compute(), COMPUTE)
    table = pd.read_csv(tmp_path / "out" / "tables" / "compute.csv")
    (row,) = table.query(
        "`frozen part` == 'encoder' and precision == 'AMP' and `power cap` == '200 W' and `batch size` == 16"
    ).to_dict("records")
    assert row["seconds per epoch"] == pytest.approx(5.2, rel=0.02)
    assert row["joules per epoch"] == pytest.approx(5.2 * 195, rel=0.02)
    assert row["peak memory (GiB)"] == pytest.approx((1e9 + 2.4e8 * 16 * 0.6) / 2**30)
    assert row["seconds per epoch low"] < row["seconds per epoch median"] < row["seconds per epoch high"]
    assert row["joules per epoch runs"] == 3
    assert "Seconds and joules: 'seconds' and 'joules' by epochs; mean." in text
    front = pd.read_csv(tmp_path / "out" / "tables" / "pareto.csv")
    assert front["seconds per run"].is_monotonic_decreasing and front["joules"].is_monotonic_increasing


def test_domains_and_forgetting(make: Make, tmp_path: Path) -> None:
    table = little().assign(
        before=lambda t: t["loss"] + 0.5, source_before=1.0, source_after=lambda t: 1.0 + (t["f"] == "b")
    )
    roles = {"source": "f", "target": "g"} | {name: name for name in ("before", "source_before", "source_after")}
    make(table, MINIMAL | {"columns": roles})
    matrix = pd.read_csv(tmp_path / "out" / "tables" / "domains.csv").set_index(["what", "F", "G"])["mean"]
    cells = table.groupby(["f", "g"])["loss"].mean()
    assert matrix["after the transfer", "b", "z"] == pytest.approx(cells["b", "z"])
    assert matrix["before the transfer", "a", "x"] == pytest.approx(cells["a", "x"] + 0.5)
    assert matrix["gain (positive: better)"].tolist() == pytest.approx([0.5] * 6)
    forgotten = pd.read_csv(tmp_path / "out" / "tables" / "forgetting.csv").set_index(["factor", "level"])["mean"]
    assert forgotten.to_dict() == {("f", "a"): 0.0, ("f", "b"): 1.0, ("g", "x"): 0.5, ("g", "y"): 0.5, ("g", "z"): 0.5}


def test_a_parquet_table_and_a_factor_that_is_called_as_a_statistic(tmp_path: Path, unsaved: None) -> None:
    table = little().rename(columns={"f": "mean", "g": "n"})
    _, mapping = save(tmp_path, table, MINIMAL | {"factors": {"mean": "median", "n": "low"}})
    table.to_parquet(tmp_path / "t.parquet")
    report_table(tmp_path / "t.parquet", mapping, tmp_path / "out", "cmd")
    best = pd.read_csv(tmp_path / "out" / "tables" / "configurations.csv")
    assert list(best.columns[:4]) == ["mean (factor)", "n (factor)", "n", "median"]


def test_an_earlier_report_is_replaced_and_other_files_are_not(tmp_path: Path, unsaved: None) -> None:
    table, mapping = save(tmp_path, little(), MINIMAL)
    out = tmp_path / "out"
    out.mkdir()
    report_table(table, mapping, out, "cmd")
    (out / "figures" / "stale.png").write_text("of an earlier mapping")
    (out / "notes.txt").write_text("mine")
    report_table(table, mapping, out, "cmd")
    assert not (out / "figures" / "stale.png").exists()
    assert (out / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match="expected a new or empty directory, or one with an earlier report"):
        report_table(table, mapping, tmp_path, "cmd")
    with pytest.raises(UserError, match="expected a directory for the report, got the file"):
        report_table(table, mapping, table, "cmd")
    assert not list(tmp_path.glob(".*building"))


@pytest.mark.slow
def test_the_same_report_twice_is_the_same_page(tmp_path: Path) -> None:
    table, mapping = save(tmp_path, little(), MINIMAL)
    pages = [report_table(table, mapping, tmp_path / name, "cmd")[0].read_bytes() for name in ("a", "b")]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], f"study: expected one of {', '.join(COMMANDS)}, got none; tlkit study plan FILE is the first"),
        (["reprot"], f"study: expected one of {', '.join(COMMANDS)}, got 'reprot'; did you mean 'report'"),
        (
            ["report", "--table", "t.csv"],
            "expected a study's FILE, or all of --table, --mapping and --out; usage: tlkit study",
        ),
        (["report", "--tabel", "t.csv"], "study report: "),
    ],
)
def test_a_wrong_command_line_is_one_message(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        run(words)
    assert message in str(caught.value)


def test_a_report_loads_neither_torch_nor_lightning(tmp_path: Path) -> None:
    table, mapping = save(tmp_path, little(), MINIMAL)
    code = (
        "import sys; from tlkit.study.commands import COMMANDS, run; run(sys.argv[1:]);"
        "print('loaded', {'torch', 'lightning'} & set(sys.modules))"
    )
    words = ["report", "--table", table, "--mapping", mapping, "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded set()\n")
