"""What `tlkit study clean` deletes, and what it leaves."""

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Write, toy_experiment
from test_study_plan import finish, say, transfers

from tlkit.errors import UserError
from tlkit.runs import create, running
from tlkit.study import commands
from tlkit.study.clean import Survey
from tlkit.study.engine import sole_driver
from tlkit.study.plan import Planned, plan_study

BEST, LAST = 30_000, 50_000  # bytes
STUDY = """\
name: toys
goal: Does transfer help?
base: toy.yaml
scientific:
  protocol:
    none: {pretrain.layers: 0}
    common: {pretrain.layers: 2}
replicates:
  seed_everything: [0, 1]
metric: {name: test/accuracy, mode: max}
"""
METRIC = {"name": "val/accuracy", "mode": "max", "best_epoch": 1, "best": 0.4}


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def fill(run: Path) -> Path:
    """Puts into a run directory what a run leaves there."""
    (run / "checkpoints").mkdir()
    for name, size in (("best.ckpt", BEST), ("last.ckpt", LAST)):
        (run / "checkpoints" / name).write_bytes(bytes(size))
    for name in ("config.yaml", "log.txt", "events.out.tfevents.1.host.1.0"):
        (run / name).write_text(name)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Planned:
    """A study of four transfers and two pretrains, all done but the transfer of ``common`` with seed 1."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "toy.yaml").write_text(yaml.safe_dump(toy_experiment(folder), sort_keys=False))
    (folder / "study.yaml").write_text(STUDY)
    made = plan_study(folder / "study.yaml")
    assert len(made.plan.stages) == 6
    for number, id_ in enumerate(made.plan.stages):
        if id_ != missing(made):
            fill(finish(made, id_, accuracy=number / 100, metric=METRIC))
    (directory(made) / ".driver.lock").touch()  # as `run` leaves it
    made.plan.root.rename(folder / "unharmed")
    return made


@pytest.fixture
def planned(made: Planned) -> Planned:
    """The study as it was made, whatever the test before has done to it."""
    shutil.rmtree(made.plan.root, ignore_errors=True)
    shutil.copytree(made.plan.root.with_name("unharmed"), made.plan.root)
    made.study.path.write_text(STUDY)
    return made


def missing(planned: Planned) -> str:
    (id_,) = transfers(planned, protocol="common", seed_everything=1)
    return id_


def directory(planned: Planned) -> Path:
    return planned.plan.root / planned.plan.name


def run_of(planned: Planned, id_: str) -> Path:
    return directory(planned) / f"{planned.plan.stages[id_].stage}-{id_[:8]}"


def clean(capsys: pytest.CaptureFixture[str], planned: Planned, *words: Any) -> tuple[str, set[str]]:
    """Runs the command; returns what it said and which files are gone."""
    before = files(planned.plan.root)
    text = say(capsys, "clean", planned.study.path, "--yes", *words)
    after = files(planned.plan.root)
    assert after <= before
    return text, before - after


def test_checkpoints_that_are_not_the_best_go(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    text, gone = clean(capsys, planned)
    done = [run_of(planned, id_) for id_ in planned.plan.stages if id_ != missing(planned)]
    assert len(done) == 5
    assert gone == {f"toys/{run.name}/checkpoints/last.ckpt" for run in done}
    assert text.startswith(f"{directory(planned)}: 250 kB can go\n")  # 5 of 50 kB
    assert "250 kB      5 last.ckpt of finished runs" in text
    assert "120 kB more with --checkpoints" in text  # 4 of 30 kB: one pretrain is needed
    assert "nothing to clean up" in say(capsys, "clean", planned.study.path)


def test_weights_go_only_if_no_stage_to_do_starts_from_them(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    some = run_of(planned, transfers(planned, protocol="none")[0]) / "checkpoints"
    (some / "snapshot-1.ckpt").write_bytes(b"")
    order = [path.name for path in Survey(planned).weights.paths if path.parent == some]
    assert order == ["snapshot-1.ckpt", "best.ckpt"]  # whoever finds no best.ckpt takes another for it
    text, gone = clean(capsys, planned, "--checkpoints")
    (kept,) = (directory(planned).parent / name for name in files(planned.plan.root) if name.endswith(".ckpt"))
    assert kept == run_of(planned, str(planned.plan.stages[missing(planned)].pretrain)) / "checkpoints" / "best.ckpt"
    assert len(gone) == 5 + 4 + 1
    assert all(name.endswith(".ckpt") for name in gone)
    assert "deleted: 370 kB" in text
    finish(planned, missing(planned))
    assert len(clean(capsys, planned, "--checkpoints")[1]) == 1


def test_the_only_checkpoint_of_a_run_without_validation_is_its_best(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    scratch = run_of(planned, transfers(planned, protocol="none")[0]) / "checkpoints"
    (scratch / "best.ckpt").unlink()
    clean(capsys, planned)
    assert (scratch / "last.ckpt").exists()
    clean(capsys, planned, "--checkpoints")
    assert not (scratch / "last.ckpt").exists()


def test_what_serves_nothing_goes(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    clean(capsys, planned)
    top = directory(planned)
    some, other, *_ = transfers(planned, protocol="none")
    gone = {
        ".table.17.tmp",
        f"transfer-{some[:8]}/.result.json.17.tmp",
        f"transfer-{some[:8]}/.curves.png",
        f"transfer-{some[:8]}/checkpoints/.last.ckpt.tmp",
        f"damaged-transfer-{some[:8]}/result.json",
        f"transfer-{some[:8]}-2/identity.json",  # cut off, but finished in another directory
        "transfer-01234567/identity.json",  # cut off, of no plan
        ".engine/interchange.log",
        f"failed/{some[:8]}/reason.txt",  # has been mended
        "failed/01234567/reason.txt",  # of no plan
    }
    left = {
        f"failed/{missing(planned)[:8]}/reason.txt",
        "transfer-76543210/result.json",  # whose that is, no plan says
        "figures-20261122/paper.png",  # the user's own, with a date
        "transfer-20261122/notes.txt",
        "report/report.html",
    }
    before = files(top)
    for name in gone | left:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(json.dumps({"id": some if some[:8] in name else 64 * "0"}))
    begun = create(planned.plan.root, "toys", "transfer", missing(planned))
    text, deleted = clean(capsys, planned)
    assert deleted == {f"toys/{name}" for name in gone}
    assert files(top) == before | left | {str((begun.path / "identity.json").relative_to(top))}
    assert [line.split()[2] for line in text.splitlines() if line.startswith("  ")] == ["4", "1", "2", "2", "1"]


def test_runs_of_former_plans_go_but_not_those_of_another_study(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    study = planned.study.path
    shared = study.with_name("other.yaml")
    shared.write_text(study.read_text().replace("name: toys", "name: other").replace("[0, 1]", "[1]"))
    theirs = plan_study(shared).plan.stages
    assert len(theirs) == 3
    shared_runs = {run_of(planned, id_).name for id_ in theirs}
    _, gone = clean(capsys, planned, "--checkpoints")
    assert {name.split("/")[-1] for name in gone if name.split("/")[1] in shared_runs} == {"last.ckpt"}
    assert {name.split("/")[-1] for name in gone if name.split("/")[1] not in shared_runs} == {"best.ckpt", "last.ckpt"}
    study.write_text(study.read_text().replace("[0, 1]", "[0]"))
    now = plan_study(study)
    former = planned.plan.stages.keys() - now.plan.stages.keys()
    assert former == theirs.keys()
    assert clean(capsys, now, "--checkpoints")[1] == set()
    (directory(planned).with_name("other") / "plan.json").unlink()
    text, gone = clean(capsys, now)
    assert gone == set()  # finished runs, which the study would have again if the edit were taken back
    assert "more with --former: finished runs of former plans" in text
    _, gone = clean(capsys, now, "--former")
    assert {name.split("/")[1] for name in gone} == {run_of(planned, id_).name for id_ in former - {missing(planned)}}
    assert all((run_of(now, id_) / "result.json").exists() for id_ in now.plan.stages)


def test_runs_elsewhere_and_a_run_that_an_experiment_starts_from_stay(
    planned: Planned, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from toy import ToyNet

    source = run_of(planned, transfers(planned, protocol="none")[0])
    torch.save(ToyNet(4, 1).state_dict(), source / "checkpoints" / "last.ckpt")
    weights = {"layers": 2, "checkpoint": str(source / "checkpoints" / "last.ckpt")}
    base = write("from.yaml", pretrain=weights, runs=str(planned.plan.root))
    text = "name: next\ngoal: Further?\nbase: from.yaml\nscientific: {model.optimizer.lr: [0.1, 0.2]}\n"
    base.with_name("next.yaml").write_text(text + "metric: {name: test/accuracy, mode: max}\n")
    plan_study(base.with_name("next.yaml"))
    elsewhere = run_of(planned, transfers(planned, protocol="none")[1])
    moved = directory(planned).with_name("fitted") / elsewhere.name
    moved.parent.mkdir()
    elsewhere.rename(moved)
    kept = files(source) | files(moved)
    _, gone = clean(capsys, planned, "--checkpoints")
    assert len(gone) == 2 * (5 - 2) - 1
    assert files(source) | files(moved) == kept


def test_a_run_that_is_at_work_stays(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    clean(capsys, planned)
    theirs, ours = (
        create(planned.plan.root, "toys", "transfer", id_).path for id_ in ("01234567" * 8, missing(planned))
    )
    for run in (theirs, ours):
        (run / ".metrics.csv.17.tmp").write_text("half")
    with running(theirs), running(ours):
        assert clean(capsys, planned)[1] == set()
    left = {f"toys/{theirs.name}/{name}" for name in files(theirs)}
    assert len(left) == 2
    assert clean(capsys, planned)[1] == left | {f"toys/{ours.name}/.metrics.csv.17.tmp"}


def test_a_running_driver_is_named_and_nothing_is_deleted(planned: Planned) -> None:
    before = files(planned.plan.root)
    with sole_driver(directory(planned) / ".driver.lock"):
        with pytest.raises(UserError, match=f"got process {os.getpid()} on {socket.gethostname()}"):
            commands.run(["clean", str(planned.study.path), "--yes"])
    assert files(planned.plan.root) == before


def test_the_plan_of_another_study_that_cannot_be_read_is_no_licence(planned: Planned) -> None:
    plan = directory(planned).with_name("other") / "plan.json"
    plan.parent.mkdir()
    plan.write_text('{"format": 0}')
    with pytest.raises(UserError, match=rf"learn from {plan}"):
        commands.run(["clean", str(planned.study.path), "--yes"])
