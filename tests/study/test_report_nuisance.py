"""Which nuisance setting is taken, by validation or by the metric; what that does to means; edges of what was tried."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from study_tables import save
from test_report import visible

from tlkit.errors import UserError
from tlkit.study.report import report_table, writing
from tlkit.study.report.differences import paired
from tlkit.study.report.mapping import TableMapping
from tlkit.study.report.mapping_file import read_mapping
from tlkit.study.report.nuisance import compared, nuisance
from tlkit.study.report.section import LeftOut, Section
from tlkit.study.report.statistics import summary
from tlkit.study.report.tidy import prepare
from tlkit.study.spec import Range

RATES = TableMapping(
    "accuracy",
    "max",
    {"f": "F", "rate": "learning rate"},
    replicate="seed",
    nuisance=("rate",),
    columns={"selected_by": ("val_loss",)},
    selected_mode="min",
)
DISAGREE = pd.DataFrame(  # test accuracy prefers rate 0.2 for a and 0.1 for b, validation the other ones
    [
        ("a", 0.1, 0, 0.80, 0.5), ("a", 0.1, 1, 0.82, 0.5), ("a", 0.2, 0, 0.90, 0.7), ("a", 0.2, 1, 0.90, 0.7),
        ("b", 0.1, 0, 0.85, 0.9), ("b", 0.1, 1, 0.85, 0.9), ("b", 0.2, 0, 0.83, 0.4), ("b", 0.2, 1, 0.85, 0.4),
    ],
    columns=["f", "rate", "seed", "accuracy", "val_loss"],
)  # fmt: skip


def section(table: pd.DataFrame, mapping: TableMapping) -> tuple[str, pd.DataFrame]:
    made = nuisance(prepare(table, mapping))
    assert isinstance(made, Section)
    return " ".join(made.text), made.tables[0].frame


def means(table: pd.DataFrame, mapping: TableMapping) -> dict[str, float]:
    return summary(compared(prepare(table, mapping)), ["f0"]).set_index("f0")["mean"].to_dict()


def test_validation_chooses_and_the_test_metric_is_compared() -> None:
    assert means(DISAGREE, RATES) == pytest.approx({"a": 0.81, "b": 0.84})
    chosen = compared(prepare(DISAGREE, RATES))
    row = paired(chosen, chosen.factors[0]).iloc[0]
    assert row[["level", "against", "pairs", "verdict"]].tolist() == ["b", "a", 2, "better"]
    assert row[["difference", "low", "high"]].tolist() == pytest.approx([0.03] * 3)
    text, table = section(DISAGREE, RATES)
    assert "Of 2 nuisance settings, the best is taken for each setting of the other factors, chosen by val_loss" in text
    assert "(lower is better), not by accuracy." in text
    assert table[["f", "rate", "tried", "n", "selected_by"]].to_numpy().tolist() == [
        ["a", 0.1, 2, 2, 0.5],
        ["b", 0.2, 2, 2, 0.4],
    ]
    assert table["mean"].tolist() == pytest.approx([0.81, 0.84])


def test_without_validation_the_metric_chooses_and_the_page_says_so() -> None:
    by_metric = replace(RATES, columns={}, selected_mode=None)
    assert means(DISAGREE, by_metric) == pytest.approx({"a": 0.90, "b": 0.85})
    assert "chosen by the same metric that is compared: a little optimistic" in section(DISAGREE, by_metric)[0]
    partly = DISAGREE.assign(val_loss=DISAGREE["val_loss"].where(DISAGREE["f"] == "a"))
    assert means(partly, RATES) == pytest.approx({"a": 0.90, "b": 0.85})
    assert "val_loss has no value for some settings of the others" in section(partly, RATES)[0]
    more_is_better = replace(RATES, selected_mode=None)
    assert means(DISAGREE, more_is_better) == pytest.approx({"a": 0.90, "b": 0.85})


def test_nuisance_factors_are_set_to_their_best_before_others_are_compared() -> None:
    mapping = TableMapping("loss", "min", {"f": "F", "g": "G"}, replicate="seed", nuisance=("g",))
    rows = [(f, g, seed, 10.0 + (f == "b")) for f in "ab" for g in "xy" for seed in range(3)]
    table = pd.DataFrame(rows, columns=["f", "g", "seed", "loss"])
    table.loc[(table["f"] == "b") & (table["g"] == "y"), "loss"] = 9.0  # b is better once g is chosen for it
    runs = prepare(table, mapping)
    chosen = compared(runs)
    assert [factor.column for factor in chosen.factors] == ["f"]
    assert len(chosen.frame) == 6
    assert means(table, mapping) == {"a": 10.0, "b": 9.0}
    assert paired(chosen, chosen.factors[0]).iloc[0]["level"] == "b"
    assert paired(runs, runs.factors[0]).iloc[0]["level"] == "a"
    text, found = section(table, mapping)
    assert "what was tried" not in text and list(found) == ["f", "g", "tried", "n", "no_value", "mean"]


def test_the_mean_of_a_setting_chosen_by_validation_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    names = [f"{number:02}" for number in range(24)]
    table = pd.DataFrame(product(names, names, range(8)), columns=["f", "g", "rate"])  # 576 choices of one in 8
    truth = rng.normal(0, 1, len(table))
    table["accuracy"] = truth + rng.normal(0, 1, len(table))
    table["val"] = truth + rng.normal(0, 1, len(table))
    mapping = TableMapping("accuracy", "max", {c: c for c in ("f", "g", "rate")}, nuisance=("rate",))
    by_validation = compared(prepare(table, replace(mapping, columns={"selected_by": ("val",)}))).frame
    by_metric = compared(prepare(table, mapping)).frame
    assert len(by_validation) == len(by_metric) == 576
    error = {name: (f["y"] - truth[f.index]).mean() for name, f in (("val", by_validation), ("metric", by_metric))}
    # The largest of 8 normal values is expected at 1.4236 standard deviations (here √2), half of it noise.
    assert error["metric"] == pytest.approx(1.4236 / np.sqrt(2), abs=4 / 24)
    assert error["val"] == pytest.approx(0, abs=4 / 24)  # four standard errors: 1 / √576 each
    assert truth[by_validation.index].mean() == pytest.approx(1.4236 / np.sqrt(2), abs=4 / 24)  # and it does choose


def test_settings_under_which_runs_diverge_come_last() -> None:
    table = DISAGREE.assign(accuracy=DISAGREE["accuracy"].astype(object))
    table.loc[(table["f"] == "b") & (table["rate"] == 0.2) & (table["seed"] == 0), "accuracy"] = "nan"
    assert means(table, RATES) == pytest.approx({"a": 0.81, "b": 0.85})
    text, found = section(table, RATES)
    assert "1 settings have runs without a value: they come after those that have fewer." in text
    assert found["rate"].tolist() == [0.1, 0.1]
    table.loc[(table["f"] == "b") & (table["rate"] == 0.1), "accuracy"] = "nan"  # none is left there
    assert means(table, RATES) == pytest.approx({"a": 0.81, "b": 0.85})
    assert section(table, RATES)[1]["rate"].tolist() == [0.1, 0.2]


def rated(best: dict[str, float], rates: list[float], **changes: Any) -> tuple[str, pd.DataFrame]:
    """The accuracy of each level falls with the distance from its best rate, on a log scale."""
    rows = [(f, rate, seed, -abs(np.log(rate / best[f]))) for f in best for rate in rates for seed in range(2)]
    table = pd.DataFrame(rows, columns=["f", "rate", "seed", "accuracy"])
    return section(table, replace(RATES, columns={}, selected_mode=None, **changes))


def test_the_lowest_and_the_highest_value_tried_are_told_per_scientific_level() -> None:
    text, table = rated({"a": 0.5, "b": 0.01, "c": 0.001, "d": 1}, [0.001, 0.01, 0.1])
    assert table["rate edge"].tolist() == ["highest", "", "lowest", "highest"]
    assert "Learning rate: what is taken lies at the lowest value tried for F c. There may be better ones" in text
    assert "try smaller values as well" in text
    assert "lies at the highest value tried for F a; F d. There may be better ones beyond: try larger values" in text
    text, table = rated({"a": 0.01, "b": 0.02}, [0.001, 0.01, 0.1])
    assert set(table["rate edge"]) == {""} and "What is taken lies at no edge of what was tried." in text
    text, _ = rated(dict.fromkeys("abcdef", 1.0), [0.001, 0.1])
    assert "for F a; F b; F c; F d; and 2 more. There" in text


def test_of_a_range_it_is_the_outer_tenth_on_its_own_scale() -> None:
    rates = [0.0012, 0.0016, 0.01, 0.062, 0.064, 0.09]  # a tenth of two decades is a factor of 1.585
    best = dict(zip("abcdef", rates, strict=True))
    searched = {"rate": Range(0.001, 0.1, log=True)}
    text, table = rated(best, rates, ranges=searched)
    assert table["rate edge"].tolist() == ["lowest", "", "", "", "highest", "highest"]
    assert "lies in the highest tenth of the range 0.001 to 0.1 (log) for F e; F f." in text
    linear = rated(best, rates, ranges={"rate": Range(0.001, 0.1)})[1]
    assert linear["rate edge"].tolist() == ["lowest", "lowest", "lowest", "", "", ""]  # below 0.0109, above 0.0901


def searched(points: int) -> pd.DataFrame:
    """Two rates vary together; at the seventh point of a, and at the last of b, validation is best."""
    rng = np.random.default_rng(1)
    rates = pd.DataFrame({"rate": rng.permutation(points) + 1, "decay": rng.uniform(0, 1, points)})
    table = pd.concat([rates.assign(f=f, seed=seed) for f in "ab" for seed in (0, 1)], ignore_index=True)
    at = np.tile(np.arange(points), 4)
    best = np.where(table["f"] == "a", 6, points - 1)
    return table.assign(accuracy=0.01 * at, val_loss=np.abs(at - best) + 0.0)


@pytest.mark.parametrize("points", [12, 40])
def test_many_points_are_cut_into_bins_for_figures_and_chosen_one_by_one(points: int) -> None:
    table = searched(points)
    mapping = replace(RATES, factors=RATES.factors | {"decay": "decay"}, nuisance=("rate", "decay"))
    runs = prepare(table, mapping)
    assert [len(factor.levels) for factor in runs.factors] == [2, 5, 5]
    assert not any("several runs of one replicate" in remark for remark in runs.remarks)
    assert means(table, mapping) == pytest.approx({"a": 0.06, "b": 0.01 * (points - 1)})
    text, found = section(table, mapping)
    assert f"Of {points} nuisance settings" in text
    expected = table.loc[[6, points - 1], ["rate", "decay"]]
    assert found[["rate", "decay"]].to_numpy().tolist() == expected.to_numpy().tolist()


def test_only_nuisance_factors_have_a_best_setting_too() -> None:
    runs = prepare(DISAGREE[DISAGREE["f"] == "b"], RATES)
    made = nuisance(runs)
    assert isinstance(made, Section)
    assert made.text[0].startswith("Of 2 nuisance settings, the best is taken, chosen by val_loss")
    assert made.tables[0].frame["rate"].tolist() == [0.2]
    assert compared(runs) is runs
    assert isinstance(nuisance(prepare(DISAGREE, replace(RATES, nuisance=()))), LeftOut)


def test_a_page_tells_it_and_its_tables_have_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_save", lambda drawn, folder: "data:,")
    mapping = {
        "metric": {"column": "accuracy", "mode": "max"},
        "factors": {"f": "F", "rate": "learning rate", "decay": "decay"},
        "nuisance": ["rate", "decay"],
        "replicate": "seed",
        "columns": {"selected_by": {"column": "val_loss", "mode": "min"}},
    }
    text = visible(report_table(*save(tmp_path, searched(12), mapping), tmp_path / "out", "cmd")[0])
    assert "(learning rate, decay) are at the best setting for each of the others, chosen by val_loss (lower" in text
    assert "Learning rate has 12 different numbers: cut into 5 bins of equal count" in text
    written = pd.read_csv(tmp_path / "out" / "tables" / "nuisance.csv")
    assert list(written) == [
        "f", "rate", "rate edge", "decay", "decay edge", "tried", "n", "no_value", "selected_by", "mean",
    ]  # fmt: skip
    assert written["tried"].tolist() == [12, 12]
    runs = pd.read_csv(tmp_path / "out" / "tables" / "runs.csv")
    assert sorted(runs["rate"].unique()) == list(range(1, 13))
    assert re.search(r"tried runs val_loss accuracy a \d+ ", text)  # whole numbers without decimals


def test_a_mapping_gives_validation_a_mode_of_its_own(tmp_path: Path) -> None:
    def mapping(selected: str) -> TableMapping:
        text = f"metric: {{column: accuracy, mode: max}}\nfactors: [f, rate]\ncolumns:\n  selected_by: {selected}\n"
        (tmp_path / "m.yaml").write_text(text)
        return read_mapping(tmp_path / "m.yaml", list(DISAGREE))

    for text, mode in (("val_loss", None), ("{column: val_loss, mode: min}", "min")):
        read = mapping(text)
        assert (read.columns["selected_by"], read.selected_mode) == (("val_loss",), mode)
    for text in ("{column: val_loss, mode: least}", "{column: val_loss}", "[val_loss]"):
        with pytest.raises(UserError, match=r"line 4  columns.selected_by: expected (a|one) column"):
            mapping(text)
    assert "no column 'val_los'; did you mean 'val_loss'" in mapping("{column: val_los, mode: min}").missing[0]
