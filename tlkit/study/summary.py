"""``tlkit study plan``: what a study consists of, what is done, and what the rest will take."""

from collections import Counter

from tlkit.errors import suggest
from tlkit.study.columns import AFTER
from tlkit.study.estimate import Estimate, estimate, over_budget, unchecked_budget, width
from tlkit.study.lost import lost_callbacks
from tlkit.study.plan import Planned
from tlkit.study.planned import StudyPlan
from tlkit.study.spec import Factor, label
from tlkit.study.state import Found, with_again

WORDS = {"again": "to do again (weights deleted)"}


def summary(planned: Planned, found: dict[str, Found]) -> list[str]:
    """Returns what is said of a plan, one line each."""
    study, plan = planned.study, planned.plan
    found = with_again(found, plan.pretrains)
    combined = {str(cell) for stage in plan.stages.values() for cell in stage.cells}
    lines = [f"{study.name}: {study.goal}"]
    for factor in study.factors:
        if factor.role == "fixed":
            lines += [f"  fixed       {path}: {label(value)}" for path, value in factor.levels[0].overrides.items()]
            continue
        lines.append(f"  {factor.role:<10}  {', '.join(factor.columns)}: {_levels(factor)}")
    counts = Counter((stage.stage, found[stage.id].state) for stage in plan.stages.values())
    lines += [f"  {len(combined)} combinations, {len(plan.stages)} stages:"]
    for kind in dict.fromkeys(stage.stage for stage in plan.stages.values()):
        states = {state: number for (stage, state), number in counts.items() if stage == kind}
        parts = ", ".join(f"{number} {WORDS.get(state, state)}" for state, number in sorted(states.items()))
        lines.append(f"    {sum(states.values())} {kind}: {parts}")
    if by := _pretrains_differ(plan):
        lines.append(f"    pretrains differ by {', '.join(by)}")
    todo = [stage for stage in plan.stages.values() if found[stage.id].state != "done"]
    if todo:
        ready = sum(not stage.pretrain or found[stage.pretrain].state == "done" for stage in todo)
        lines.append(
            f"  {ready} stage{'s' * (ready != 1)} can start at once, up to {width(todo)} can run at the same time"
        )
    expected = estimate(study, plan, found)
    lines.append(f"  {_expected(expected, bool(todo))}")
    lines += [f"  over budget: {excess}" for excess in over_budget(study, plan, expected)]
    lines += [f"  note: {note}" for note in notes(planned, found, expected)]
    return lines


def notes(planned: Planned, found: dict[str, Found], expected: Estimate) -> list[str]:
    """Returns what one should know before a study runs, one sentence each."""
    study = planned.study
    unchecked = unchecked_budget(study, planned.plan, expected)
    return [*unchecked, *study.notes, *lost_callbacks(study), *metric_notes(planned, found)]


def metric_notes(planned: Planned, found: dict[str, Found]) -> list[str]:
    """Returns that no finished run has the study's metric, if so: which they have can be unknown before they run."""
    metric, stages = planned.study.metric, planned.plan.stages.values()
    done = [found[stage.id].result or {} for stage in stages if stage.stage == "transfer" and found[stage.id].result]
    valid = list(dict.fromkeys(name for result in done for name in result.get("metrics") or {}))
    if not valid or metric in (*valid, *AFTER):
        return []
    meant = suggest(metric, valid) or ";"
    return [f"metric: none of {len(done)} finished runs has {metric!r}{meant} there are: {', '.join(valid)}"]


def _pretrains_differ(plan: StudyPlan) -> list[str]:
    """Returns the factors that decide which pretrain is started from, for what they set is set in it as well."""
    shared = [stage.shared for stage in plan.stages.values() if stage.stage == "pretrain"]
    columns = [column for column in (shared or [{}])[0] if all(column in one for one in shared)]
    return [column for column in columns if len({str(one[column]) for one in shared}) > 1]


def _levels(factor: Factor) -> str:
    texts = "; ".join(dict.fromkeys(label(list(level.labels.values())) for level in factor.levels))
    return f"{texts} (as {', '.join(factor.per)} decides)" if factor.per else texts


def _expected(expected: Estimate, todo: bool) -> str:
    taken = f"done: {_time(expected.done_seconds)}, {size_text(expected.done_bytes)}"
    if not todo:
        return taken
    if expected.seconds is None or expected.bytes is None:
        return f"to do: unknown, for no stage of some kind has been measured; {taken}"
    return (
        f"to do: {_time(expected.seconds)} one after the other, {size_text(expected.bytes)}, estimated from "
        f"{expected.measured} measured; {taken}"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size_text(size: float) -> str:
    """Returns a number of bytes in a unit that suits it."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
