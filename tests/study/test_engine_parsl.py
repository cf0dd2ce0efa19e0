import io
import json
import os
import queue
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from studies import toy_study

from tlkit.errors import UserError
from tlkit.study.engine import carry_out
from tlkit.study.live import Live
from tlkit.study.planned import StudyPlan
from tlkit.study.pool import MARGIN, _drain_period, read
from tlkit.study.survival import SocketQueue

ENGINES = Path(__file__).parents[2] / "configs" / "engines"
PROBED = {"trainer.callbacks": [{"class_path": "probes.Probe"}]}


def engine(tmp_path: Path, workers: int = 2, **limits: float | None) -> Path:
    """Writes the configuration for this machine, with a number of workers and limits on them."""
    content = yaml.safe_load((ENGINES / "local.yaml").read_text())
    content["parsl"]["init_args"]["executors"][0]["init_args"]["max_workers_per_node"] = workers
    target = tmp_path / "engine.yaml"
    target.write_text(yaml.safe_dump(content | limits))
    return target


def results(study: StudyPlan) -> dict[str, dict]:
    """Returns id -> result of every finished run; one per id."""
    found = [json.loads(path.read_text()) for path in (study.root / "toys").glob("*/result.json")]
    by_id = {result["id"]: result for result in found}
    assert len(found) == len(by_id)
    return by_id


