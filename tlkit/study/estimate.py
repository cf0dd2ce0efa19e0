"""What the stages that are left will take, from those already measured."""

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.spec import Study
from tlkit.study.state import Found, with_again

WHOLE = ("setup", "fit", "test")  # the parts of `seconds` that do not overlap
SIZED = 50  # run directories whose size is looked at


@dataclass(frozen=True)
class Estimate:
    """What is to be expected.

    Attributes:
        measured: number of stages of this study that are done.
        seconds: of all stages to do, one after the other; None: none of a kind that is to do was measured.
        stages: id -> seconds of each; without those of a kind of which none was measured.
        bytes: of their run directories; None likewise.
        done_seconds: of those done.
        done_bytes: of their run directories, from the mean of some.
    """

    measured: int
    seconds: float | None
    stages: dict[str, float]
    bytes: float | None
    done_seconds: float
    done_bytes: float


def estimate(study: Study, plan: StudyPlan, found: dict[str, Found]) -> Estimate:
    """Returns what the stages to do will take: each as the mean of those done with the same scientific levels.

    Where there is none, as the mean of those of its kind.
    """
    found = with_again(found, plan.pretrains)
    columns = study.columns("scientific")
    done = [stage for stage in plan.stages.values() if found[stage.id].state in ("done", "again")]
    todo = [stage for stage in plan.stages.values() if found[stage.id].state != "done"]
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for stage in done:
        for key in ((stage.stage, ""), (stage.stage, _cell(stage, columns))):
            seconds[key].append(duration(found[stage.id]))
    sizes: dict[str, list[int]] = defaultdict(list)
    for stage in done:
        path = found[stage.id].path
        if path and len(sizes[stage.stage]) < SIZED:
            sizes[stage.stage].append(directory_size(path))
    times = {s.id: seconds.get((s.stage, _cell(s, columns))) or seconds[s.stage, ""] for s in todo}
    stages = {id_: fmean(measured) for id_, measured in times.items() if measured}
    known = len(stages) == len(todo)
    return Estimate(
        measured=len(done),
        seconds=sum(stages.values()) if known else None,
        stages=stages,
        bytes=sum(fmean(sizes[stage.stage]) for stage in todo) if known else None,
        done_seconds=sum(duration(found[stage.id]) for stage in done),
        done_bytes=sum(fmean(sizes[stage.stage]) for stage in done),
    )


def duration(found: Found) -> float:
    """Returns the seconds of a finished stage."""
    seconds = (found.result or {}).get("seconds") or {}
    return sum(float(seconds.get(part) or 0) for part in WHOLE)


def over_budget(study: Study, plan: StudyPlan, expected: Estimate) -> list[str]:
    """Returns what a study would take beyond its budget at least, one sentence each."""
    hours = (sum(expected.stages.values()) + expected.done_seconds) / 3600
    size = ((expected.bytes or 0.0) + expected.done_bytes) / 1e9
    taken = {"stages": float(len(plan.stages)), "hours": hours, "gigabytes": size}
    return [
        f"budget.{name}: {limit:g}, the study takes {_at_least(name, expected)}{taken[name]:.4g}"
        for name, limit in study.budget.items()
        if taken[name] > limit
    ]


def _at_least(name: str, expected: Estimate) -> str:
    return "at least " if name != "stages" and expected.seconds is None else ""


def unchecked_budget(study: Study, plan: StudyPlan, expected: Estimate) -> list[str]:
    """Returns which parts of the budget cannot be compared with anything yet, one sentence each."""
    exceeded = {sentence.partition(":")[0] for sentence in over_budget(study, plan, expected)}
    return [
        f"budget.{name} is not checked: no stage of some kind has been measured; once one has, plan or run it again"
        for name in study.budget
        if _at_least(name, expected) and f"budget.{name}" not in exceeded
    ]


def width(stages: Iterable[PlannedStage]) -> int:
    """Returns how many stages can run at the same time at most: those that no other starts from."""
    stages = list(stages)
    return len({stage.id for stage in stages} - {stage.pretrain for stage in stages})


def _cell(stage: PlannedStage, columns: tuple[str, ...]) -> str:
    """Returns the scientific levels that all combinations of a stage share."""
    return str({column: level for column, level in stage.shared.items() if column in columns})


def directory_size(path: Path) -> int:
    """Returns the bytes of all files below a directory."""
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
