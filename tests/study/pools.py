"""Engines for tests, drivers that are processes of their own, and what both leave behind."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tlkit.study.planned import StudyPlan

ENGINES = Path(__file__).parents[2] / "configs" / "engines"
HERE = Path(__file__).parent
PROBED = {"trainer.callbacks": [{"class_path": "probes.Probe"}]}

SPY = '''\
import os, sys


class Torch:
    """Notes who imports torch, and which devices it sees at that moment."""

    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            with open(os.environ["TORCH_SPY"], "a") as file:
                file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")


sys.meta_path.insert(0, Torch())
'''

CARDS = """\
import os


class NVMLError(Exception):
    pass


def nvmlInit():
    pass


def nvmlDeviceGetCount():
    return {count}
"""


def engine(tmp_path: Path, workers: int | None = 2, limits: dict[str, float] | None = None, **changes: Any) -> Path:
    """Writes the configuration for this machine, with a number of workers and whatever else is to be different."""
    content = yaml.safe_load((ENGINES / "local.yaml").read_text()) | (limits or {})
    content["parsl"]["init_args"]["executors"][0]["init_args"] |= {"max_workers_per_node": workers} | changes
    target = tmp_path / "engine.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


def results(study: StudyPlan) -> dict[str, dict[str, Any]]:
    """Returns id -> result of every finished run; one per id."""
    found = [json.loads(path.read_text()) for path in (study.root / "toys").glob("*/result.json")]
    by_id = {result["id"]: result for result in found}
    assert len(found) == len(by_id)
    return by_id


def probes(study: StudyPlan) -> list[dict[str, Any]]:
    """Returns what `probes.Probe` saw in each stage that had it."""
    return [r["summaries"]["Probe"] for r in results(study).values() if "Probe" in r["summaries"]]


def starts(study: StudyPlan) -> list[int]:
    """Returns how often each run was begun or gone on with."""
    return [text.read_text().count(" stage in ") for text in (study.root / "toys").glob("*/log.txt")]


def start(tmp_path: Path, study: StudyPlan, engine: str, **environment: str) -> subprocess.Popen[str]:
    """Starts a driver of its own; the processes that follow from it are known by the name of its directory."""
    plan = tmp_path / "plan.pickle"
    plan.write_bytes(pickle.dumps(study))
    path = [os.environ.get("PYTHONPATH", ""), str(HERE.parent), str(HERE)]
    return subprocess.Popen(
        [sys.executable, str(HERE / "studies.py"), str(plan), engine],
        env=os.environ | {"TLKIT_TEST": str(tmp_path), "PYTHONPATH": ":".join(filter(None, path))} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(happened: Callable[[], object], driver: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits until something has happened, while a driver works; for more than so long is a failure."""
    end = time.monotonic() + seconds
    while not happened():
        if driver.poll() is not None or time.monotonic() > end:
            _give_up(driver, f"what was waited for has not happened in {seconds:.0f} s, or before the driver's end")
        time.sleep(0.05)


def last_words(driver: subprocess.Popen[str], seconds: float = 240) -> str:
    """Returns all that a driver has said, once it and whoever has its output have ended; later than so is a failure."""
    try:
        return driver.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        _give_up(driver, f"a driver, or who has its output, has not ended in {seconds:.0f} s")


def _give_up(driver: subprocess.Popen[str], why: str) -> NoReturn:
    """Ends a driver and all that follows from it: nobody else would, and who waits for its output would for ever."""
    assert isinstance(driver.args, list)
    left = processes(str(Path(driver.args[2]).parent))
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    pytest.fail(f"{why}; said: {driver.communicate(timeout=30)[0]!r}; still there: {left}")


def processes(mark: str) -> dict[int, str]:
    """Returns process -> command line of all that have a mark in it, in their environment, or in a file they hold."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            known = [command, (entry / "environ").read_bytes().decode(errors="replace")]
            known += [os.readlink(file) for file in (entry / "fd").iterdir()]  # the interchange renames itself
            if any(mark in text for text in known):
                found[int(entry.name)] = command
        except OSError:
            continue
    return found


def gone(mark: str, seconds: float) -> bool:
    """Waits until no process has a mark, at most for so long."""
    end = time.monotonic() + seconds
    while processes(mark):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


def spy(tmp_path: Path, cards: int | None = None) -> tuple[str, Path]:
    """Writes modules that note imports of torch, and that say how many accelerators there are.

    Returns:
        A directory for ``PYTHONPATH``, and the file with a line for each import: process, devices that it sees.
    """
    folder, notes = tmp_path / "spy", tmp_path / "torch.txt"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPY)
    if cards is not None:
        (folder / "pynvml.py").write_text(CARDS.format(count=cards))
    return str(folder), notes


def children(pid: int) -> list[int]:
    """Returns the processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
