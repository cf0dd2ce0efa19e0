"""Hands out the stages of a study in one of three ways, and writes down when each was done by whom.

Run by ``study_engine.py`` as ``python study_driver.py ARM STUDY ENGINE RUNS LAPS``. The arms:

- ``engine``: ``tlkit study run``, whose workers note the time at the beginning and at the end of each stage;
- ``batches``: the same, but the next `WORKERS` stages are handed out when the last ones are all done;
- ``pool``: all stages at once to ``concurrent.futures.ProcessPoolExecutor``, whose workers do the same with a stage.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from study_clock import WORKERS, clocked

from tlkit import cli
from tlkit.study import engine as study_engine
from tlkit.study.engine import task_of
from tlkit.study.plan import plan_study
from tlkit.study.pool import Pool, parsl_pool
from tlkit.study.worker import Done, Task


@dataclass
class Watch:
    """What the driver sees.

    Attributes:
        begin: when the first stage was handed out, seconds of the machine's monotonic clock.
        end: when the last one came back.
        jobs: pilot jobs that were started.
        futures: of all stages.
    """

    begin: float = 0.0
    end: float = 0.0
    jobs: int = 0
    futures: list["Future[Done]"] = field(default_factory=list)

    def hand_out(self, submit: Callable[[Task], "Future[Done]"], task: Task) -> "Future[Done]":
        """Hands a stage out."""
        self.begin = self.begin or time.monotonic()
        future = submit(task)
        self.futures.append(future)
        future.add_done_callback(self._came_back)
        return future

    def _came_back(self, _: "Future[Done]") -> None:
        self.end = time.monotonic()

    def report(self) -> dict[str, Any]:
        """Returns everything, fit for JSON; each stage must be done."""
        laps = [future.result() for future in self.futures]
        assert all(lap.status == "done" for lap in laps), [lap.message for lap in laps if lap.status != "done"]
        kept = ("begin", "end", "worker", "imported")
        rows = [{name: getattr(lap, name) for name in kept} for lap in laps]
        return {"begin": self.begin, "end": self.end, "jobs": self.jobs, "laps": rows}


def by_engine(study: Path, engine: Path, runs: Path, watch: Watch, batches: bool = False) -> None:
    """Runs the command."""
    from parsl.providers import LocalProvider

    submit_job = LocalProvider.submit

    def counted(*args: Any, **kwargs: Any) -> Any:
        watch.jobs += 1
        return submit_job(*args, **kwargs)

    @contextmanager
    def watched(*args: Any, **kwargs: Any) -> Iterator[Pool]:
        with parsl_pool(*args, **kwargs, work=clocked) as pool:

            def submit(task: Task) -> "Future[Done]":
                if batches and len(watch.futures) % WORKERS == 0:
                    wait(watch.futures)
                return watch.hand_out(pool.submit, task)

            yield replace(pool, submit=submit)

    LocalProvider.submit = counted
    study_engine.parsl_pool = watched
    code = cli.main(["study", "run", str(study), "--engine", str(engine), "--runs", str(runs)])
    assert code == 0, f"tlkit study run ended with exit code {code}"


def by_batches(study: Path, engine: Path, runs: Path, watch: Watch) -> None:
    """Runs the command, two stages after two."""
    by_engine(study, engine, runs, watch, batches=True)


def by_pool(study: Path, engine: Path, runs: Path, watch: Watch) -> None:
    """Needs no order: no stage starts from another here."""
    plan = plan_study(study, runs).plan
    assert all(stage.pretrain is None for stage in plan.stages.values())
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        for stage in plan.stages.values():  # the first `submit` starts the workers
            watch.hand_out(partial(pool.submit, clocked), task_of(plan, stage))


ARMS: dict[str, Callable[[Path, Path, Path, Watch], None]] = {
    "engine": by_engine,
    "batches": by_batches,
    "pool": by_pool,
}


if __name__ == "__main__":
    arm, *files, laps = sys.argv[1:]
    watch = Watch()
    ARMS[arm](*map(Path, files), watch)
    Path(laps).write_text(json.dumps(watch.report()))
