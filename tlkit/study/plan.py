"""A study as stages: planned with torch into ``plan.json``, and read from there while nothing that counts changes."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlkit.errors import UserError
from tlkit.runs import is_running, write_text
from tlkit.study import freshness
from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.spec import Study
from tlkit.study.spec_file import read_study, refusal
from tlkit.yaml_lines import Fault, read

FILE = "plan.json"
DRIVER = ".driver.lock"
"""Held by the command that carries the study out."""


@dataclass(frozen=True)
class Planned:
    """A planned study.

    Attributes:
        study: as written.
        plan: its stages.
        parts: id -> what an identity depends on beside the configuration; for `earlier` too.
        earlier: stages of former plans of this study that are not in this one.
        cached: whether it was read from ``plan.json``.
    """

    study: Study
    plan: StudyPlan
    parts: dict[str, dict[str, Any]]
    earlier: dict[str, PlannedStage]
    cached: bool


def plan_study(path: Path, runs: Path | None = None) -> Planned:
    """Returns the stages of a study; torch is imported only if something has changed since they were last planned.

    Args:
        path: the study's YAML.
        runs: directory of all runs; None: the experiment's.

    Raises:
        UserError: everything that is wrong with the study or its experiment.
    """
    study, faults = read_study(path)
    if study is None:
        raise UserError(refusal(path, faults))
    if study.scaling:
        raise UserError(f"{path} is a scaling study, which tlkit study plan, run, status, table and report know alone")
    return plan_stages(study, faults, runs or runs_of(study.base))


def plan_stages(study: Study, faults: list[Fault], root: Path) -> Planned:
    """Returns the stages of a study that has been read; keeps them, unless another plan is being carried out.

    Args:
        study: as written.
        faults: what is wrong with its file as such.
        root: directory of all runs.

    Raises:
        UserError: everything that is wrong with the study or its experiment.
    """
    stored = load(root / study.name) if not faults else None
    if stored and freshness.same(stored["key"], study, root):
        return _restored(study, root, stored)
    from tlkit.study.build import build

    stages, parts = build(study, root, faults)
    earlier = _earlier(stored, stages) if stored else []
    key = freshness.key(study, root, [stage.config for stage in stages], _sources(parts.values()))
    plan = StudyPlan(study.name, root, {stage.id: stage for stage in stages}, study.threads)
    (root / study.name).mkdir(parents=True, exist_ok=True)
    old = {stage.id: stage for stage in earlier}
    known = {**(_unpacked_parts(stored) if stored else {}), **parts}
    parts = {id_: known[id_] for id_ in (*plan.stages, *old)}
    if not is_running(root / study.name, DRIVER):  # else `status` would show another plan than the one at work
        write_text(root / study.name / FILE, json.dumps(_packed(study, key, stages, earlier, parts)))
    return Planned(study, plan, parts, old, cached=False)


def runs_of(base: Path) -> Path:
    """Returns the directory of all runs that an experiment names."""
    root, _ = read(base.read_text(encoding="utf-8"))
    children = root.children if isinstance(root.children, dict) else {}
    return Path(str(children["runs"].value)) if "runs" in children else Path("runs")


def load(directory: Path) -> dict[str, Any] | None:
    """Returns a stored plan as it is in its file; None: there is none that can be read."""
    try:
        stored: dict[str, Any] = json.loads((directory / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if stored.get("format") == freshness.FORMAT else None


def stages_of(stored: dict[str, Any], section: str = "stages") -> dict[str, PlannedStage]:
    """Returns the stages in a stored plan; equal sections of their configurations are one object."""
    sections, cells = stored["sections"], stored["cells"]
    return {
        row["id"]: PlannedStage(
            row["id"],
            row["stage"],
            {key: sections[number] for key, number in row["config"].items()},
            row["pretrain"],
            tuple(cells[number] for number in row["cells"]),
        )
        for row in stored[section]
    }


def _restored(study: Study, root: Path, stored: dict[str, Any]) -> Planned:
    plan = StudyPlan(study.name, root, stages_of(stored), study.threads)
    return Planned(study, plan, _unpacked_parts(stored), stages_of(stored, "earlier"), cached=True)


def _packed(
    study: Study,
    key: dict[str, Any],
    stages: Iterable[PlannedStage],
    earlier: Iterable[PlannedStage],
    parts: dict[str, Any],
) -> dict[str, Any]:
    """Returns what is stored: each section of a configuration, each combination and each set of parts once."""
    sections, cells = _Once(), _Once()

    def row(stage: PlannedStage) -> dict[str, Any]:
        return {
            "id": stage.id,
            "stage": stage.stage,
            "config": {name: sections.number(value) for name, value in stage.config.items()},
            "pretrain": stage.pretrain,
            "cells": [cells.number(cell) for cell in stage.cells],
            "parts": {name: sections.number(value) for name, value in parts[stage.id].items()},
        }

    rows = {"stages": [row(stage) for stage in stages], "earlier": [row(stage) for stage in earlier]}
    asked = {"goal": study.goal, "metric": study.metric, "mode": study.mode}
    lists = {"sections": sections.values, "cells": cells.values}
    return {"format": freshness.FORMAT, "study": asked, "key": key, **rows, **lists}


def _unpacked_parts(stored: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = [*stored["stages"], *stored["earlier"]]
    return {row["id"]: {k: stored["sections"][n] for k, n in row["parts"].items()} for row in rows}


def _earlier(stored: dict[str, Any], stages: list[PlannedStage]) -> list[PlannedStage]:
    """Returns stages of former plans, which may have runs that `explain` compares with."""
    now = {stage.id for stage in stages}
    former = stages_of(stored, "earlier") | stages_of(stored)
    return [replace(stage, cells=()) for stage in former.values() if stage.id not in now]


def _sources(parts: Iterable[dict[str, Any]]) -> set[str]:
    return {class_path for part in parts for class_path in part["sources"]}


class _Once:
    """Numbers values, equal ones alike."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        text = json.dumps(value)
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        return self._numbers[text]
