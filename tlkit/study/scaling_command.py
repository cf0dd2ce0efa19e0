"""What the commands of ``tlkit study`` do with a scaling study."""

import os
import shlex
from argparse import Namespace
from collections import Counter
from pathlib import Path

from tlkit.errors import UserError
from tlkit.study.arguments import study_words
from tlkit.study.estimate import width
from tlkit.study.scaling import (
    ScalingStudy,
    expected,
    file_of,
    measurements,
    over_budget,
    scaling_study,
    setting,
)
from tlkit.study.spec import label
from tlkit.study.summary import _time

__all__ = ["file_of", "plan", "report", "run", "scaling_study", "status", "table"]


def plan(study: ScalingStudy, given: Namespace) -> None:
    """Prints what is measured, what is done, and what the rest will take."""
    if given.explain:
        raise UserError(f"--explain: {given.file} is a scaling study, each measurement of which runs every stage")
    spec, scaling = study.study, study.scaling
    print(f"{spec.name}: {spec.goal}")
    for factor in spec.factors:
        levels = "; ".join(label(list((level.labels or level.overrides).values())) for level in factor.levels)
        print(f"  {factor.role:<10}  {', '.join(factor.columns or factor.levels[0].overrides)}: {levels}")
    for name, values in (("workers", scaling.workers), ("threads", scaling.threads)):
        print(f"  {'scaling':<10}  {name}: {'; '.join(map(str, values))}")
    settings = len(scaling.workers) * len(scaling.threads)
    stages = len(next(iter(study.plans.values())).stages)
    repeats = settings * scaling.repeats
    print(f"  {settings} settings × {scaling.repeats} repeats × {stages} stages: {repeats * stages} stages")
    print(f"  {_states(study)}")
    print(f"  {_expected(study)}")
    for excess in over_budget(study):
        print(f"  over budget: {excess}")
    for note in _notes(study):
        print(f"  note: {note}")


def run(study: ScalingStudy, given: Namespace) -> None:
    """Makes all measurements that are not done, then writes the table."""
    if given.engine == "inline":
        raise UserError("--engine: expected the YAML of an engine, got inline: this process is one worker, not several")
    if excess := over_budget(study):
        raise UserError(f"{'; '.join(excess)}; raise the budget, or measure fewer settings")
    from tlkit.study.scaling_run import run_scaling
    from tlkit.study.scaling_table import scaling_table
    from tlkit.study.table import write_table

    failed = run_scaling(study, Path(given.engine) if given.engine else None)
    files = write_table(scaling_table(study), study.folder)
    print(f"table: {' '.join(map(str, files))}\nreport: tlkit study report {shlex.join(study_words(given))}")
    if failed:
        for one in failed:
            print(f"{one}: stages failed; logs in {study.folder / one.name / study.study.name / 'failed'}")
        raise SystemExit(1)


def status(study: ScalingStudy) -> None:
    """Prints what has become of each measurement."""
    print(f"{study.study.name}: {study.study.goal}")
    print(f"  {_states(study)}")
    for one in sorted(measurements(study.scaling)):
        found = study.kept(one)
        seconds = f"{found['wall_seconds']:9.1f} s" if found else ""
        print(f"  {str(one):<34} {study.state(one):<8}{seconds}")


def table(study: ScalingStudy, given: Namespace) -> None:
    """Writes the table as Parquet and CSV, and prints it."""
    from tlkit.study.scaling_table import scaling_table
    from tlkit.study.table import chosen, printed, write_table

    frame = scaling_table(study)
    files = write_table(frame, study.folder)
    print(printed(chosen(frame, given.where, given.sort).drop(columns=["nodes", "hosts", "engine"])))
    print(f"table: {' '.join(map(str, files))}")


def report(study: ScalingStudy, given: Namespace, command: str) -> tuple[Path, tuple[str, ...]]:
    """Writes the report."""
    from tlkit.study.scaling_table import report_scaling

    return report_scaling(study, given.out or study.folder / "report", command)


def _states(study: ScalingStudy) -> str:
    counts = Counter(study.state(one) for one in measurements(study.scaling))
    return "measurements: " + ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def _expected(study: ScalingStudy) -> str:
    to_come, done = expected(study)
    if to_come == 0:
        return f"done: {_time(done)}"
    if to_come is None:
        return "to do: unknown, for nothing has been measured"
    return f"to do: {_time(to_come)}, estimated from what has been measured; done: {_time(done)}"


def _notes(study: ScalingStudy) -> list[str]:
    """Returns what one should know before it runs, one sentence each."""
    notes, cores = [], len(os.sched_getaffinity(0))
    pairs = [(w, t) for w in study.scaling.workers for t in study.scaling.threads if w * t > cores]
    if pairs:
        settings = ", ".join(setting(*pair) for pair in pairs)
        notes.append(f"oversubscribed on this machine, more threads than its {cores} cores: {settings}")
    most, at_once = max(study.scaling.workers), width(next(iter(study.plans.values())).stages.values())
    if most > at_once:
        notes.append(f"up to {at_once} stages can run at the same time: of {most} workers some always wait")
    if study.scaling.repeats == 1:
        notes.append("one repeat: no difference can be told from random variation")
    return notes
