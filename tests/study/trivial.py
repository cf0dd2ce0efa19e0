"""Stages that take no work, or only time, for what is asked of an engine alone. Imports no torch by itself."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.worker import Done, Task, work_in_pool


def trivial_study(tmp_path: Path, seconds: Iterable[float]) -> StudyPlan:
    """Returns stages that take these times, s."""
    stages = {}
    for number, length in enumerate(seconds):
        id_ = hashlib.sha256(str(number).encode()).hexdigest()
        config = {"trainer": {}, "pretrain": {}, "seconds": length, "notes": str(tmp_path / "done.txt")}
        stages[id_] = PlannedStage(id_, "transfer", config, None)
    return StudyPlan("trivial", tmp_path / "runs", stages)


def only_torch(task: Task) -> Done:
    """Does all that a worker does with a task, up to and with the import of torch."""
    from tlkit.study import worker

    worker.work = _note  # type: ignore[assignment]
    return work_in_pool(task)


def _note(task: Task) -> Done:
    import torch

    torch.set_num_threads(task.threads)
    return nap(task)


def nap(task: Task) -> Done:
    """Takes the task's time and leaves a line: process, begin and end, s."""
    begin = time.monotonic()
    time.sleep(task.config["seconds"])
    with open(task.config["notes"], "a") as file:
        file.write(f"{os.getpid()} {begin} {time.monotonic()}\n")
    return Done("done", Path())
