import errno
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from parsl.executors.high_throughput.errors import WorkerLost
from pools import starts
from studies import toy_study

from tlkit import runs, stage_run
from tlkit.cli import main
from tlkit.errors import UserError
from tlkit.experiment import plan as plan_stage
from tlkit.runs import is_running
from tlkit.study.engine import LOSSES, carry_out, sole_driver
from tlkit.study.plan import DRIVER
from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.pool import Pool
from tlkit.study.todo import to_run
from tlkit.study.worker import Done, Task

SEEDS = [{"seed_everything": 0}, {"seed_everything": 0, "trainer.max_epochs": 1}]  # one pretrain, two transfers


def run_of(study: StudyPlan, stage: PlannedStage) -> Path:
    (path,) = (study.root / study.name).glob(f"{stage.stage}-{stage.id[:8]}")
    return path


def test_every_stage_once_and_a_second_start_does_nothing(tmp_path, capsys):
    study = toy_study(tmp_path, SEEDS)
    outcome = carry_out(study, "inline")
    assert (outcome.done, outcome.failed) == (3, {})
    written = {path: path.stat().st_mtime_ns for path in (study.root / "toys").glob("*/result.json")}
    assert len(written) == 3
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("3/3 done, 0 running, 0 failed") and " · best val/accuracy " in line
    assert carry_out(study, "inline").done == 3
    again = capsys.readouterr().out.strip()
    assert again == f"3/3 done, 0 running, 0 failed · {line.rpartition(' · ')[2]}"  # the best is that of all
    assert written == {path: path.stat().st_mtime_ns for path in (study.root / "toys").glob("*/result.json")}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")  # as `tlkit` ignores it
def test_a_stage_that_was_cut_off_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    (plain, interrupted) = (toy_study(tmp_path / name, SEEDS[:1]) for name in ("plain", "interrupted"))
    carry_out(plain, "inline")
    from tlkit.recorder import Recorder

    original, epochs = Recorder.on_train_epoch_end, []

    def stop_in_the_second_epoch(self, trainer, module):
        original(self, trainer, module)
        epochs.append(trainer.current_epoch)
        if len(epochs) == 4:  # two of the pretrain, two of the transfer's three
            raise SystemError("power cut")

    monkeypatch.setattr(Recorder, "on_train_epoch_end", stop_in_the_second_epoch)
    assert len(carry_out(interrupted, "inline").failed) == 1
    assert carry_out(interrupted, "inline").failed == {}
    assert epochs == [0, 1, 0, 1, 2]
    for one, other in zip(plain.stages.values(), interrupted.stages.values(), strict=True):
        weights = [
            torch.load(run_of(study, stage) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for study, stage in ((plain, one), (interrupted, other))
        ]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (interrupted.root / "toys" / "failed" / other.id[:8]).exists()


@pytest.mark.parametrize("hook", ["on_fit_start", "on_train_batch_end", "on_test_epoch_start", "on_test_end"])
def test_a_stage_that_is_told_to_end_is_no_failure_and_ends_the_study_in_this_process(tmp_path, hook):
    stop = {"trainer.callbacks": [{"class_path": "probes.Terminated", "init_args": {"hook": hook}}]}
    study = toy_study(tmp_path, [SEEDS[1] | stop | {"pretrain.layers": 0}])
    with pytest.raises(KeyboardInterrupt):
        carry_out(study, "inline")
    assert not (study.root / "toys" / "failed").exists()


def test_a_failure_leaves_log_and_traceback_and_the_others_go_on(tmp_path, capsys):
    study = toy_study(tmp_path, [SEEDS[0], {"seed_everything": 0, "data.bad_row": 3}])
    *_, bad = study.stages.values()
    outcome = carry_out(study, "inline")
    # the bad image is in the pretrain's data, too: `data` is shared
    assert outcome.done == 2 and len(outcome.failed) == 2
    first, second = outcome.failed
    assert study.stages[second].pretrain == first and second == bad.id
    assert "pretrain" in outcome.failed[second] and first[:8] in outcome.failed[second]
    left = study.root / "toys" / "failed"
    assert "Traceback" in (left / first[:8] / "traceback.txt").read_text()
    assert "pretrain stage in" in (left / first[:8] / "log.txt").read_text()
    assert sorted(path.name for path in (left / second[:8]).iterdir()) == ["reason.txt"]
    assert f"failed: pretrain {first[:8]}" in capsys.readouterr().out
    assert not list((study.root / "toys").glob(f"transfer-{second[:8]}*"))
    assert sorted(starts(study)) == [1, 1, 1]  # an error of the run itself would come again: it is not tried twice


def test_a_study_with_failures_ends_with_their_number(write, tmp_path, capsys):
    write(**{"pretrain": {"layers": 0}, "trainer.callbacks": []})
    file = tmp_path / "study.yaml"
    text = "name: toys\ngoal: Does it fail?\nbase: toy.yaml\nscientific: {data.bad_row: [null, 3]}\n"
    file.write_text(text + "metric: {name: test/accuracy, mode: max}\n")
    with pytest.raises(SystemExit) as ended:
        main(["study", "run", str(file), "--engine", "inline", "--runs", str(tmp_path / "elsewhere")])
    assert ended.value.code == 1
    words = f"{file} --runs {tmp_path / 'elsewhere'}"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"report: tlkit study report {words}",
        f"1 stages failed; tlkit study status {words} says where their logs are",
    ]


