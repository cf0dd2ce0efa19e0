"""A run directory that was damaged by hand is reported and its stage run again, never trusted."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from studies import toy_study

from tlkit.cli import main
from tlkit.runs import create, find_finished
from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.state import states
from tlkit.study.todo import to_run

OTHER = "0123456789abcdef" * 4
SEEDS = [{"seed_everything": 0}, {"seed_everything": 0, "trainer.max_epochs": 1}]  # one pretrain, two transfers


def run_of(study: StudyPlan, stage: PlannedStage) -> Path:
    (path,) = (study.root / study.name).glob(f"{stage.stage}-{stage.id[:8]}")
    return path


@pytest.fixture
def study(tmp_path: Path) -> StudyPlan:
    """A pretrain and two transfers, of which the second is to be run."""
    made = toy_study(tmp_path, SEEDS)
    for stage in list(made.stages.values())[:2]:
        run = create(made.root, made.name, stage.stage, stage.id)
        metric = {"name": "val/accuracy", "mode": "max", "best": 0.5, "best_epoch": 1}
        result = {"id": stage.id, "metric": metric, "metrics": {"test/accuracy": 0.5}, "seconds": {"fit": 1.0}}
        (run.path / "result.json").write_text(json.dumps(result | {"epochs": 3}))
        (run.path / "metrics.csv").write_text("epoch,val/accuracy\n0,0.4\n1,0.5\n2,0.3\n")
        (run.path / "checkpoints").mkdir()
        for name in ("best.ckpt", "last.ckpt"):
            torch.save({"state_dict": {"conv1.weight": torch.ones(1000)}}, run.path / "checkpoints" / name)
    return made


def change(file: str, how: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        path = run / file
        path.write_text(json.dumps(how(json.loads(path.read_text()))))

    return damage


def cut(file: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = (run / file).read_bytes()
        (run / file).write_bytes(content[: len(content) // 2])

    return damage


DAMAGES = {
    "a result that is cut": cut("result.json"),
    "an empty result": lambda run: (run / "result.json").write_text(""),
    "a result that is no mapping": change("result.json", lambda result: [result]),
    "a result without metrics": change("result.json", lambda result: result | {"metrics": None}),
    "the result of another run": change("result.json", lambda result: result | {"id": OTHER}),
    "a result that does not say whose": lambda run: (run / "identity.json").unlink(),
    "a result of no number of epochs": change("result.json", lambda result: result | {"epochs": None}),
    "no curves": lambda run: (run / "metrics.csv").unlink(),
    "empty curves": lambda run: (run / "metrics.csv").write_text(""),
    "curves that are cut": lambda run: (run / "metrics.csv").write_text("epoch,val/accuracy\n0,0.4\n1,0.5\n"),
    "curves of an earlier tlkit that are cut": lambda run: (
        change("result.json", lambda result: {key: result[key] for key in result if key != "epochs"})(run),
        (run / "metrics.csv").write_text("epoch,val/accuracy\n0,0.4\n1,"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_result_is_not_trusted(
    damage: Callable[[Path], None], study: StudyPlan, caplog: pytest.LogCaptureFixture
) -> None:
    _, transfer, other = study.stages.values()
    assert to_run(study) == [other]
    run = run_of(study, transfer)
    damage(run)
    assert states(study.root, study.name, [("transfer", transfer.id)])[transfer.id].state == "damaged"
    assert to_run(study) == [transfer, other]
    assert not run.exists() and run.with_name(f"damaged-{run.name}").exists()
    assert f"{run} is damaged (" in caplog.text
    assert to_run(study) == [transfer, other]  # set aside once and for all


def test_a_sound_run_in_the_directory_of_another_is_that_one_s(study: StudyPlan) -> None:
    _, transfer, other = study.stages.values()
    run = run_of(study, transfer)
    for name in ("result.json", "identity.json"):
        change(name, lambda content: content | {"id": transfer.id[:8] + OTHER[8:]})(run)
    assert to_run(study) == [transfer, other]
    assert run.exists()  # two identities may begin alike


def flip(file: str) -> Callable[[Path], None]:
    """Changes one bit of a weight; the file can be read all the same."""

    def damage(run: Path) -> None:
        content = bytearray((run / file).read_bytes())
        content[content.index(b"\0\0\x80?" * 100) + 41] ^= 4  # 1.0 as float32
        (run / file).write_bytes(content)
        torch.load(run / file, weights_only=True)

    return damage


def without_its_middle(file: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        content = (run / file).read_bytes()
        (run / file).write_bytes(content[:1000] + content[2000:])

    return damage


BEST = "checkpoints/best.ckpt"
WEIGHTS = {
    "cut": cut(BEST),
    "empty": lambda run: (run / BEST).write_bytes(b""),
    "without its middle": without_its_middle(BEST),
    "another bit": flip(BEST),
    "the last left alone": lambda run: (run / BEST).unlink(),  # it would be taken for the best
}


@pytest.mark.parametrize("damage", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_damaged_weights_are_not_trusted_where_they_are_needed(
    damage: Callable[[Path], None], study: StudyPlan, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain, transfer, other = study.stages.values()
    run = run_of(study, pretrain)
    damage(run)
    done = StudyPlan(study.name, study.root, {stage.id: stage for stage in (pretrain, transfer)})
    assert to_run(done) == [] and run.exists()  # nobody reads them
    assert to_run(study) == [pretrain, other]
    assert run.with_name(f"damaged-{run.name}").exists()
    assert f"{run} is damaged (" in caplog.text and "best.ckpt" in caplog.text


def test_of_several_runs_of_a_stage_the_newest_counts_for_all(study: StudyPlan) -> None:
    first, *_ = study.stages.values()
    old, new = run_of(study, first), study.root / "fit" / f"{first.stage}-{first.id[:8]}"
    shutil.copytree(old, new)
    shutil.copytree(old, old.with_name(f"{old.name}-2"))
    for age, run in enumerate([new, old, old.with_name(f"{old.name}-2")]):
        os.utime(run, (1e9 - age, 1e9 - age))
    (old.with_name(f"{old.name}-2") / "checkpoints" / "best.ckpt").write_bytes(b"damaged")
    assert states(study.root, study.name, [(first.stage, first.id)])[first.id].path == new
    assert first not in to_run(study)
    found = find_finished(study.root, first.stage, first.id)
    assert found and found.path == new


def test_the_last_checkpoint_is_the_best_of_a_run_without_validation(study: StudyPlan) -> None:
    pretrain, _, other = study.stages.values()
    run = run_of(study, pretrain)
    (run / BEST).unlink()
    change("result.json", lambda result: result | {"metric": result["metric"] | {"name": "train/loss"}})(run)
    assert to_run(study) == [other]


def test_a_user_is_told_and_gets_the_run_again(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(**{"pretrain": {"layers": 0}, "trainer.callbacks": []})
    file = tmp_path / "study.yaml"
    text = "name: toys\ngoal: Again?\nbase: toy.yaml\nscientific: {model.network.width: [4]}\n"
    file.write_text(text + "metric: {name: test/accuracy, mode: max}\n")
    run = ["study", "run", str(file), "--engine", "inline"]
    assert main(run) == 0
    (path,) = tmp_path.glob("runs/toys/transfer-*")
    (path / "metrics.csv").unlink()
    capsys.readouterr()
    assert main(["study", "status", str(file)]) == 0
    assert f"damaged   {path}; it will be run again" in capsys.readouterr().out
    assert main(run) == 0
    gone = f"[Errno 2] No such file or directory: '{path / 'metrics.csv'}'"
    told = f"{path} is damaged (result.json: {gone}): it is now damaged-{path.name}, and its"
    assert capsys.readouterr().err == f"{told} stage is run again\n"
    assert (path / "metrics.csv").exists()
