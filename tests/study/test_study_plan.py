"""A planned study: the same stages as `tlkit fit` makes, planned anew only when something that counts has changed."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write

from tlkit import identity
from tlkit.commands import load_experiment
from tlkit.experiment import plan
from tlkit.runs import create, running, write_text
from tlkit.study import commands
from tlkit.study.explain import NOT_IDENTITY
from tlkit.study.plan import Planned, plan_study

HERE = Path(__file__).parent.parent
STUDY = """\
name: toys
goal: Does transfer help at any rate?
base: toy.yaml
scientific:
  protocol:
    none: {pretrain.layers: 0, trainer.callbacks: []}
    common: {pretrain.layers: 2}
    other: {pretrain.layers: 1, callbacks.LayerFreezing.layers: 2, pretrain.with.trainer.max_epochs: 1}
nuisance:
  model.optimizer.lr: [0.05, 1e-2]
replicates:
  seed_everything: [0, 1]
metric: {name: test/accuracy, mode: max}
"""


MANY = """\
name: toys
goal: How long does planning take?
base: toy.yaml
scientific:
  pretrain.layers: [0, 1, 2, 3]
  data.batch_size: [4, 8, 12, 16]
nuisance:
  model.optimizer.lr: [0.01, 0.02, 0.03, 0.04, 0.05]
  trainer.gradient_clip_val: [1, 2, 3, 4, 5]
replicates:
  seed_everything: [0, 1, 2, 3, 4]