def test_a_damaged_run_is_set_aside_and_run_again(tmp_path, caplog):
    study = toy_study(tmp_path, SEEDS)
    pretrain, transfer, other = study.stages.values()
    carry_out(study, "inline")
    (run_of(study, transfer) / "result.json").write_text('{"id": "')
    weights = run_of(study, pretrain) / "checkpoints" / "best.ckpt"
    weights.write_bytes(weights.read_bytes()[:1000])
    with caplog.at_level("WARNING", logger="tlkit"):
        assert [stage.id for stage in to_run(study)] == [pretrain.id, transfer.id]
    assert {path.name for path in (study.root / "toys").glob("damaged-*")} == {
        f"damaged-{stage.stage}-{stage.id[:8]}" for stage in (pretrain, transfer)
    }
    assert "is damaged" in caplog.text
    assert carry_out(study, "inline").done == 3
    assert json.loads((run_of(study, transfer) / "result.json").read_text())["id"] == transfer.id


def test_a_pretrain_whose_weights_were_cleaned_up_is_run_only_for_a_stage_that_needs_them(tmp_path):
    study = toy_study(tmp_path, SEEDS)
    pretrain, transfer, _ = study.stages.values()
    carry_out(study, "inline")
    for file in (run_of(study, pretrain) / "checkpoints").iterdir():
        file.unlink()
    assert to_run(study) == []
    (run_of(study, transfer) / "result.json").unlink()
    assert to_run(study) == [pretrain, transfer]


