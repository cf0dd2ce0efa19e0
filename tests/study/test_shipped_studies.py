"""The studies that come with tlkit: what their headers say, their published settings, and their committed results."""

import re
from pathlib import Path

import pandas as pd
import pytest

from tlkit.advise.table2 import DECAY, EXAMPLES, FREEZE, TRANSFER
from tlkit.cli import main
from tlkit.study.cells import cells
from tlkit.study.report.mapping_file import read_mapping
from tlkit.study.report.statistics import effects
from tlkit.study.report.table_file import read_table
from tlkit.study.report.tidy import prepare
from tlkit.study.spec import Study
from tlkit.study.spec_file import read_study

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
RESULTS = sorted(path.parent for path in STUDIES.glob("results/*/mapping.yaml"))
STAGES = {path.stem: re.search(r"^# ([\d,]+) stages", path.read_text(), re.M) for path in STUDIES.glob("*.yaml")}
EFFECTS = ["factor", "eta_squared", "level", "n", "median", "mean", "low", "high", "replicates"]
SETTINGS = ("pretrain.layers", "callbacks.InitialDecay.epochs", "callbacks.LayerFreezing.layers")


def study(name: str) -> Study:
    found, faults = read_study(STUDIES / f"{name}.yaml")
    assert found and not faults
    return found


@pytest.mark.parametrize("name", sorted(name for name, stages in STAGES.items() if stages))
def test_the_number_of_stages_in_the_header_is_that_of_the_study(name: str) -> None:
    found = study(name)
    transfers = [cell.labels for cell in cells(found)]
    of_pretrains = {*found.columns("replicates"), *(c for c in transfers[0] if c.startswith("pretrain.with."))}
    pretrains = {tuple(labels[column] for column in sorted(of_pretrains)) for labels in transfers}
    stated = STAGES[name]
    assert stated and int(stated[1].replace(",", "")) == len(transfers) + len(pretrains)


@pytest.mark.parametrize(("name", "sizes", "epochs"), [("alexnet_3_6", 7, 90), ("alexnet_3_6_small", 3, 40)])
def test_best_common_and_none_are_the_published_settings(name: str, sizes: int, epochs: int) -> None:
    found = {
        (labels["protocol"], labels["data.examples_per_class"]): tuple(labels[path] for path in SETTINGS)
        for labels in (cell.labels for cell in cells(study(name)))
    }
    published = list(zip(TRANSFER, DECAY, FREEZE, strict=True))  # tests/test_advise.py has them as printed
    for size, best in list(zip((*EXAMPLES[:-1], None), published, strict=True))[:sizes]:
        assert found["Table 2", size] == best
        assert found["common practice", size] == (7, epochs, 0)  # the last layer never falls alone
        assert found["none", size] == (0, epochs, 0)


def test_every_study_that_has_been_run_has_its_mapping() -> None:
    stated = [path.stem for path in STUDIES.glob("*.yaml") if "configs/studies/results" in path.read_text()]
    assert sorted(stated) == sorted([*(folder.name for folder in RESULTS), "scaling_small"])


def test_the_committed_measurements_of_scaling_give_the_committed_means() -> None:
    folder = STUDIES / "results" / "scaling_small"
    table, committed = pd.read_csv(folder / "table.csv"), pd.read_csv(folder / "scaling.csv")
    scaling = study("scaling_small").scaling
    assert scaling and len(table) == len(scaling.workers) * len(scaling.threads) * scaling.repeats
    means = table.groupby(["workers", "threads"])[["wall_seconds", "utilisation"]].mean().reset_index()
    assert committed["wall_seconds"].to_list() == pytest.approx(means["wall_seconds"].to_list(), rel=1e-4)
    assert committed["utilisation"].to_list() == pytest.approx(means["utilisation"].to_list(), rel=1e-4)


@pytest.mark.parametrize("folder", RESULTS, ids=lambda folder: folder.name)
def test_a_committed_table_has_all_runs_of_its_study_and_gives_the_committed_effects(folder: Path) -> None:
    found, table = study(folder.name), read_table(folder / "table.csv")
    mapping = read_mapping(folder / "mapping.yaml", list(table))
    assert (mapping.missing, mapping.goal, mapping.replicate) == ((), found.goal, *found.columns("replicates"))
    assert tuple(mapping.factors) == found.columns("scientific")
    runs = prepare(table, mapping)
    assert (len(runs.frame), runs.remarks[1:]) == (len(cells(found)), ())  # the first says what `where` keeps
    committed = pd.read_csv(folder / "effects.csv")[EFFECTS].astype({"level": str})
    anew = effects(runs)[EFFECTS].astype({"level": str}).reset_index(drop=True)
    pd.testing.assert_frame_equal(anew, committed, check_dtype=False, rtol=1e-4)


def test_advice_from_a_committed_table(capsys: pytest.CaptureFixture[str]) -> None:
    folder = STUDIES / "results" / "alexnet_3_1_small"
    words = ["--table", str(folder / "table.csv"), "--mapping", str(folder / "mapping.yaml")]
    assert main(["advise", "--examples-per-class", "10", *words]) == 0
    assert "Best setting: layers transferred 3: 0.8019" in capsys.readouterr().out
