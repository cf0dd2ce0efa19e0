"""The report of a study whose factors set several paths together: each is one factor everywhere."""

# ruff: noqa: F811

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from test_report import unsaved, visible  # noqa: F401  the fixture applies here too

from tlkit.advise import own_study
from tlkit.advise.arguments import Question
from tlkit.study import study_report
from tlkit.study.spec_file import read_study

NETWORKS = [["vgg", 0.01, 10], ["res", 0.1, 20]]
ZIPPED = "model.network.name, model.optimizer.lr, trainer.max_epochs"


def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: pd.DataFrame, **changes: Any) -> Any:
    """Returns a study that has been carried out, with the table given."""
    study = {
        "name": "s", "goal": "Which network, each at its rate?", "base": "base.yaml",
        "replicates": {"seed_everything": [0, 1, 2]}, "metric": {"name": "test/accuracy", "mode": "max"},
    }  # fmt: skip
    (tmp_path / "base.yaml").write_text("data: {class_path: Some}\n")
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(study | changes, sort_keys=False))
    read, faults = read_study(tmp_path / "s.yaml")
    assert read and not faults
    run = {
        "stage": "transfer", "status": "done", "selected_by": "train/loss", "selected_mode": "min",
        "best_value": 0.1, "best_epoch_fraction": 1.0, "run": str(tmp_path),
    }  # fmt: skip
    rows = table.assign(**run, id=[f"{place:064}" for place in range(len(table))])
    monkeypatch.setattr(study_report, "study_table", lambda planned: rows)
    return SimpleNamespace(study=read)


def networks() -> pd.DataFrame:
    """Two networks, each at its rate and length, on 10 and 100 images, with three seeds; res is better by 0.1."""
    rows = [(*network, size, seed) for network in NETWORKS for size in (10, 100) for seed in range(3)]
    names = [*ZIPPED.split(", "), "data.train_images", "seed_everything"]
    table = pd.DataFrame(rows, columns=names).astype({"trainer.max_epochs": "Int64"})
    noise = np.random.default_rng(0).normal(0, 0.001, len(table))
    res = table["model.network.name"] == "res"
    return table.assign(**{"test/accuracy": 0.5 + 0.1 * res + 0.001 * table["data.train_images"] + noise})


SCIENTIFIC: dict[str, Any] = {ZIPPED: NETWORKS, "data.train_images": [10, 100]}


def report(tmp_path: Path, study: Any) -> tuple[str, Path]:
    page, _ = study_report.report_study(study, tmp_path / "out", "cmd")
    return visible(page), tmp_path / "out" / "tables"


def test_paths_that_vary_together_are_one_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsaved: None
) -> None:
    asked = {"answer": "model.optimizer.lr", "labels": {"trainer.max_epochs": "epochs"}}
    study = planned(tmp_path, monkeypatch, networks(), scientific=SCIENTIFIC, report=asked)
    text, tables = report(tmp_path, study)
    assert "Name, lr, epochs = (res, 0.1, 20) has the highest mean test/accuracy" in text
    assert re.search(
        r"next best, \(vgg, 0.01, 10\), it is 0.09986 higher in .*; better in 100\s% of 6 pairs\): better than", text
    )
    assert "unbalanced" not in text and "Shares left out" not in text
    effects = pd.read_csv(tables / "effects.csv").set_index("factor")
    assert effects.loc[ZIPPED, "level"].tolist() == ["(vgg, 0.01, 10)", "(res, 0.1, 20)"]
    assert effects["eta_squared"].notna().all() and effects.loc[ZIPPED, "no_value"].tolist() == [0, 0]
    sizes = pd.read_csv(tables / "best_by_size.csv")
    assert sizes[["size", "best"]].to_numpy().tolist() == [[10, "(res, 0.1, 20)"], [100, "(res, 0.1, 20)"]]
    assert {"model.network.name", "model.optimizer.lr"} <= set(study_report.finished(study)[0])  # each of its own too


