"""What `tlkit advise` says of the user's own runs, against numbers worked out by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import Write
from scipy import stats

from tlkit.cli import main
from tlkit.commands import load_experiment

MAPPING: dict[str, Any] = {
    "metric": {"column": "accuracy", "mode": "max", "label": "test accuracy"},
    "factors": {"layers": "layers transferred", "rate": "learning rate", "examples": "examples per class"},
    "replicate": "seed",
    "columns": {"size": "examples"},
}


def runs() -> pd.DataFrame:
    """Returns layers × rate × size × 4 seeds: 5 layers are best of 10 examples, 7 of 100, rates hardly differ."""
    rng = np.random.default_rng(0)
    rows = [
        (layers, rate, size, seed)
        for layers in (5, 7)
        for rate in ("1e-3", "1e-2")
        for size in (10, 100)
        for seed in range(4)
    ]
    table = pd.DataFrame(rows, columns=["layers", "rate", "examples", "seed"])
    better = (table["layers"] == 5) == (table["examples"] == 10)
    return table.assign(accuracy=0.6 + 0.1 * better + 0.01 * table["seed"] + rng.normal(0, 0.01, len(table)))


def saved(folder: Path, table: pd.DataFrame, **mapping: Any) -> list[str]:
    table.to_csv(folder / "runs.csv", index=False)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(MAPPING | mapping))
    return ["--table", str(folder / "runs.csv"), "--mapping", str(folder / "mapping.yaml")]


def said(capsys: pytest.CaptureFixture[str], examples: int, *words: str) -> str:
    assert main(["advise", "--examples-per-class", str(examples), *words]) == 0
    return capsys.readouterr().out


def row(text: str, name: str) -> list[str]:
    """Returns the cells beside a name: best, mean with interval, next best, difference with interval, verdict."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"  {name}  ")]
    return re.split(r"\s{2,}", line.strip())[1:]


def interval(values: pd.Series) -> str:
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return f"{values.mean():#.4g} ({low:#.4g} to {high:#.4g})".replace("-", "−")


def test_the_best_level_of_each_factor_at_the_nearest_size_with_its_intervals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = runs()
    text = said(capsys, 20, *saved(tmp_path, table))
    assert "At examples per class 10, the nearest to 20 of 10, 100: 16 runs, 4 replicates" in text
    assert "chosen by test accuracy itself, so its value is optimistic: runs that had no part" in " ".join(text.split())
    small = table[table["examples"] == 10]
    means = small.groupby(["layers", "seed"])["accuracy"].mean().unstack(0)
    assert row(text, "layers transferred") == ["5", interval(means[5]), "7", interval(means[5] - means[7]), "yes"]
    by_rate = small.groupby(["rate", "seed"])["accuracy"].mean().unstack(0)
    first, second = sorted(by_rate, key=lambda rate: -by_rate[rate].mean())
    difference = interval(by_rate[first] - by_rate[second])
    assert row(text, "learning rate") == [first, interval(by_rate[first]), second, difference, "inconclusive"]
    cells = small.groupby(["layers", "rate"])["accuracy"].mean()
    best = small.set_index(["layers", "rate"]).loc[cells.idxmax()]["accuracy"]
    layers, rate = cells.idxmax()
    assert f"Best setting: layers transferred {layers}, learning rate {rate}: {interval(best)}, 4 runs." in text


def test_near_is_meant_as_a_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = saved(tmp_path, runs())
    assert "the nearest to 40 of" in (text := said(capsys, 40, *words))  # 100 / 40 < 40 / 10, though 60 > 30
    assert row(text, "layers transferred")[0] == "7"
    assert "At examples per class 100: 16 runs" in said(capsys, 100, *words)


def test_less_is_better_where_the_mapping_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, 10, *saved(tmp_path, runs(), metric={"column": "accuracy", "mode": "min"}))
    assert row(text, "layers transferred")[0] == "7" and "less is better" in text


def test_nuisance_factors_are_set_as_well_as_possible_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = runs()
    text = said(capsys, 10, *saved(tmp_path, table, nuisance=["rate"]))
    small = table[(table["examples"] == 10) & (table["layers"] == 5)]
    rate = small.groupby("rate")["accuracy"].mean().idxmax()
    best = small[small["rate"] == rate]["accuracy"].reset_index(drop=True)
    assert row(text, "layers transferred")[1] == interval(best)
    assert f"Best setting: layers transferred 5, learning rate {float(rate):g}:" in text
    assert "\n  learning rate  " not in text and "Nuisance factors are at the best setting" in " ".join(text.split())


