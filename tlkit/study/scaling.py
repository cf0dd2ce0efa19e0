"""A scaling study: all its stages carried out anew for each number of workers and of threads, several times."""

import hashlib
import json
import random
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from tlkit.errors import UserError
from tlkit.runs import is_running, write_text
from tlkit.study.plan import DRIVER, load, plan_stages, runs_of, stages_of
from tlkit.study.planned import StudyPlan
from tlkit.study.spec import Scaling, Study
from tlkit.study.spec_file import read_study, refusal
from tlkit.study.state import failures

POINTER = "scaling.json"


@dataclass(frozen=True, order=True)
class Measurement:
    """One time that all stages are carried out.

    Attributes:
        workers: that do it.
        threads: of each.
        repeat: from 1.
    """

    workers: int
    threads: int
    repeat: int

    @property
    def name(self) -> str:
        """Its directory, and with ``.json`` the file of what was measured."""
        return f"workers-{self.workers}-threads-{self.threads}-repeat-{self.repeat}"

    def __str__(self) -> str:
        """Returns it in words."""
        return f"{setting(self.workers, self.threads)}, repeat {self.repeat}"


@dataclass(frozen=True)
class ScalingStudy:
    """A scaling study and where it is.

    Attributes:
        study: as written.
        scaling: what it is measured over.
        folder: of all that it leaves.
        plans: threads -> the stages, which are others for each: results depend on the threads.
    """

    study: Study
    scaling: Scaling
    folder: Path
    plans: dict[int, StudyPlan]

    def kept(self, one: Measurement) -> dict[str, Any] | None:
        """Returns what was measured; None: nothing, or not with these stages."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{one.name}.json").read_text(encoding="utf-8"))
            return found if found["of"] == digest(self.plans[one.threads]) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def state(self, one: Measurement) -> str:
        """Returns the state of a measurement: ``done``, ``running``, ``failed``, ``cut off`` or ``to do``."""
        root = self.folder / one.name
        if self.kept(one):
            return "done"
        if not root.is_dir():
            return "to do"
        if is_running(root / self.study.name, DRIVER):
            return "running"
        return "failed" if failures(root / self.study.name) else "cut off"


def scaling_study(path: Path, runs: Path | None = None, anew: bool = True) -> ScalingStudy | None:
    """Returns a planned scaling study; None: the file is that of another study.

    Args:
        path: the study's YAML.
        runs: directory of all runs; None: the experiment's.
        anew: whether to plan what is not planned, or differently; else the stored plan is taken as it is.

    Raises:
        UserError: everything that is wrong with the study or its experiment; there is no stored plan.
    """
    study, faults = read_study(path)
    if study is None:
        raise UserError(refusal(path, faults))
    if study.scaling is None:
        return None
    folder = (runs or runs_of(study.base)) / study.name
    plans = {}
    for threads in study.scaling.threads:
        root = folder / f"threads-{threads}"
        if anew:
            plans[threads] = plan_stages(replace(study, threads=threads), faults, root).plan
        elif stored := load(root / study.name):
            plans[threads] = StudyPlan(study.name, root, stages_of(stored), threads)
        else:
            raise UserError(f"expected a planned study in {folder}, got none; tlkit study plan {path} plans it")
    if anew:
        write_text(folder / POINTER, json.dumps({"file": str(path.resolve())}))
    return ScalingStudy(study, study.scaling, folder, plans)


def file_of(folder: Path) -> Path | None:
    """Returns the YAML of the scaling study that was planned in a directory; None: none was."""
    try:
        return Path(json.loads((folder / POINTER).read_text(encoding="utf-8"))["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def measurements(scaling: Scaling) -> list[Measurement]:
    """Returns all measurements in the order in which they are made.

    Each repeat has all pairs of workers and threads, in an order of its own: what slows the machine down slows all.
    """
    found = []
    for repeat in range(1, scaling.repeats + 1):
        block = [Measurement(*pair, repeat) for pair in product(scaling.workers, scaling.threads)]
        random.Random(repeat).shuffle(block)
        found += block
    return found


def digest(plan: StudyPlan) -> str:
    """Returns what tells these stages from others, sha256 in hex."""
    return hashlib.sha256("\n".join(sorted(plan.stages)).encode()).hexdigest()


def duration(found: dict[str, Any]) -> float:
    """Returns the seconds that a measurement took, with the start of its workers."""
    return float(found["startup_seconds"] + found["wall_seconds"])


def expected(study: ScalingStudy) -> tuple[float | None, float]:
    """Returns the seconds that are still to come, and those of what is done.

    As the mean of the same setting, else of all; None: nothing was measured.
    """
    all_ = measurements(study.scaling)
    done = {one: duration(found) for one in all_ if (found := study.kept(one))}
    if not done:
        return None, 0.0
    by_setting: dict[tuple[int, int], list[float]] = {}
    for one, seconds in done.items():
        by_setting.setdefault((one.workers, one.threads), []).append(seconds)
    mean = fmean(done.values())
    means = {pair: fmean(seconds) for pair, seconds in by_setting.items()}
    to_come = sum(means.get((one.workers, one.threads), mean) for one in all_ if one not in done)
    return to_come, sum(done.values())


def over_budget(study: ScalingStudy) -> list[str]:
    """Returns what a scaling study would take beyond its budget, one sentence each."""
    all_, (to_come, done) = measurements(study.scaling), expected(study)
    stages = sum(len(study.plans[one.threads].stages) for one in all_)
    taken = {"stages": float(stages), "hours": None if to_come is None else (to_come + done) / 3600}
    return [
        f"budget.{name}: {limit:g}, the study takes {value:.4g}"
        for name, limit in study.study.budget.items()
        if (value := taken[name]) is not None and value > limit
    ]


def setting(workers: int, threads: int) -> str:
    """Returns a number of workers and of threads in words."""
    return f"{workers} worker{'s' * (workers > 1)} × {threads} thread{'s' * (threads > 1)}"
