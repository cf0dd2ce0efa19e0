"""Whether runs will have the metric of a study, as far as the task that they train can tell."""

import logging
from collections.abc import Collection, Iterable, Iterator

from lightning.pytorch import LightningModule

from tlkit.errors import suggest
from tlkit.stage_cli import StageCLI
from tlkit.study.columns import AFTER
from tlkit.study.planned import PlannedStage
from tlkit.study.spec import Study
from tlkit.study.spec_factors import PLAIN
from tlkit.tasks.base import Task

log = logging.getLogger("tlkit")

TOLD = ("test", "val", "before")
"""Phases in which a task logs the same names."""
OURS = ("tlkit.", "tlkit_callbacks.", "lightning.")
"""Packages whose callbacks log no metrics of their own in those phases."""
DECIDE = ("model.class_path", "data.class_path", "data.target", "trainer.callbacks")
"""Paths that decide which metrics are logged, as does what has no dot: a section, or levels whose paths are unknown."""


def metric_fault(study: Study, stages: Iterable[PlannedStage], missing: Collection[str], sound: bool) -> str:
    """Returns why no transfer can have the study's metric; empty: one has it, or it cannot be known.

    It can be known of tlkit's own tasks, beside its own callbacks.

    Args:
        study: as written.
        stages: as many of it as can be planned.
        missing: paths that stages would have set which cannot be planned.
        sound: whether there are no other faults; says then where the mode is not the task's.
    """
    phase, _, rest = study.metric.partition("/")
    elsewhere = study.metric in ("", *AFTER) or phase == "train" or (study.scaling and phase not in TOLD)
    if elsewhere or any(path in DECIDE or not (path in PLAIN or "." in path) for path in missing):
        return ""
    valid: dict[str, None] = {}
    for stage in _different(stages):
        task = _task(stage)
        if task is None:
            return ""
        names = [name.partition("/")[2] for name in task.logged() if name.startswith("val/")]
        if phase in TOLD and any(rest == name or rest.startswith(f"{name}/") for name in names):
            if sound:
                _note_mode(study, rest, task)
            return ""
        valid |= dict.fromkeys(f"{phase if phase in TOLD else TOLD[0]}/{name}" for name in names)
    others = () if phase in TOLD else AFTER
    meant = suggest(study.metric, (*valid, *others)) or ";"
    more = ", the same with val/ and before/, train/loss, and what docs/study_table.md lists" if others else ""
    named = f"{', '.join(valid)}{more}"
    return bool(valid) * f"expected a metric that runs have, got {study.metric!r}{meant} valid: {named}"


def _different(stages: Iterable[PlannedStage]) -> Iterator[PlannedStage]:
    """Yields transfers, each with a level that none before it has: another task or other data log other names."""
    seen: set[tuple[str, str]] = set()
    for stage in stages:
        levels = {(column, str(value)) for cell in stage.cells for column, value in cell.items()}
        if stage.stage == "transfer" and (not seen or not levels <= seen):
            seen |= levels
            yield stage


def _task(stage: PlannedStage) -> Task | None:
    """Returns the task of a stage, which has seen its data; None: what the stage logs cannot be known."""
    try:
        cli = StageCLI(stage.config)
        cli.build()
        task: LightningModule = cli.model
        if not isinstance(task, Task) or not type(task).__module__.startswith("tlkit.") or cli.datamodule is None:
            return None
        if not all(type(callback).__module__.startswith(OURS) for callback in cli.callbacks):
            return None
        task.adapt(cli.datamodule)
    except Exception as error:  # whatever a user's class raises: the run that needs it will tell
        log.debug("metric.name: not checked, %s", error)
        return None
    return task


def _note_mode(study: Study, name: str, task: Task) -> None:
    if name.partition("/")[0] == task.monitor.partition("/")[2] and study.mode != task.monitor_mode:
        log.warning(
            "metric.mode: %s, but %s selects checkpoints by %s with mode %s: the best of the study's runs is then what "
            "the task takes for the worst",
            *(study.mode, type(task).__name__, task.monitor, task.monitor_mode),
        )
