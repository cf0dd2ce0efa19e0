"""Carries a scaling study out: one measurement after the other, each with fresh workers and no run to reuse."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlkit.errors import UserError
from tlkit.runs import lock, write_text
from tlkit.study.engine import carry_out, sole_driver, task_of
from tlkit.study.plan import DRIVER
from tlkit.study.planned import StudyPlan
from tlkit.study.pool import Pool, parsl_pool
from tlkit.study.scaling import Measurement, ScalingStudy, digest, measurements
from tlkit.study.scaling_worker import GetReady, serve
from tlkit.study.worker import Done, Task


@dataclass
class Watch:
    """What is read off while the stages of one measurement are carried out.

    Attributes:
        startup_seconds: until all workers were ready, s.
        wall_seconds: from then on until the last stage was done, s.
        busy_seconds: that the workers were at stages, summed over all, s.
        cores: host -> cores that its workers could use.
    """

    startup_seconds: float = 0.0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    cores: dict[str, int] = field(default_factory=dict)


def run_scaling(study: ScalingStudy, engine: Path | None) -> list[Measurement]:
    """Makes all measurements that are not done; one that was cut off from its start.

    Args:
        study: as planned.
        engine: YAML of a Parsl configuration; None: this machine.

    Returns:
        Those in which some stage failed: they are not done.

    Raises:
        UserError: another driver is at this study, the engine does not start or breaks down, the disk is full.
    """
    failed = []
    with sole_driver(study.folder / DRIVER):
        todo = [one for one in measurements(study.scaling) if study.kept(one) is None]
        for number, one in enumerate(todo, 1):
            print(f"{one} ({number} of {len(todo)})", flush=True)
            found = _measure(study, one, engine)
            if found is None:
                failed.append(one)
                continue
            write_text(study.folder / f"{one.name}.json", json.dumps(found))
            shutil.rmtree(study.folder / one.name, ignore_errors=True)
            busy = found["busy_seconds"] / (one.workers * found["wall_seconds"])
            print(
                f"  {found['wall_seconds']:.1f} s after {found['startup_seconds']:.1f} s of start-up, workers busy "
                f"{100 * busy:.0f} % of the time",
                flush=True,
            )
    return failed


def _measure(study: ScalingStudy, one: Measurement, engine: Path | None) -> dict[str, Any] | None:
    """Returns what was measured; None: some stage failed."""
    root = study.folder / one.name
    _clear(root)
    plan = replace(study.plans[one.threads], root=root)
    watch = Watch()
    if carry_out(plan, pool=_ready_workers(plan, one.workers, engine, watch)).failed:
        return None
    return {
        "of": digest(plan),
        "stages": len(plan.stages),
        "startup_seconds": watch.startup_seconds,
        "wall_seconds": watch.wall_seconds,
        "busy_seconds": watch.busy_seconds,
        "cores": watch.cores,
        "engine": str(engine or "local"),
    }


def _clear(root: Path) -> None:
    """Removes what is left of a measurement that was cut off, when nothing is at work on it any more."""
    for file in root.glob(".locks/*.lock"):
        with lock(file):  # the workers of a driver that was killed end seconds after it
            pass
    if root.exists():
        gone = root.with_name(f".{root.name}-{os.getpid()}")
        root.rename(gone)  # at once: a worker that is late finds nothing
        shutil.rmtree(gone, ignore_errors=True)


@contextmanager
def _ready_workers(plan: StudyPlan, workers: int, engine: Path | None, watch: Watch) -> Iterator[Pool]:
    """Starts workers, waits until all are ready, and takes the time of what is then done with them."""
    scratch = plan.root.resolve() / plan.name / ".engine"
    accelerated = any(stage.config["trainer"].get("accelerator") != "cpu" for stage in plan.stages.values())
    futures: list[Future[Done]] = []
    begin = time.perf_counter()
    with parsl_pool(engine, plan.threads, accelerated, (), scratch, workers, serve) as pool:
        _get_ready(plan, workers, pool)
        for file in _meeting(plan).glob("*.json"):
            machine = json.loads(file.read_text())
            watch.cores[machine["host"]] = machine["cores"]

        def submit(task: Task) -> Future[Done]:
            futures.append(pool.submit(task))
            return futures[-1]

        watch.startup_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        yield replace(pool, submit=submit)
        watch.wall_seconds = time.perf_counter() - begin
        results = (future.result() for future in futures if not future.exception())  # a lost worker's time is lost
        watch.busy_seconds = sum(done.seconds for done in results)


def _meeting(plan: StudyPlan) -> Path:
    return plan.root.resolve() / f".ready-{os.getpid()}"  # not that of a driver that was killed


def _get_ready(plan: StudyPlan, workers: int, pool: Pool) -> None:
    from parsl.executors.errors import BadStateException
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    by_data = {json.dumps(stage.config.get("data")): stage for stage in plan.stages.values()}
    tasks = [task_of(plan, stage) for stage in by_data.values()]
    samples = tuple((task.stage, task.config) for task in tasks)
    task = GetReady(**vars(tasks[0]), samples=samples, meeting=_meeting(plan), workers=workers)
    pending = {pool.submit(replace(task, number=number)) for number in range(workers)}
    while pending:
        finished, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in finished:
            try:
                done = future.result()
            except (WorkerLost, ManagerLost, BadStateException) as error:
                raise UserError(f"expected {workers} workers, got: {error}\ntried:\n{pool.tried()}") from error
            if done.status != "done":
                raise UserError(done.message)
        if not finished:
            pool.check()
