"""Pools of warm workers on this machine: what their processes are, when they are replaced, what they may use."""

import os
import queue
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from pools import ENGINES, HERE, PROBED, engine, last_words, probes, results, spy, start, starts
from studies import toy_study
from trivial import nap, trivial_study

from tlkit.study import accelerators, worker
from tlkit.study.engine import carry_out, task_of
from tlkit.study.engine_file import read
from tlkit.study.jobs import drain_period, leave_time
from tlkit.study.pool import parsl_pool
from tlkit.study.survival import SocketQueue

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Parsl's own sockets


@pytest.mark.parametrize(("transfers", "limit"), [(1, None), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_warm_workers_that_are_replaced_give_what_this_process_gives(tmp_path, monkeypatch, transfers, limit):
    # of three stages two are for a worker, and one for the fresh one that takes over
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as in a pilot job: Lightning would wait for three other processes
    monkeypatch.setenv("SLURM_JOB_NAME", "pilot")
    common = {"pretrain.layers": 0, **PROBED}
    variants = [{"trainer.max_epochs": n, "data.num_workers": 2 * (n % 2), **common} for n in range(1, 1 + transfers)]
    study = toy_study(tmp_path, variants)
    assert carry_out(study, engine(tmp_path, workers=1, limits={"runs_per_worker": limit})).failed == {}
    seen = probes(study)
    assert len({probe.pop("pid") for probe in seen}) == (2 if limit else 1)
    expected = {"main": True, "threads": 1, "omp": "1", "environment": "LightningEnvironment", "world_size": 1}
    assert seen == [expected | {"visible": None, "data_workers": "fork"}] * transfers
    assert starts(study) == [1] * transfers
    assert not (study.root / "toys" / "failed").exists()
    monkeypatch.delenv("SLURM_NTASKS")
    here = toy_study(tmp_path / "here", variants)
    assert carry_out(here, "inline").failed == {}
    found = {id_: result["metrics"] for id_, result in results(study).items()}
    assert {id_: result["metrics"] for id_, result in results(here).items()} == found
    assert sorted(path.name for path in (study.root / "toys").glob(".*")) == [".driver.lock"]


@pytest.mark.slow
def test_a_worker_that_holds_too_much_memory_is_replaced(tmp_path):
    study = toy_study(tmp_path, [{"seed_everything": seed, "pretrain.layers": 0, **PROBED} for seed in range(3)])
    assert carry_out(study, engine(tmp_path, workers=1, limits={"worker_gib": 0.1})).failed == {}  # torch alone: 0.2
    assert len({probe["pid"] for probe in probes(study)}) == 3
    assert starts(study) == [1] * 3


def test_memory_that_was_given_back_does_not_count():
    # in a process of its own: in this one a thread of another test may take memory in between
    code = (
        "from tlkit.study import worker; before = worker._own_gib(); block = b'x' * 2**28; "
        "full = worker._own_gib() - before; del block; print(full, worker._own_gib() - before)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    full, after = map(float, said.split())
    assert 0.24 < full < 0.3
    assert after < 0.05


@pytest.mark.slow
def test_memory_does_not_grow_from_run_to_run(tmp_path):
    study = toy_study(
        tmp_path,
        [{"seed_everything": seed, "pretrain.layers": 0, "trainer.max_epochs": 1} for seed in range(12)],
    )
    held = []
    for stage in study.stages.values():
        assert worker.work(task_of(study, stage)).status == "done"
        worker._tidy(first=False)
        held.append(worker._own_gib())
    assert held[-1] - held[3] < 0.02


def names(given: str | None, cards: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Returns the devices that workers see, one after the other, by their names in the engine's file."""
    monkeypatch.setattr(accelerators, "_count", lambda: cards)
    for name, value in ((accelerators.VARIABLE, given), (accelerators.ASSIGNED, None)):
        monkeypatch.setenv(name, value or "")
        if value is None:
            monkeypatch.delenv(name)
    accelerators.assign(wanted)
    seen = []
    for rank in range(len(wanted)):
        monkeypatch.setenv("PARSL_WORKER_RANK", str(rank))
        accelerators.take()
        seen.append(os.environ.get(accelerators.VARIABLE))
    return seen


@pytest.mark.parametrize(
    ("given", "cards", "wanted", "seen"),
    [
        (None, 2, ["0", "1"], ["0", "1"]),
        (None, 2, ["0", "1", "2", "3"], ["0", "1", "0", "1"]),
        (None, 4, ["1", "3"], ["1", "3"]),
        ("2,3", 4, ["0", "1"], ["2", "3"]),  # what the scheduler gave this job, on a node with four
        ("GPU-a1, GPU-b2", 4, ["0", "1", "2"], ["GPU-a1", "GPU-b2", "GPU-a1"]),
        (None, 2, ["GPU-a1", "MIG-c3"], ["GPU-a1", "MIG-c3"]),
        (None, 0, ["0", "1"], ["0", "1"]),  # cards of another maker
        (None, 2, [], []),
    ],
)
def test_a_worker_sees_its_accelerator(given, cards, wanted, seen, monkeypatch):
    assert names(given, cards, wanted, monkeypatch) == seen


@pytest.mark.parametrize(("given", "count"), [(None, 3), ("1", 1), ("", 0), ("-1", 0), ("0,-1,2", 1)])
def test_devices_that_are_hidden_from_the_driver_are_not_used(given, count, monkeypatch):
    monkeypatch.setattr(accelerators, "_count", lambda: 3)
    monkeypatch.setenv(accelerators.VARIABLE, given or "")
    if given is None:
        monkeypatch.delenv(accelerators.VARIABLE)
    assert len(accelerators.visible()) == count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("named", "given", "seen"), [(True, "3,5", ["3", "5"]), (True, "3", ["3", "3"]), (False, None, ["0"])]
)
def test_workers_are_pinned_before_torch_is_imported(tmp_path, monkeypatch, named, given, seen):
    # two names on two devices and on one; the default engine where there is one device
    path, notes = spy(tmp_path, cards=1)
    callbacks = [*PROBED["trainer.callbacks"], {"class_path": "probes.Nap", "init_args": {"seconds": 3.0}}]
    common = {"pretrain.layers": 0, "trainer.max_epochs": 1, "trainer.accelerator": "auto"}  # all workers get some
    seeds = range(2 * len(seen))
    study = toy_study(tmp_path, [{"seed_everything": s, "trainer.callbacks": callbacks, **common} for s in seeds])
    file = engine(tmp_path, None, available_accelerators=["0", "1"])
    monkeypatch.setenv("PYTHONPATH", f"{path}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment = {"TORCH_SPY": str(notes)} | ({"CUDA_VISIBLE_DEVICES": given} if given else {})
    driver = start(tmp_path, study, str(file) if named else "default", **environment)
    said = last_words(driver)
    assert driver.returncode == 0, said
    imports = [line.split() for line in notes.read_text().splitlines()]
    assert len({pid for pid, _ in imports}) == len(imports)
    assert sorted(device for _, device in imports) == seen
    assert {(str(probe["pid"]), probe["visible"]) for probe in probes(study)} == set(map(tuple, imports))


@pytest.mark.slow
def test_more_threads_than_cores_are_one_worker(tmp_path):
    threads = 1 + len(os.sched_getaffinity(0))
    study = toy_study(tmp_path, [{"seed_everything": s, "pretrain.layers": 0, **PROBED} for s in range(2)], threads)
    assert carry_out(study).failed == {}
    assert len({probe["pid"] for probe in probes(study)}) == 1
    assert {(probe["threads"], probe["omp"]) for probe in probes(study)} == {(threads, str(threads))}


@pytest.mark.slow
@pytest.mark.parametrize(("threads", "gib", "workers"), [(1, 8, 2), (2, 8, 1), (1, 3, 1)])
def test_the_default_engine_has_as_many_workers_as_fit_two_cores(tmp_path, monkeypatch, threads, gib, workers):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("PARSL_MEMORY_GB", str(gib))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    pool = parsl_pool(None, threads, False, (), tmp_path / "scratch", work=nap)
    assert carry_out(trivial_study(tmp_path, [1.0] * 6), pool=pool).done == 6
    assert len({line.split()[0] for line in (tmp_path / "done.txt").read_text().splitlines()}) == workers


@pytest.mark.slow
def test_a_stage_that_kills_its_workers_is_a_failure_and_the_others_go_on(tmp_path):
    exits = {"train": {"part": "train", "epoch": 1}, "test": {"part": "test"}}
    killers = [{"trainer.callbacks": [{"class_path": "probes.Exit", "init_args": args}]} for args in exits.values()]
    study = toy_study(tmp_path, [{"pretrain.layers": 0, **one} for one in (PROBED, {"data.bad_row": 3}, *killers)])
    good, wrong, *bad = study.stages
    outcome = carry_out(study, engine(tmp_path))
    assert outcome.done == 1 and list(results(study)) == [good]
    assert outcome.failed.keys() == {wrong, *bad}
    (run,) = (study.root / "toys").glob(f"transfer-{wrong[:8]}")
    assert (run / "log.txt").read_text().count(" stage in ") == 1  # its own error would come again
    assert "got standard deviations [nan]" in outcome.failed.pop(wrong)
    assert all("lost its worker 5 times at the same epoch" in message for message in outcome.failed.values())
    for id_ in bad:
        (run,) = (study.root / "toys").glob(f"transfer-{id_[:8]}")
        assert (run / "log.txt").read_text().count(" stage in ") == 5
        assert "lost its worker" in (study.root / "toys" / "failed" / id_[:8] / "reason.txt").read_text()


@pytest.mark.slow
def test_two_workers_are_busy_until_the_queue_is_empty(tmp_path, monkeypatch):
    # 80 tasks, every fourth ten times as long
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    study = trivial_study(tmp_path, [2.0 if n % 4 == 0 else 0.2 for n in range(80)])
    pool = parsl_pool(engine(tmp_path), 1, False, (), tmp_path / "scratch", work=nap)
    assert carry_out(study, pool=pool).done == 80
    done = [line.split() for line in (tmp_path / "done.txt").read_text().splitlines()]
    by_worker: dict[str, list[tuple[float, float]]] = {}
    for pid, begin, end in done:
        by_worker.setdefault(pid, []).append((float(begin), float(end)))
    empty = max(float(begin) for _, begin, _ in done)
    assert len(by_worker) == 2 and len(done) == 80
    idle = present = 0.0
    for tasks in by_worker.values():
        tasks.sort()
        idle += sum(later[0] - earlier[1] for earlier, later in zip(tasks, tasks[1:], strict=False))
        present += empty - tasks[0][0]
    assert idle / present < 0.05


def test_the_engines_that_come_with_it_are_valid():
    for name in ("local", "slurm", "pbs"):
        config, limits = read(ENGINES / f"{name}.yaml")
        assert config.executors[0].label == name
        assert limits == {"runs_per_worker": 500, "worker_gib": None}


def test_no_stage_starts_that_a_pilot_job_cannot_end():
    # an hour, less a minute for its ends; a stage may take a fifth longer than others did
    assert drain_period("01:00:00", [100, 600]) == 3600 - 60 - 720
    assert drain_period("00:01:00", [10]) == 60 - 15 - 12
    assert drain_period("01:00:00", []) is None  # nothing is known yet
    assert drain_period("00:10:00", [60, 900]) == 600 - 60 - 72  # 900 s are cut off anyway, and go on in the next
    assert drain_period("00:10:00", [900]) is None


def test_later_jobs_leave_the_time_that_stages_turned_out_to_take():
    executor = read(ENGINES / "slurm.yaml")[0].executors[0]
    leave_time(executor, ())
    assert executor.drain_period is None
    for seconds, period in ((600, 4 * 3600 - 60 - 720), (100, 4 * 3600 - 60 - 720), (3600, 4 * 3600 - 60 - 4320)):
        leave_time(executor, (seconds,))
        assert executor.drain_period == period
        assert f"--drain_period={period} " in executor.launch_cmd


def _read_for_ever(messages: SocketQueue) -> None:
    messages.get(timeout=60)


def test_a_reader_killed_while_it_waits_holds_nobody_up():
    messages, context = SocketQueue(), get_context("fork")
    reader = context.Process(target=_read_for_ever, args=(messages,))
    reader.start()
    while _state(reader.pid) != "S":  # asleep: it waits
        time.sleep(0.1)
    os.kill(reader.pid, signal.SIGKILL)
    reader.join()
    messages.put({"task": 1})
    assert messages.get(timeout=5) == {"task": 1}
    with pytest.raises(queue.Empty):
        messages.get(timeout=0.01)
    messages.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
