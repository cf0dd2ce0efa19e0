"""Engines that cannot start, or break down: what they tried, and that the driver ends."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from parsl.providers import LocalProvider
from pools import ENGINES, children, engine, gone, last_words, processes, start, until
from studies import toy_study
from trivial import nap, trivial_study

from tlkit.errors import UserError
from tlkit.study.engine import carry_out
from tlkit.study.pool import parsl_pool

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Parsl's own sockets


def refused(tmp_path: Path, file: Path) -> str:
    """Returns what an engine says that cannot start."""
    study = trivial_study(tmp_path, [0.0])
    with pytest.raises(UserError) as caught:
        carry_out(study, pool=parsl_pool(file, 1, False, [60.0], tmp_path / "scratch", work=nap))
    return str(caught.value)


def change(name: str, tmp_path: Path, **changes: Any) -> Path:
    """Writes an engine that comes with tlkit, its provider changed."""
    content = yaml.safe_load((ENGINES / f"{name}.yaml").read_text())
    config = content["parsl"]["init_args"]
    provider = config["executors"][0]["init_args"]["provider"]
    provider["init_args"] = provider.get("init_args", {}) | changes
    config["strategy_period"] = 0.5  # s; a job that failed is replaced so much later
    target = tmp_path / "engine.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


EXECUTOR = "parsl: {class_path: parsl.config.Config, init_args: {executors: [{class_path: %s}]}}"
WRONG = {
    "": r"expected the keys parsl, runs_per_worker, worker_gib, got NoneType",
    "parsl: {executors: []}": r"parsl: expected class_path: parsl.config.Config, .*, got \{'executors'",
    "parsl: {class_path: parsl.config.Config, retries: 3}": r"parsl: expected class_path and init_args, .*'retries': 3",
    "parsl: {class_path: parsl.config.Config, init_args: [3]}": r"parsl: expected class_path and init_args.*\[3\]",
    "parsl: {}\nworkers: 3": r"expected the keys .*, got parsl, workers",
    "parsl: {}\nruns_per_worker: many": r"runs_per_worker: expected a number above 0, or null .*, got 'many'",
    "parsl: {}\nruns_per_worker: -1": r"runs_per_worker: expected a number above 0, or null for no limit, got -1",
    "parsl: {}\nworker_gib: 2GB": r"worker_gib: expected a number above 0, or null for no limit, got '2GB'",
    "parsl: {}\nworker_gib: true": r"worker_gib: expected a number .*, got True",
    "parsl: {class_path: parsl.config.Config, init_args: {retires: 3}}": r"parsl: parsl.config.Config .*retires",
    EXECUTOR % "parsl.executors.HighTroughputExecutor": r"parsl.executors\[0\]: .*HighTroughputExecutor cannot be made",
    EXECUTOR % "parsl.executors.threads.ThreadPoolExecutor": r"main thread, got ThreadPoolExecutor",
    "parsl: [": r"while parsing",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_refused_with_its_name(tmp_path, text):
    file = tmp_path / "engine.yaml"
    file.write_text(text)
    message = refused(tmp_path, file)
    assert str(file) in message
    assert re.search(WRONG[text], message)


def test_a_file_that_is_not_there_and_a_walltime_of_another_form(tmp_path):
    message = refused(tmp_path, Path("slurm"))
    assert "No such file" in message and f"examples: {ENGINES / 'local.yaml'}, " in message
    message = refused(tmp_path, change("slurm", tmp_path, walltime="1-00:00:00"))
    assert "walltime: expected HH:MM:SS, got 1-00:00:00" in message


@pytest.mark.slow
def test_a_job_that_fails_shows_its_output_and_what_was_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(LocalProvider, "status_polling_interval", 1)  # s, in place of 5
    message = refused(tmp_path, change("local", tmp_path, worker_init="echo no such module >&2; exit 7"))
    assert "3 jobs, one after the other, had no worker" in message
    assert "exit code: 7" in message and "errors: no such module" in message
    assert "LocalProvider" in message and "tlkit.study.launch pool" in message


@pytest.mark.slow
@pytest.mark.parametrize(("name", "command"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_scheduler_that_is_not_there_is_named(tmp_path, monkeypatch, name, command):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    message = refused(tmp_path, change(name, tmp_path))
    assert f"{command}: not found" in message and "Provider" in message


@pytest.mark.slow
def test_a_machine_without_room_for_a_worker_says_what_one_takes(tmp_path):
    message = refused(tmp_path, engine(tmp_path, mem_per_worker=100_000))
    assert "expected room for a worker, got none: each takes 1 cores and 100000 GiB" in message


@pytest.mark.slow
def test_an_interchange_that_dies_ends_the_study_and_starting_again_goes_on(tmp_path):
    nap = {"class_path": "probes.Nap", "init_args": {"seconds": 1.0}}
    study = toy_study(tmp_path, [{"seed_everything": seed, "trainer.callbacks": [nap]} for seed in range(2)])
    driver = start(tmp_path, study, str(engine(tmp_path)))
    until(lambda: list(tmp_path.glob("runs/toys/*/checkpoints/last.ckpt")), driver)
    known = processes(str(tmp_path))
    (interchange,) = [pid for pid in children(driver.pid) if "interchange" in known.get(pid, "")]
    os.kill(interchange, signal.SIGKILL)
    out = last_words(driver, 120)
    assert "Parsl's interchange has ended or does not answer; its log is in" in out
    assert gone(str(tmp_path), 30)
    assert carry_out(study, engine(tmp_path)).failed == {}