def test_a_second_driver_is_refused_and_names_the_first(tmp_path):
    study = toy_study(tmp_path, SEEDS[:1])
    (study.root / "toys").mkdir(parents=True)
    holder = (
        "import sys; from pathlib import Path; from tlkit.study.engine import sole_driver\n"
        "with sole_driver(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    lock = study.root / "toys" / ".driver.lock"
    first = subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "held\n"
    try:
        with pytest.raises(UserError, match=f"process {first.pid} on "):
            carry_out(study, "inline")
    finally:
        first.communicate()
    assert carry_out(study, "inline").done == 2


def test_the_lock_of_a_study_is_given_back(tmp_path):
    lock = sole_driver(tmp_path / "toys" / DRIVER)
    with lock:
        assert is_running(tmp_path / "toys", DRIVER)
    assert not is_running(tmp_path / "toys", DRIVER)


def test_a_stage_that_is_no_longer_what_was_planned_is_not_run(tmp_path):
    study = toy_study(tmp_path, SEEDS[:1])
    pretrain, transfer = study.stages.values()
    changed = pretrain.config | {"seed_everything": 5}
    stale = PlannedStage(pretrain.id, "pretrain", changed, None)
    outcome = carry_out(StudyPlan("toys", study.root, {stale.id: stale}), "inline")
    assert "plan the study again" in outcome.failed[pretrain.id]


def test_threads_are_the_plans_not_this_process(tmp_path):
    study = toy_study(tmp_path, SEEDS[:1])
    torch.set_num_threads(2)
    try:
        assert plan_stage(study.stages[next(iter(study.stages))].config, "pretrain").id not in study.stages
        assert carry_out(study, "inline").done == 2
    finally:
        torch.set_num_threads(1)


def test_a_full_disk_stops_the_study(tmp_path, monkeypatch):
    study = toy_study(tmp_path, SEEDS)
    started = []

    def full(stage, resume):
        started.append(stage.id)
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")

    monkeypatch.setattr(stage_run, "run", full)
    with pytest.raises(UserError, match=r"room on the disk, got: .*No space left.* start the study again"):
        carry_out(study, "inline")
    assert len(started) == 1
    monkeypatch.undo()
    assert carry_out(study, "inline").done == 3


def lost_or_done(losses: dict[str, int], submitted: list[str], further: Path | None = None) -> Pool:
    """Returns workers of which a stage loses so many; it has got further than before if it left this checkpoint."""

    def submit(task: Task) -> "Future[Done]":
        submitted.append(task.id)
        future: Future[Done] = Future()
        if submitted.count(task.id) <= losses.get(task.stage, 0):
            if further:
                os.utime(further, ns=(0, len(submitted)))
            future.set_exception(WorkerLost(0, "here"))
        else:
            future.set_result(Done("done", Path()))
        return future

    return Pool(submit, lambda: 0, lambda: None, float("inf"), lambda: "nothing")


@pytest.mark.parametrize(("losses", "done"), [(LOSSES - 1, 3), (LOSSES, 1)])
def test_a_lost_worker_costs_nothing_but_not_for_ever(tmp_path, losses, done):
    study = toy_study(tmp_path, SEEDS)
    submitted: list[str] = []
    outcome = carry_out(study, pool=nullcontext(lost_or_done({"transfer": losses}, submitted)))
    assert outcome.done == done and len(outcome.failed) == 3 - done
    assert len(submitted) == 1 + 2 * min(losses + 1, LOSSES)
    assert all("lost its worker 5 times" in message for message in outcome.failed.values())


def test_a_stage_longer_than_any_job_is_not_given_up_as_long_as_it_gets_further(tmp_path):
    study = toy_study(tmp_path, SEEDS[:1])
    _, transfer = study.stages
    run = runs.create(study.root, "toys", "transfer", transfer)
    run.last.parent.mkdir()
    run.last.touch()
    submitted: list[str] = []
    outcome = carry_out(study, pool=nullcontext(lost_or_done({"transfer": 3 * LOSSES}, submitted, run.last)))
    assert outcome.failed == {} and submitted.count(transfer) == 3 * LOSSES + 1


def test_what_goes_wrong_between_driver_and_worker_ends_the_study_and_says_what_was_tried(tmp_path):
    def submit(task: Task) -> "Future[Done]":
        future: Future[Done] = Future()
        future.set_exception(FileNotFoundError("no such directory on the node: /scratch"))
        return future

    pool = Pool(submit, lambda: 0, lambda: None, float("inf"), lambda: "SlurmProvider(...)")
    with pytest.raises(UserError, match=r"(?s)/scratch.*tried:.*SlurmProvider"):
        carry_out(toy_study(tmp_path, SEEDS), pool=nullcontext(pool))


def test_the_longest_stage_goes_first_and_none_before_its_pretrain(tmp_path):
    study = toy_study(tmp_path, [{"trainer.max_epochs": epochs} for epochs in (1, 2, 3)])
    submitted: list[str] = []
    pretrain, one, two, three = study.stages
    estimate = {one: 5.0, two: 20.0, three: 10.0}
    carry_out(study, None, estimate, nullcontext(lost_or_done({}, submitted)))
    assert submitted == [pretrain, two, three, one]
