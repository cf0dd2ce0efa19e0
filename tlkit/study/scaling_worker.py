"""What a worker of a scaling study does: gets ready, waits until all others are, then carries stages out."""

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from tlkit.paths import Config
from tlkit.study.worker import Done, Task, _prepare, work_in_pool

PATIENCE = 300
"""Seconds that a worker which is ready waits for the others: starting, importing torch and packing data takes less."""


@dataclass(frozen=True)
class GetReady(Task):
    """What is handed to each worker before any stage.

    Attributes:
        samples: kind and configuration of stages, one for each data module: their data are packed, networks built.
        meeting: directory in which each worker leaves a file when it is ready.
        number: of this worker.
        workers: that are waited for.
    """

    samples: tuple[tuple[str, Config], ...] = ()
    meeting: Path = Path()
    number: int = 0
    workers: int = 1


def serve(task: Task) -> Done:
    """Carries a task of a scaling study out."""
    if isinstance(task, GetReady):
        return _get_ready(task)
    return work_in_pool(task)


def _get_ready(task: GetReady) -> Done:
    _prepare(task)
    import torch

    from tlkit.experiment import plan
    from tlkit.runs import write_text
    from tlkit.stage_check import check

    torch.set_num_threads(task.threads)
    try:
        for kind, config in task.samples:
            check(plan(config, kind))
    except (Exception, SystemExit) as error:
        return Done("failed", task.meeting, f"{type(error).__name__}: {error}")
    machine = {"host": socket.gethostname(), "cores": len(os.sched_getaffinity(0))}
    task.meeting.mkdir(parents=True, exist_ok=True)
    write_text(task.meeting / f"{task.number}.json", json.dumps(machine))
    end = time.monotonic() + PATIENCE
    while (met := len(list(task.meeting.glob("*.json")))) < task.workers:  # a hidden file is none of them
        if time.monotonic() > end:
            return Done("failed", task.meeting, f"expected {task.workers} workers, got {met} after {PATIENCE} s")
        time.sleep(0.01)
    return Done("done", task.meeting)
