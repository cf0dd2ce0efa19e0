"""A scaling study: what is refused, in which order it is measured, what is kept, and what the report says of it."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Write
from test_study_plan import finish, say

from tlkit.errors import UserError
from tlkit.study import commands
from tlkit.study.plan import Planned, plan_study
from tlkit.study.pool import _exactly, read
from tlkit.study.scaling import Measurement, ScalingStudy, digest, measurements, scaling_study
from tlkit.study.scaling_file import COLUMNS
from tlkit.study.spec import Scaling
from tlkit.study.spec_file import read_study

ROOT = Path(__file__).parents[2]
STUDY = """\
name: toys
goal: How long does it take?
base: toy.yaml
replicates:
  seed_everything: [0, 1]
scaling:
  workers: [1, 2]
  threads: [1, 4]
  repeats: 3
metric: {name: wall_seconds, mode: min, label: execution time (s)}
report: {labels: {threads: threads of each}}
"""


@pytest.fixture
def path(write: Write, tmp_path: Path) -> Path:
    write(**{"trainer.max_epochs": 1, "pretrain.with": {"data.stage": "pretrain", "trainer.max_epochs": 1}})
    target = tmp_path / "scaling.yaml"
    target.write_text(STUDY)
    return target


def planned(path: Path) -> ScalingStudy:
    found = scaling_study(path)
    assert found
    return found


def keep(study: ScalingStudy, one: Measurement, wall: float, **other: Any) -> Path:
    """Leaves what a finished measurement leaves: half of the workers' time was lost."""
    found = {"of": digest(study.plans[one.threads]), "stages": 4, "startup_seconds": 5.0, "wall_seconds": wall}
    found |= {"busy_seconds": one.workers * wall / 2, "cores": {"here": 4}, "engine": "local"} | other
    target = study.folder / f"{one.name}.json"
    target.write_text(json.dumps(found))
    return target


def test_all_faults_are_told_with_their_lines(path: Path) -> None:
    text = STUDY.replace("[1, 2]", "[1, 0]").replace("[1, 4]", "[1, 1]").replace("repeats: 3", "repeats: true")
    text = text.replace("  repeats", "  engine: x\n  repeats").replace("wall_seconds", "wall_second")
    path.write_text(text + "threads: 2\nbudget: {gigabytes: 3}\n")
    with pytest.raises(UserError) as caught:
        commands.run(["plan", str(path)])
    faults = {int(match[1]): match[0] for match in re.finditer(r"line (\d+)  .*", str(caught.value))}
    assert list(faults) == [7, 8, 9, 10, 11, 13, 14]
    assert "scaling.workers: expected a list of whole numbers above 0, each once; got [1, 0]" in faults[7]
    assert "scaling.threads" in faults[8]
    assert "unknown key; valid: workers, threads, repeats" in faults[9]
    assert "at least 1; got True" in faults[10]
    assert "did you mean 'wall_seconds'" in faults[11]
    assert "scaling.threads says how many" in faults[13]
    assert "keeps no run directories" in faults[14]


def test_faults_of_the_stages_are_told_as_for_any_study(path: Path) -> None:
    path.write_text(STUDY.replace("seed_everything: [0, 1]", "model.network.widht: [4]"))
    with pytest.raises(UserError, match="line 5  replicates.model.network.widht: .*did you mean 'width'"):
        commands.run(["plan", str(path)])


def test_each_repeat_has_all_settings_in_an_order_of_its_own() -> None:
    scaling = Scaling((1, 2, 4), (1, 2), 4)
    order = measurements(scaling)
    assert order == measurements(scaling)
    blocks = [[(one.workers, one.threads) for one in order[at : at + 6]] for at in range(0, 24, 6)]
    assert all(sorted(block) == [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2)] for block in blocks)
    assert len({str(block) for block in blocks}) == 4
    assert [one.repeat for one in order] == [repeat for repeat in (1, 2, 3, 4) for _ in range(6)]


