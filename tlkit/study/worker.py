"""What a worker does with one stage of a study."""

import gc
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tlkit.errors import FULL_DISK, UserError
from tlkit.paths import Config
from tlkit.study import accelerators, survival

if TYPE_CHECKING:
    from tlkit.experiment import Planner

_done_here = 0


@dataclass(frozen=True)
class Task:
    """One stage to be carried out; paths are absolute.

    Attributes:
        id: identity of the stage, sha256 in hex.
        stage: ``pretrain`` or ``transfer``.
        config: resolved configuration.
        threads: of the process that trains it.
        failed: directory that gets log and traceback should the stage fail.
        cwd: the driver's directory, which relative paths in the configuration start from.
        path: the driver's ``sys.path``, where the user's classes are.
        runs_per_worker: a worker that has done so many ends and is replaced; None: no limit.
        worker_gib: a worker that holds more memory than this after a stage ends and is replaced; None: no limit.
    """

    id: str
    stage: str
    config: Config
    threads: int
    failed: Path
    cwd: str = field(default_factory=os.getcwd)
    path: tuple[str, ...] = field(default_factory=lambda: tuple(filter(None, sys.path)))
    runs_per_worker: int | None = None
    worker_gib: float | None = None


@dataclass(frozen=True)
class Done:
    """What became of a stage.

    Attributes:
        status: ``done``, ``failed``, or ``full``: no room on the disk, so nothing else can be done either.
        path: of the run directory, or of what was left of a failure.
        message: what went wrong; empty where nothing did.
        metric: the selecting metric, ``{name, mode, best, …}`` as in ``result.json``; empty unless done.
        seconds: that it took this time.
    """

    status: Literal["done", "failed", "full"]
    path: Path
    message: str = ""
    metric: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def work_in_pool(task: Task) -> Done:
    """Carries a stage out in a worker process, after making that process fit for it."""
    global _done_here
    if _done_here == 0:
        _prepare(task)
    done = work(task)
    _tidy(first=_done_here == 0)
    _done_here += 1
    if _worn_out(task):
        survival.retire()
    return done


def work(task: Task) -> Done:
    """Carries a stage out: goes on with one that was cut off, takes one that is finished, else starts anew.

    What goes wrong in the stage itself is the stage's result; only an interrupt gets out.
    """
    import torch

    torch.set_num_threads(task.threads)
    logging.getLogger("tlkit").setLevel(logging.DEBUG)  # for log.txt
    root, begin = Path(task.config["runs"]), time.monotonic()
    try:
        run = _run(task, root)
        metric = json.loads((run / "result.json").read_text())["metric"]
        return Done("done", run, metric=metric, seconds=time.monotonic() - begin)
    except OSError as error:
        if error.errno in FULL_DISK:
            return Done("full", root, str(error))
        return _failed(task, error)
    except (Exception, SystemExit) as error:
        return _failed(task, error)


def _run(task: Task, root: Path) -> Path:
    from tlkit import runs, stage_run
    from tlkit.guard import quieten_lightning

    quieten_lightning()
    stage = _planner().anew().stage(task.config, task.stage)
    if stage.id != task.id:
        raise UserError(
            f"expected the stage {task.id[:8]} that was planned, got {stage.id[:8]}: the data, a source file, or "
            "tlkit have changed since, or are not the same on this machine; plan the study again"
        )
    # Held by the retry of a lost stage too, which so waits until the lost one is really gone.
    with runs.lock(root / ".locks" / f"{stage.id[:16]}.lock"):
        found = runs.find_finished(root, stage.name, stage.id)
        path = (found or stage_run.run(stage, "last")).path
        for half_written in path.rglob(".*.tmp"):  # by a process that was killed; its stage is this one's alone
            half_written.unlink()
        return path


@cache
def _planner() -> "Planner":
    """Returns this process's own: parsing takes 0.06 s, and most of it is the same in all stages."""
    from tlkit.experiment import Planner

    return Planner()


def _failed(task: Task, error: BaseException) -> Done:
    """Leaves the traceback and the run's log where failures are looked for."""
    from tlkit import runs

    target = task.failed / task.id[:8]
    target.mkdir(parents=True, exist_ok=True)
    runs.write_text(target / "traceback.txt", "".join(traceback.format_exception(error)))
    (run, *_) = [*runs.find(Path(task.config["runs"]), task.stage, task.id), None]
    if run and (run.path / "log.txt").exists():
        shutil.copyfile(run.path / "log.txt", target / "log.txt")
    message = f"{type(error).__name__}: {error}" if not isinstance(error, UserError) else str(error)
    return Done("failed", target, message)


def _prepare(task: Task) -> None:
    """Makes a worker of Parsl's fit for training; before torch is imported."""
    if pool := multiprocessing.parent_process():
        survival.die_with_parent(pool.pid)
    accelerators.take()
    os.chdir(task.cwd)
    sys.path += [entry for entry in task.path if entry not in sys.path]
    set_environment(task.threads)
    # Parsl's workers spawn theirs: importing torch again costs 4 s for each data worker of each stage.
    multiprocessing.set_start_method("fork", force=True)
    log = logging.getLogger("tlkit")
    log.handlers, log.propagate = [logging.NullHandler()], False


def set_environment(threads: int) -> None:
    """Sets what libraries read when they are imported; before torch is."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        del os.environ[name]  # Lightning would take a job's tasks for the processes of one training


def _tidy(first: bool) -> None:
    """Gives back what a stage held: trainer, network and optimizer refer to each other, and to an accelerator's memory.

    Modules stay for good: looking through them as well takes 0.2 s instead of 0.01.
    """
    gc.collect()
    if first:
        gc.freeze()


def _worn_out(task: Task) -> bool:
    return (task.runs_per_worker is not None and _done_here >= task.runs_per_worker) or (
        task.worker_gib is not None and _own_gib() > task.worker_gib
    )


def _own_gib() -> float:
    """Returns the memory that this process holds at this moment, without pages of files such as packed data, GiB.

    Not the peak: what a large stage took and gave back is no reason for a fresh process after each one that follows.
    """
    resident, shared = map(int, Path("/proc/self/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 2**30