def test_advice_has_them_as_one_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = planned(tmp_path, monkeypatch, networks(), scientific=SCIENTIFIC)
    monkeypatch.setattr(own_study, "plan_study", lambda path, root: study)
    (tmp_path / "config.yaml").write_text("seed_everything: 3\n")
    lines, config = own_study.advice(Question(examples=20, study=tmp_path / "s.yaml", runs=tmp_path))
    text = " ".join(" ".join(lines).split())
    assert "name, lr, max_epochs (res, 0.1, 20) 0.61" in text
    assert "Best setting: name, lr, max_epochs (res, 0.1, 20): 0.61" in text
    assert config and "data.train_images 10" in config


def test_a_size_that_varies_with_something_else_is_still_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsaved: None
) -> None:
    together = "data.train_images, trainer.max_epochs"
    table = networks().assign(**{"trainer.max_epochs": lambda t: 1000 // t["data.train_images"]})
    scientific = {together: [[10, 100], [100, 10]], "model.network.name": ["vgg", "res"]}
    study = planned(tmp_path, monkeypatch, table, scientific=scientific)
    text, tables = report(tmp_path, study)
    assert "Best model.network.name by train_images, max_epochs." in text
    assert pd.read_csv(tables / "best_by_size.csv")["size"].tolist() == ["(10, 100)", "(100, 10)"]
    monkeypatch.setattr(own_study, "plan_study", lambda path, root: study)
    (tmp_path / "config.yaml").write_text("seed_everything: 3\n")
    lines, _ = own_study.advice(Question(examples=80, study=tmp_path / "s.yaml", runs=tmp_path))
    assert "At data.train_images 100, the nearest to 80 of 10, 100:" in " ".join(lines)
    assert "Best setting: model.network.name res:" in " ".join(" ".join(lines).split())


def test_an_experiment_of_advice_says_which_target_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = networks().rename(columns={"data.train_images": "data.defocus"})
    scientific = {ZIPPED: NETWORKS, "data.defocus": [10, 100]}
    study = planned(tmp_path, monkeypatch, table, scientific=scientific)
    monkeypatch.setattr(own_study, "plan_study", lambda path, root: study)
    (tmp_path / "config.yaml").write_text("seed_everything: 3\n")
    lines, config = own_study.advice(Question(examples=20, study=tmp_path / "s.yaml", runs=tmp_path))
    assert "Best setting: name, lr, max_epochs (res, 0.1, 20): 0.65" in " ".join(" ".join(lines).split())
    assert config and f"# Is the best setting of {tmp_path / 's.yaml'}, data.defocus 10, over all runs" in config


@pytest.mark.parametrize("zipped", [True, False])
def test_domains_as_pairs_or_by_names_are_no_mistake(
    zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unsaved: None
) -> None:
    source, target = "pretrain.with.data.defocus", "data.defocus"
    table = networks().rename(columns={"data.train_images": target})
    table[source] = table[target] * 2 if zipped else np.where(table[target] == 10, "near", "far")
    domains = {f"{source}, {target}": [[20, 10], [200, 100]]} if zipped else {source: ["near", "far"]}
    scientific = {"model.network.name": ["vgg", "res"], **domains}
    study = planned(tmp_path, monkeypatch, table, scientific=scientific)
    text, tables = report(tmp_path, study)
    assert "it needs the roles 'source' and 'target', two factors" in text
    assert "Model.network.name" not in text and "model.network.name = res has the highest mean" in text
    levels = pd.read_csv(tables / "effects.csv").set_index("label")["level"]
    shown = (
        {"pretrain.with.data.defocus, data.defocus": ["(20, 10)", "(200, 100)"]}
        if zipped
        else {source: ["near", "far"]}
    )
    assert {label: sorted(levels[label]) for label in shown} == {k: sorted(v) for k, v in shown.items()}