metric: {name: test/accuracy, mode: max}
"""


@pytest.fixture
def study(write: Write, tmp_path: Path) -> Path:
    write()
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def say(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    commands.run([str(word) for word in words])
    return capsys.readouterr().out


def finish(planned: Planned, id_: str, accuracy: float = 0.5, **result: Any) -> Path:
    """Leaves the run directory of a finished stage."""
    import json

    stage = planned.plan.stages[id_]
    run = create(planned.plan.root, "toys", stage.stage, id_)
    content = {"id": id_, "metric": {"name": "val/accuracy", "best_epoch": 1, "best": 0.4}, "threads": 1, "seed": 0}
    content |= {
        "metrics": {"test/accuracy": accuracy},
        "seconds": {"setup": 1.0, "fit": 8.0, "test": 1.0},
        "energy": None,
    }
    write_text(run.path / "metrics.csv", "epoch,step,val/accuracy\n0,6,0.2\n1,12,0.4\n2,18,0.3\n3,24,0.3\n")
    write_text(run.path / "result.json", json.dumps(content | result))
    return run.path


def transfers(planned: Planned, **levels: Any) -> list[str]:
    stages = [stage for stage in planned.plan.stages.values() if stage.stage == "transfer"]
    return [stage.id for stage in stages if any(cell.items() >= levels.items() for cell in stage.cells)]


def test_the_stages_are_those_of_fit(study: Path) -> None:
    networks = "  model.network: [toy.ToyNet, {class_path: toy.ToyNet, init_args: {width: 6}}]\n"
    study.write_text(STUDY.replace("nuisance:", networks + "nuisance:"))
    planned = plan_study(study)
    stages = planned.plan.stages
    assert len(transfers(planned)) == 3 * 2 * 2 * 2
    assert sum(stage.stage == "pretrain" for stage in stages.values()) == 2 * 2 * 2 * 2
    torch.set_num_threads(1)
    for stage in stages.values():
        made = plan(stage.config, stage.stage)
        assert (made.id, made.pretrain.id if made.pretrain else None) == (stage.id, stage.pretrain)
    words = ["--config", str(study.with_name("toy.yaml")), "--model.network.width=6", "--model.optimizer.lr=0.01"]
    words += ["--pretrain.layers=1", "--callbacks.LayerFreezing.layers=2", "--seed_everything=1"]
    words += ["--pretrain.with.data.stage=pretrain", "--pretrain.with.trainer.max_epochs=1"]
    levels = {"protocol": "other", "model.optimizer.lr": 0.01, "seed_everything": 1}
    fitted = plan(load_experiment(words))
    assert fitted.id in transfers(planned, **levels)
    assert fitted.pretrain and fitted.pretrain.id in stages


def test_optimizers_are_compared_at_rates_of_their_own(study: Path) -> None:
    study.write_text(STUDY.replace("nuisance:", "  model.optimizer.class_path: [SGD, Adam]\nnuisance:"))
    planned = plan_study(study)
    torch.set_num_threads(1)
    words = ["--config", str(study.with_name("toy.yaml")), "--pretrain.layers=0", "--trainer.callbacks=[]"]
    for name, others in (("SGD", ["--model.optimizer.momentum=0.9"]), ("Adam", [])):  # the momentum is the experiment's
        chosen = [f"--model.optimizer={name}", "--model.optimizer.lr=0.01", *others]
        levels = {"protocol": "none", "model.optimizer.class_path": name, "model.optimizer.lr": 0.01}
        assert plan(load_experiment([*words, *chosen])).id in transfers(planned, **levels)


def test_equal_pretrains_are_one_and_come_first(study: Path) -> None:
    study.write_text(STUDY.replace("model.optimizer.lr: [0.05, 1e-2]", "callbacks.LayerFreezing.norm: [eval, train]"))
    study.write_text(study.read_text().replace("none: {pretrain.layers: 0, trainer.callbacks: []}\n    ", ""))
    planned = plan_study(study)
    stages = list(planned.plan.stages.values())
    assert [sum(stage.stage == kind for stage in stages) for kind in ("pretrain", "transfer")] == [4, 8]
    order = [stage.id for stage in stages]
    assert all(order.index(stage.pretrain) < order.index(stage.id) for stage in stages if stage.pretrain)
    assert all(len(stage.cells) == 2 for stage in stages if stage.stage == "pretrain")


def test_levels_that_make_no_difference_are_one_stage(study: Path) -> None:
    study.write_text(STUDY.replace("model.optimizer.lr: [0.05, 1e-2]", "pretrain.with.model.optimizer.lr: [0.1, 0.2]"))
    planned = plan_study(study)
    scratch = transfers(planned, protocol="none")
    assert len(scratch) == 2
    assert all(len(planned.plan.stages[id_].cells) == 2 for id_ in scratch)


def test_the_threads_of_the_study_count_not_those_of_the_planner(study: Path) -> None:
    torch.set_num_threads(1)
    one = plan_study(study)
    study.write_text(STUDY + "threads: 2\n")
    two = plan_study(study)
    assert torch.get_num_threads() == 1
    assert not set(one.plan.stages) & set(two.plan.stages)
    torch.set_num_threads(2)
    try:
        assert all(plan(stage.config, stage.stage).id == id_ for id_, stage in [*two.plan.stages.items()][:4])
    finally:
        torch.set_num_threads(1)


def test_a_stored_plan_is_the_same_plan(study: Path) -> None:
    first, second = plan_study(study), plan_study(study)
    assert (first.cached, second.cached) == (False, True)
    assert second.plan == first.plan
    assert second.parts == first.parts


@pytest.mark.parametrize("what", ["study", "experiment", "source", "threads", "data"])
def test_a_change_plans_anew(what: str, study: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    data = study.parent / "files"
    data.mkdir()
    (data / "one").write_text("1")
    text = STUDY.replace("    other:", "#   other:").replace("[0.05, 1e-2]", "[0.05]")
    study.write_text(text)
    module = study.parent / f"own_{what}.py"
    module.write_text(f"import toy\n\n\nclass OwnData(toy.ToyData):\n    def __init__(self, folder: str = '{data}', **rest):\n        super().__init__(**rest)\n")  # fmt: skip  # noqa: E501
    monkeypatch.syspath_prepend(study.parent)
    changes = {"data.class_path": f"{module.stem}.OwnData", "data.init_args": {}}
    write(**changes)
    plan_study(study)
    assert plan_study(study).cached
    if what == "study":
        study.write_text(text.replace("seed_everything: [0, 1]", "seed_everything: [0, 2]"))
    elif what == "experiment":
        write(**changes, **{"trainer.max_epochs": 5})
    elif what == "source":
        module.write_text(module.read_text() + "# changed\n")
    elif what == "threads":
        study.write_text(text + "threads: 2\n")
    else:
        (data / "one").write_text("12")
    assert not plan_study(study).cached


def test_what_is_done_is_read_from_run_directories(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_study(study)
    first, second, third, fourth, *_ = transfers(planned, protocol="none")
    finish(planned, first)
    finish(planned, second)
    damaged = finish(planned, third)
    (damaged / "result.json").write_text('{"id": ')
    begun = create(planned.plan.root, "elsewhere", "transfer", fourth)
    text = say(capsys, "plan", study)
    assert "12 transfer: 1 cut off, 1 damaged, 2 done, 8 to do" in text
    assert "to do: unknown" in text and "done: 20 s" in text
    for id_, stage in planned.plan.stages.items():
        if stage.stage == "pretrain":
            run = finish(planned, id_)
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "best.ckpt").touch()
    assert "to do: 100 s one after the other" in say(capsys, "plan", study)  # 10 of 10 s
    with running(begun.path):
        text = say(capsys, "status", study)
        assert f"process {os.getpid()} on" in text
    assert f"damaged   {damaged}" in text
    (planned.plan.root / "toys" / "failed" / fourth[:8]).mkdir(parents=True)
    text = say(capsys, "status", "toys", "--runs", planned.plan.root)
    lines = [line.split() for line in text.splitlines()[1:3]]
    assert lines == [["done", "failed", "damaged", "to", "do", "all"], ["transfer", "2", "1", "1", "8", "12"]]
    assert f"failed    {planned.plan.root / 'toys' / 'failed' / fourth[:8]}" in text
    assert "best so far: test/accuracy 0.5 of 2 runs" in text


def test_explain_names_what_changed(study: Path, capsys: pytest.CaptureFixture[str], write: Write) -> None:
    planned = plan_study(study)
    done = transfers(planned, protocol="none", **{"model.optimizer.lr": 0.05, "seed_everything": 0})
    other = transfers(planned, protocol="none", **{"model.optimizer.lr": 0.01, "seed_everything": 0})
    run = finish(planned, done[0])
    assert f"is done: {run}" in say(capsys, "plan", study, "--explain", done[0][:8])
    text = say(capsys, "plan", study, "--explain", other[0][:8])
    assert text.splitlines()[0].endswith(f"nearest that is done, {run}, in:")
    assert text.splitlines()[1:] == ["  model.optimizer.lr: 0.05 -> 0.01"]
    write(**{"trainer.max_epochs": 7})  # every stage is another now
    (again, *_) = transfers(plan_study(study), protocol="none", **{"model.optimizer.lr": 0.05, "seed_everything": 0})
    assert say(capsys, "plan", study, "--explain", again).splitlines()[1:] == ["  trainer.max_epochs: 3 -> 7"]


def test_explain_follows_a_pretrain_that_is_another(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_study(study)
    done = transfers(planned, protocol="common", **{"model.optimizer.lr": 0.05, "seed_everything": 0})[0]
    finish(planned, done)
    finish(planned, str(planned.plan.stages[done].pretrain))
    study.write_text(STUDY.replace("common: {pretrain.layers: 2}", "common: {pretrain.with.data.batch_size: 4}"))
    again = transfers(plan_study(study), protocol="common", **{"model.optimizer.lr": 0.05, "seed_everything": 0})[0]
    text = say(capsys, "plan", study, "--explain", again)
    assert "data.batch_size: 8 -> 4" in text.splitlines()[-1]
    assert "pretrain: pretrain-" in text


def test_explain_leaves_out_what_identity_leaves_out() -> None:
    left_out = {*identity.NOT_IDENTITY[""], *(f"trainer.{name}" for name in identity.NOT_IDENTITY["trainer"])}
    assert left_out - set(NOT_IDENTITY) == {"seed_everything"}  # which counts in a form of its own
    assert set(NOT_IDENTITY) <= left_out


def tlkit(*words: Any) -> tuple[str, float]:
    """Runs a command in a process of its own; returns what it printed and its processor seconds."""
    script = "import sys; from tlkit.cli import main; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", script, "study", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )
    after = os.times()
    assert done.returncode == 0, done.stderr
    return done.stdout, after.children_user + after.children_system - before.children_user - before.children_system


def test_2000_stages_are_planned_again_and_looked_at_without_torch(study: Path) -> None:
    study.write_text(MANY)
    planned = plan_study(study)
    assert len(planned.plan.stages) > 2000
    for id_ in planned.plan.stages:
        finish(planned, id_)
    text, seconds = tlkit("plan", study)
    assert "2000 transfer: 2000 done" in text
    assert seconds < 2
    text, seconds = tlkit("status", "toys", "--runs", planned.plan.root)
    assert "of 2000 runs" in text
    assert seconds < 1.5
    start = time.perf_counter()
    assert plan_study(study).cached
    assert time.perf_counter() - start < 10


def test_a_plan_read_back_is_the_plan_that_was_made(tmp_path: Path) -> None:
    base = Path(__file__).parents[2] / "configs" / "hrtem_restoration.yaml"
    path = tmp_path / "study.yaml"
    path.write_text(
        f"name: toys\ngoal: Which loss?\nbase: {base}\nscientific: {{model.loss: [mse, l1]}}\n"
        "metric: {name: test/psnr, mode: max}\n"
    )
    made, read = (plan_study(path, tmp_path / "runs") for _ in range(2))
    assert read.cached and read.plan == made.plan
    for stage in read.plan.stages.values():  # a list of classes too
        assert stage.config["data"]["init_args"]["augment"] == [{"class_path": "tlkit.data.Dihedral"}]