@pytest.mark.parametrize(("transfers", "limit"), [(1, None), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_warm_workers_that_are_replaced_give_what_this_process_gives(tmp_path, monkeypatch, transfers, limit):
    # one pretrain, three transfers; the worker ends before the third stage and another goes on
    monkeypatch.setenv("SLURM_NTASKS", "4")  # as in a pilot job: Lightning would wait for three other processes
    monkeypatch.setenv("SLURM_JOB_NAME", "pilot")
    variants = [{"trainer.max_epochs": n, "data.num_workers": n % 2, **PROBED} for n in range(1, 1 + transfers)]
    study = toy_study(tmp_path, variants)
    assert carry_out(study, engine(tmp_path, workers=1, runs_per_worker=limit)).failed == {}
    pooled = results(study)
    seen = [r["summaries"]["Probe"] for r in pooled.values() if r["stage"] == "transfer"]
    assert len({probe.pop("pid") for probe in seen}) == (2 if limit else 1)
    expected = {"main": True, "threads": 1, "omp": "1", "environment": "LightningEnvironment", "world_size": 1}
    assert seen == [expected | {"visible": None}] * transfers
    monkeypatch.delenv("SLURM_NTASKS")
    here = toy_study(tmp_path / "here", variants)
    assert carry_out(here, "inline").failed == {}
    assert {id_: r["metrics"] for id_, r in results(here).items()} == {id_: r["metrics"] for id_, r in pooled.items()}
    assert sorted(path.name for path in (study.root / "toys").glob(".*")) == [".driver.lock"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Parsl leaves sockets to be collected
@pytest.mark.parametrize("name", ["local", "slurm", "pbs"])
def test_the_engines_that_come_with_it_are_valid(name):
    config, limits = read(ENGINES / f"{name}.yaml")
    assert config.executors[0].label == name
    assert limits == {"runs_per_worker": 500, "worker_gib": None}


def test_a_wrong_engine_is_refused_with_its_file(tmp_path):
    file = tmp_path / "engine.yaml"
    study = toy_study(tmp_path, [{}])
    with pytest.raises(UserError, match=r"engine\.yaml.*No such file"):
        carry_out(study, file)
    file.write_text("parsl: {class_path: parsl.config.Config, init_args: {retires: 3}}")
    with pytest.raises(UserError, match=r"engine\.yaml: parsl: .*retires"):
        carry_out(study, file)
    executors = "[{class_path: parsl.executors.threads.ThreadPoolExecutor}]"
    file.write_text(f"parsl: {{class_path: parsl.config.Config, init_args: {{executors: {executors}}}}}")
    with pytest.raises(UserError, match="main thread, got ThreadPoolExecutor"):
        carry_out(study, file)


def test_no_stage_starts_that_a_pilot_job_cannot_end():
    assert _drain_period("01:00:00", longest=600) == 3600 - 600 - MARGIN
    assert _drain_period("00:10:00", longest=900) is None  # cut off and resumed, for want of a longer job


def test_the_line_of_a_study():
    seconds, stream = [0.0], io.StringIO()
    live = Live(60, 10, clock=lambda: seconds[0], stream=stream)
    assert live.line() == "10/60 done, 0 running, 0 failed"
    seconds[0], live.done, live.failed, live.running = 120.0, 19, 1, 2
    for best, id_ in ((0.5, "a"), (0.9, "b"), (0.7, "c")):
        live.take({"name": "val/accuracy", "mode": "max", "best": best}, id_ * 64)
    # ten stages in two minutes, forty to go
    expected = "19/60 done, 2 running, 1 failed · 5/min · ETA 8 min 00 s · best val/accuracy 0.9 (bbbbbbbb)"
    assert live.line() == expected
    live.draw(lambda: 2)
    live.draw(lambda: 3)
    assert stream.getvalue() == expected + "\n"


def _read_for_ever(messages: SocketQueue) -> None:
    messages.get(timeout=60)


def test_a_reader_killed_while_it_waits_holds_nobody_up():
    messages, context = SocketQueue(), get_context("fork")
    reader = context.Process(target=_read_for_ever, args=(messages,))
    reader.start()
    while _state(reader.pid) != "S":  # asleep: it waits
        time.sleep(0.1)
    reader.kill()
    reader.join()
    messages.put({"task": 1})
    assert messages.get(timeout=5) == {"task": 1}
    with pytest.raises(queue.Empty):
        messages.get(timeout=0.01)
    messages.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def start(tmp_path: Path, name: str, seeds: int) -> subprocess.Popen[str]:
    """Starts a driver of its own on the study of so many seeds."""
    tests = Path(__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, str(tests / "study" / "studies.py"), str(tmp_path), name, str(seeds)],
        env=os.environ | {"TLKIT_TEST": str(tmp_path), "PYTHONPATH": f"{tests}:{tests / 'study'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def processes(mark: str) -> dict[int, str]:
    """Returns process -> command line of all whose environment or command has a mark."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if mark in command or mark in (entry / "environ").read_bytes().decode(errors="replace"):
                found[int(entry.name)] = command
        except OSError:
            continue
    return found


@pytest.mark.cluster
def test_an_engine_that_cannot_start_says_what_it_tried(tmp_path):
    file = engine(tmp_path)
    content = yaml.safe_load(file.read_text())
    provider = content["parsl"]["init_args"]["executors"][0]["init_args"]["provider"]
    provider["init_args"] = {"worker_init": "echo no such module >&2; exit 7"}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"(?s)EXIT CODE: 7.*no such module.*LocalProvider.*tlkit\.study\.launch pool"):
        carry_out(toy_study(tmp_path, [{}]), file)


@pytest.mark.cluster
def test_a_killed_driver_leaves_nothing_running_and_starting_again_goes_on(tmp_path):
    file = engine(tmp_path)
    driver = start(tmp_path, str(file), 3)
    while not list(tmp_path.glob("runs/toys/*/checkpoints/last.ckpt")):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.1)
    assert len(processes(str(tmp_path))) >= 4
    driver.kill()
    driver.communicate()
    time.sleep(15)
    assert processes(str(tmp_path)) == {}
    study = toy_study(tmp_path, [{"seed_everything": seed} for seed in range(3)])
    assert carry_out(study, file).failed == {}
    assert results(study).keys() == study.stages.keys()
    assert len(list(tmp_path.glob("runs/toys/*/identity.json"))) == 6  # nothing was started twice


@pytest.mark.cluster
def test_ctrl_c_ends_everything_in_order(tmp_path):
    driver = start(tmp_path, str(engine(tmp_path)), 3)
    while not list(tmp_path.glob("runs/toys/*/checkpoints/last.ckpt")):
        assert driver.poll() is None, driver.communicate()[0]
        time.sleep(0.1)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    assert "KeyboardInterrupt" in driver.communicate(timeout=15)[0]
    assert processes(str(tmp_path)) == {}
    assert not list((tmp_path / "runs" / "toys").glob("failed/*"))