def test_the_plan_counts_stages_and_estimates_from_what_is_measured(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = say(capsys, "plan", path)
    assert "4 settings × 3 repeats × 4 stages: 48 stages" in text
    assert "measurements: 12 to do" in text
    study = planned(path)
    keep(study, Measurement(2, 1, 1), 15.0)
    keep(study, Measurement(1, 1, 1), 35.0)
    # 20 s and 40 s with their start: two more of each, and six that are taken for the mean, 30 s
    assert "to do: 5 min, estimated" in (text := say(capsys, "plan", path))
    assert "measurements: 2 done, 10 to do" in text and "done: 60 s" in text
    path.write_text(STUDY + "budget: {stages: 47, hours: 0.05}\n")
    with pytest.raises(UserError, match=r"budget.stages: 47, the study takes 48; budget.hours: 0.05, .* 0.1;"):
        commands.run(["run", str(path)])


def test_a_measurement_of_other_stages_does_not_count(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = planned(path)
    keep(study, Measurement(1, 1, 1), 9.0)
    assert study.state(Measurement(1, 1, 1)) == "done"
    keep(study, Measurement(1, 1, 1), 9.0, of=digest(study.plans[4]))  # results depend on the threads
    assert study.state(Measurement(1, 1, 1)) == "to do"
    keep(study, Measurement(1, 1, 1), 9.0)
    path.write_text(STUDY.replace("[0, 1]", "[0, 2]"))
    assert "12 to do" in say(capsys, "plan", path)


def test_the_table_and_the_report(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = planned(path)
    for one in measurements(study.scaling):
        if one != Measurement(1, 4, 3):
            keep(study, one, 8.0 / one.workers / one.threads**0.5 + one.repeat)
    text = say(capsys, "table", path, "--where", "workers == 2", "--sort", "-wall_seconds")
    assert [line.split()[6] for line in text.splitlines()[1:-1]] == ["7", "6", "5", "5", "4", "3"]
    frame = pd.read_parquet(study.folder / "table.parquet")
    assert list(frame) == list(COLUMNS)
    assert list(frame["status"].value_counts().items()) == [("done", 11), ("to do", 1)]
    row = frame[(frame["workers"] == 2) & (frame["threads"] == 1) & (frame["repeat"] == 1)].iloc[0]
    assert (row["wall_seconds"], row["utilisation"], row["stages_per_hour"]) == (5.0, 0.5, 3600 * 4 / 5)

    text = say(capsys, "report", path)
    assert "note: 1 of 12 measurements: to do" in text
    out = study.folder / "report"
    scaling = pd.read_csv(out / "tables" / "scaling.csv").set_index(["workers", "threads of each"])
    assert scaling.loc[(1, 1), "wall_seconds"] == 10  # 8 + 2, the mean of 1, 2, 3
    assert scaling.loc[(2, 4), "speed_up"] == pytest.approx(10 / 4)
    assert scaling.loc[(2, 4), "efficiency"] == pytest.approx(10 / 4 / 8)
    assert set(scaling["utilisation"]) == {0.5}
    page = re.sub(r"<[^>]+>|\s+", " ", (out / "report.html").read_text())
    for said in (
        "How long does it take?",
        "lowest mean execution time (s)",
        "more threads than cores: 2 workers × 4 threads",
        "seed_everything: 0; 1",
        f"tlkit study report {path}",
    ):
        assert said in page


def test_status_and_its_name(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="expected a planned study"):
        commands.run(["status", str(path)])
    study = planned(path)
    keep(study, Measurement(1, 1, 2), 12.34)
    (study.folder / Measurement(2, 1, 3).name).mkdir()
    (study.folder / Measurement(2, 4, 3).name / "toys" / "failed" / "12345678").mkdir(parents=True)
    text = say(capsys, "status", "toys", "--runs", study.folder.parent)
    assert "measurements: 1 cut off, 1 done, 1 failed, 9 to do" in text
    assert re.search(r"1 worker × 1 thread, repeat 2 +done +12\.3 s", text)
    assert text == say(capsys, "status", path)


def test_what_knows_no_scaling_study_refuses_it(path: Path) -> None:
    with pytest.raises(UserError, match="is a scaling study"):
        plan_study(path)
    with pytest.raises(UserError, match="each measurement of which runs every stage"):
        commands.run(["plan", str(path), "--explain", "1234"])
    with pytest.raises(UserError, match="got inline"):
        commands.run(["run", str(path), "--engine", "inline"])
    with pytest.raises(UserError, match="expected measurements of toys, got none"):
        commands.run(["report", str(path)])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Parsl leaves sockets to be collected
def test_workers_are_spread_over_nodes_and_devices(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    content = yaml.safe_load((ROOT / "configs" / "engines" / "local.yaml").read_text())
    arguments = content["parsl"]["init_args"]["executors"][0]["init_args"]
    arguments |= {"max_workers_per_node": 4, "available_accelerators": ["0", "1"]}
    file.write_text(yaml.safe_dump(content))
    for workers, nodes, devices in ((1, 1, ["0"]), (3, 1, ["0", "1", "0"]), (8, 2, ["0", "1", "0", "1"])):
        (executor,) = read(file)[0].executors
        _exactly(workers, [executor], file)
        assert (executor.provider.nodes_per_block, executor.max_workers_per_node) == (nodes, workers // nodes)
        assert executor.available_accelerators == devices
    with pytest.raises(UserError, match="that 5 workers can be spread over"):
        _exactly(5, read(file)[0].executors, file)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_left_is_measured_with_fresh_workers(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(STUDY.replace("threads: [1, 4]", "threads: [1]").replace("repeats: 3", "repeats: 1"))
    study = planned(path)
    kept = keep(study, Measurement(1, 1, 1), 9.0).read_text()
    cut_off = replace(study.plans[1], root=study.folder / Measurement(2, 1, 1).name)
    for id_ in cut_off.stages:  # all of it was done, but how long it took is not known
        finish(Planned(study.study, cut_off, {}, {}, cached=True), id_)
    text = say(capsys, "run", path)
    assert "2 workers × 1 thread, repeat 1 (1 of 1)" in text
    assert sorted(file.name for file in study.folder.iterdir() if file.is_dir()) == ["threads-1"]
    assert kept == (study.folder / f"{Measurement(1, 1, 1).name}.json").read_text()
    found = json.loads((study.folder / f"{Measurement(2, 1, 1).name}.json").read_text())
    assert found["stages"] == 4
    assert 0 < found["busy_seconds"] <= 2 * found["wall_seconds"]
    assert found["startup_seconds"] > 0 and list(found["cores"].values()) == [len(os.sched_getaffinity(0))]
    assert list(pd.read_csv(study.folder / "table.csv")["status"]) == ["done", "done"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_measurement_in_which_a_stage_fails_is_not_done(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workers = len(os.sched_getaffinity(0)) + 1  # more than cores: all of them have to be there before it starts
    text = STUDY.replace("threads: [1, 4]", "threads: [1]").replace("repeats: 3", "repeats: 1")
    path.write_text(
        text.replace("[1, 2]", f"[{workers}]").replace("seed_everything: [0, 1]", "data.bad_row: [null, 3]")
    )
    with pytest.raises(SystemExit):
        commands.run(["run", str(path)])
    study = planned(path)
    assert study.state(Measurement(workers, 1, 1)) == "failed"
    logs = study.folder / Measurement(workers, 1, 1).name / "toys" / "failed"
    assert f"stages failed; logs in {logs}" in capsys.readouterr().out
    assert list(logs.glob("*/traceback.txt"))


@pytest.mark.parametrize(("name", "settings"), [("scaling", 15), ("scaling_small", 4)])
def test_the_scaling_studies_that_come_with_it_have_no_faults(name: str, settings: int) -> None:
    found, faults = read_study(ROOT / "configs" / "studies" / f"{name}.yaml")
    assert found and found.scaling and not faults
    assert len(measurements(found.scaling)) == 3 * settings


def test_every_column_is_documented() -> None:
    text = (ROOT / "docs" / "study_scaling.md").read_text()
    assert dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)) == COLUMNS