def test_nobody_chooses_the_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, 10, *saved(tmp_path, runs(), columns={"size": "examples", "target": "rate"}))
    assert "learning rate" not in text and "Best setting: layers transferred 5: " in text
    assert ", 8 runs." in text  # both targets


def test_each_target_has_its_own_nuisance_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    best = {("5", "near"): "1e-3", ("5", "far"): "1e-2", ("7", "near"): "1e-3", ("7", "far"): "1e-3"}
    rows = [(*case, rate, seed) for case in best for rate in ("1e-3", "1e-2") for seed in range(2)]
    table = pd.DataFrame(rows, columns=["layers", "target", "rate", "seed"])
    right = [best[layers, target] == rate for layers, target, rate, _ in rows]
    table["accuracy"] = 0.5 + 0.2 * np.array(right) - 0.1 * (table["layers"] == "7") + 0.01 * table["seed"]
    factors = {"layers": "layers", "target": "target", "rate": "learning rate"}
    words = saved(tmp_path, table, factors=factors, nuisance=["rate"], columns={"target": "target"})
    text = " ".join(said(capsys, 10, *words).split())
    assert (
        "Best setting: layers 5, with learning rate 0.001 at target near; learning rate 0.01 at target far: 0.7050"
    ) in text


def test_equal_levels_are_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pd.DataFrame({"layers": [4, 4, 5, 5, 6, 6, 7, 7], "seed": [0, 1] * 4})
    table["accuracy"] = (table["layers"] > 5).astype(float)
    text = said(capsys, 10, *saved(tmp_path, table, factors={"layers": "layers"}, columns={}))
    assert row(text, "layers")[:3] == ["6", "1.000 (1.000 to 1.000)", "7"]
    assert "Best setting: layers 6: 1.000" in text


def test_without_sizes_or_replicates_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, 10, *saved(tmp_path, runs(), columns={}, replicate=None), "--similar", "yes")
    flat = " ".join(text.split())
    assert "Over all runs: 32 runs; test accuracy, more is better. No column has the role `size`, so" in flat
    assert "intervals are over runs and do not reflect replication" in flat
    assert "note: --similar: not used here" in flat


def test_the_number_of_examples_is_asked_for_only_where_there_are_sizes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["advise", *saved(tmp_path, runs(), columns={})]) == 0
    assert main(["advise", *saved(tmp_path, runs())]) == 2
    said = capsys.readouterr().err
    assert "--examples-per-class: expected a whole number from 1 up, for examples has the role `size`" in said


def test_sizes_that_are_no_numbers_or_are_left_out_are_not_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = runs().astype({"examples": str}).replace({"examples": {"100": "all"}})
    assert "At examples per class 10, the nearest to 900 of 10:" in said(capsys, 900, *saved(tmp_path, table))
    assert "At examples per class 100, the nearest to 10 of 100:" in said(
        capsys, 10, *saved(tmp_path, runs(), where="examples > 10")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": "all"}, "examples: expected numbers, for it has the role `size`"),
        ({"layers": 5, "rate": "1e-3"}, "expected a factor with two levels at examples per class 10, got none"),
        (
            {"accuracy": ""},
            "examples: expected numbers, for it has the role `size`, got none in a run that has accuracy",
        ),
    ],
)
def test_a_table_without_an_answer_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = saved(tmp_path, runs().assign(**change))
    assert main(["advise", "--examples-per-class", "10", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_setting_of_a_study_is_written_as_it_was_run(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = {
        "name": "mine",
        "goal": "Which rate?",
        "base": str(write(**{"trainer.max_epochs": 1, "pretrain.layers": 0})),
        "scientific": {"model.optimizer.lr": [1e-9, 0.05]},
        "replicates": {"seed_everything": [0, 1]},
        "metric": {"name": "train/loss", "mode": "min"},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "run", "mine.yaml", "--engine", "inline"]) == 0
    capsys.readouterr()
    assert main(["advise", "--study", "mine.yaml", "--write", "best.yaml"]) == 0
    text = capsys.readouterr().out
    assert Path("best.yaml").read_text().startswith("# Is the best setting of mine.yaml, over all runs, as good again?")
    table = pd.read_csv(tmp_path / "runs" / "mine" / "table.csv")
    best = table.groupby("model.optimizer.lr")["train/loss"].mean().idxmin()
    assert float(row(text, "model.optimizer.lr")[0]) == best and "Which rate?" in text
    assert re.search(r"tlkit fit --config best.yaml --seed_everything 100\d$", text, re.M)  # else the same run again
    config = load_experiment(["--config", "best.yaml"])
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == best
    assert (config["name"], config["trainer"]["max_epochs"]) == ("best", 1)
