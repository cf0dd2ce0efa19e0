"""Carries a study out: every stage once, in the order of what starts from what, whatever happens to the workers."""

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from tlkit import runs
from tlkit.errors import UserError
from tlkit.study.live import Live
from tlkit.study.plan import DRIVER
from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.pool import Pool, inline, parsl_pool
from tlkit.study.state import states
from tlkit.study.todo import to_run
from tlkit.study.worker import Done, Task

LOSSES = 5
"""Times in a row that a stage may lose its worker without a new checkpoint: then the stage is what kills it."""


@dataclass(frozen=True)
class Outcome:
    """What became of a study's stages.

    Attributes:
        done: finished stages, those of earlier calls included.
        failed: id -> what went wrong; a stage whose pretrain failed is among them.
    """

    done: int
    failed: Mapping[str, str]


@dataclass
class _State:
    """Stages by what is to become of them."""

    waiting: dict[str, PlannedStage]
    ready: list[PlannedStage] = field(default_factory=list)
    flying: dict["Future[Done]", PlannedStage] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    losses: dict[str, list[int]] = field(default_factory=dict)  # id -> how far it was at each loss


def carry_out(
    plan: StudyPlan,
    engine: Path | Literal["inline"] | None = None,
    estimate: Mapping[str, float] | None = None,
    pool: AbstractContextManager[Pool] | None = None,
) -> Outcome:
    """Runs all stages of a study that are not finished; one that was cut off goes on from its last checkpoint.

    Args:
        plan: the study.
        engine: YAML of a Parsl configuration, ``inline`` for this process, None for this machine.
        estimate: id of a stage -> seconds that it is expected to take.
        pool: workers to be used in place of the engine's.

    Raises:
        UserError: another driver is at this study, the engine does not start or breaks down, the disk is full.
    """
    estimate = estimate or {}
    study = plan.root.resolve() / plan.name
    with sole_driver(study / DRIVER):
        scratch = study / ".engine"
        shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed
        todo = to_run(plan)
        live = _live(plan, {stage.id for stage in todo})
        state = _State({stage.id: stage for stage in todo})
        if todo:
            accelerated = any(stage.config["trainer"].get("accelerator") != "cpu" for stage in todo)
            expected = [estimate[stage.id] for stage in todo if stage.id in estimate]
            if pool is None:
                pool = (
                    inline() if engine == "inline" else parsl_pool(engine, plan.threads, accelerated, expected, scratch)
                )
            with pool as workers:
                _loop(plan, state, workers, live, estimate)
        live.draw(lambda: 0, last=True)
    return Outcome(live.done, state.failed)


def _live(plan: StudyPlan, todo: set[str]) -> Live:
    """Returns how far the study is, with the best of what was found before."""
    live = Live(len(plan.stages), len(plan.stages) - len(todo))
    before = [(stage.stage, id_) for id_, stage in plan.stages.items() if stage.stage == "transfer" and id_ not in todo]
    for id_, found in states(plan.root, plan.name, before).items():
        if found.result:
            live.take(found.result["metric"], id_)
    return live


def _loop(plan: StudyPlan, state: _State, workers: Pool, live: Live, estimate: Mapping[str, float]) -> None:
    _release(state, estimate)
    while state.ready or state.flying:
        while state.ready and len(state.flying) < workers.slots:
            stage = state.ready.pop(0)
            state.flying[workers.submit(task_of(plan, stage))] = stage
        finished, _ = wait(state.flying, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in finished:
            _take(plan, state, state.flying.pop(future), future, live, workers)
        if finished:
            _release(state, estimate)
        else:
            workers.check()
        live.draw(workers.running)


def _release(state: _State, estimate: Mapping[str, float]) -> None:
    """Makes ready what waits for nothing any more: the longest first, so that no worker is left with it at the end."""
    pending = state.waiting.keys() | {stage.id for stage in (*state.ready, *state.flying.values())}
    free = [stage for stage in state.waiting.values() if stage.pretrain not in pending]
    for stage in sorted(free, key=lambda stage: -estimate.get(stage.id, 0.0)):
        state.ready.append(state.waiting.pop(stage.id))


def task_of(plan: StudyPlan, stage: PlannedStage) -> Task:
    """Returns what a worker needs to carry a stage out."""
    config = stage.config | {"runs": str(plan.root.resolve())}
    config["trainer"] = config["trainer"] | {"enable_progress_bar": False}
    config["pretrain"] = config["pretrain"] | {"reuse": True}  # it is this study's, finished before
    return Task(stage.id, stage.stage, config, plan.threads, plan.root.resolve() / plan.name / "failed")


def _take(
    plan: StudyPlan, state: _State, stage: PlannedStage, future: "Future[Done]", live: Live, workers: Pool
) -> None:
    """Enters what became of a stage."""
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    try:
        done = future.result()
    except (WorkerLost, ManagerLost) as error:
        reached = state.losses.setdefault(stage.id, [])
        reached.append(_progress(plan, stage))
        if reached.count(reached[-1]) < LOSSES:  # one that got further was cut off, as by the end of a pilot job
            state.ready.insert(0, stage)
            return
        _fail(plan, state, stage, f"lost its worker {LOSSES} times at the same epoch, the last time so: {error}", live)
        return
    except Exception as error:  # of the pool or of what brings tasks to it: those of a stage are its result
        raise UserError(f"the engine cannot keep workers: {error}\ntried:\n{workers.tried()}") from error
    if done.status == "full":
        raise UserError(
            f"expected room on the disk, got: {done.message}; what is finished is kept. Free some space, then start "
            "the study again to go on"
        )
    if done.status == "failed":
        _fail(plan, state, stage, f"{done.message} ({done.path})", live)
        return
    shutil.rmtree(plan.root / plan.name / "failed" / stage.id[:8], ignore_errors=True)
    live.done += 1
    workers.learn(done.seconds)
    if stage.stage == "transfer":
        live.take(done.metric, stage.id)


def _progress(plan: StudyPlan, stage: PlannedStage) -> int:
    """Returns when a stage's last checkpoint was written, ns; 0: there is none."""
    written = (run.last for run in runs.find(plan.root, stage.stage, stage.id) if run.last.exists())
    return max((file.stat().st_mtime_ns for file in written), default=0)


def _fail(plan: StudyPlan, state: _State, stage: PlannedStage, message: str, live: Live) -> None:
    """Enters a failure, and with it all stages that would start from this one."""
    state.failed[stage.id] = message
    live.failed += 1
    live.say(f"failed: {stage.stage} {stage.id[:8]}: {message}")
    target = plan.root / plan.name / "failed" / stage.id[:8]
    target.mkdir(parents=True, exist_ok=True)
    runs.write_text(target / "reason.txt", message + "\n")
    for other in [other for other in state.waiting.values() if other.pretrain == stage.id]:
        del state.waiting[other.id]
        _fail(plan, state, other, f"not run: its pretrain {stage.id[:8]} failed", live)


@contextmanager
def sole_driver(path: Path) -> Iterator[None]:
    """Holds the lock of a study.

    Raises:
        UserError: another driver has it; names that one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"expected to be the only one at work on {path.parent}, got {runs.owner(path)}, which is at it; wait for "
            "it, or stop it: starting again goes on where it stopped"
        ) from None
    try:
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))  # in place: the lock is on it
        yield
    finally:
        held.release()
