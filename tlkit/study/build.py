"""Plans a study from its YAML: resolves every combination (imports torch)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tlkit.errors import UserError
from tlkit.experiment import Planner, Stage
from tlkit.paths import Config
from tlkit.stage_cli import parse
from tlkit.study.cells import Cell, cells, shown
from tlkit.study.check import is_faulty, level_faults, resolve, value_faults, without
from tlkit.study.check_metric import metric_fault
from tlkit.study.planned import PlannedStage
from tlkit.study.spec import Study
from tlkit.study.spec_file import refusal
from tlkit.yaml_lines import Fault

MOST = 5  # combinations that are told to be refused


def build(study: Study, root: Path, faults: list[Fault]) -> tuple[list[PlannedStage], dict[str, dict[str, Any]]]:
    """Returns all stages of a study, equal ones once, a pretrain before what starts from it, and id -> parts.

    Args:
        study: as written.
        root: directory of all runs.
        faults: what is wrong with its file as such.

    Raises:
        UserError: everything that is wrong with the study or its experiment.
    """
    messages: list[str] = []
    excluded = True
    try:
        base = parse(["--config", str(study.base), *_fixed(study)]) | {"name": study.name, "runs": str(root)}
    except UserError as error:
        messages.append(f"base: {error}")
    try:
        combined = cells(study)
    except UserError as error:
        faults = [*faults, Fault(_line_of(study, "where"), "", str(error))]
        combined, excluded = cells(replace(study, where="")), False
    if not messages:
        faults = [*faults, *level_faults(study, combined)]
    planner = Planner()
    with _threads(study.threads), _quiet():
        if not messages and excluded:  # what `where` should have left out may well be refused
            sound = replace(study, factors=tuple(f for f in study.factors if not is_faulty(f, faults)))
            faults = [*faults, *value_faults(sound, base, without(combined, sound), planner)]
        if faults or messages:
            raise UserError("\n".join([*([refusal(study.path, faults)] if faults else []), *messages]))
        stages, parts = _stages(base, combined, planner)
        if message := metric_fault(study, stages):
            raise UserError(refusal(study.path, [Fault(_line_of(study, "metric"), "metric.name", message)]))
        return stages, parts


def _fixed(study: Study) -> list[str]:
    """Returns fixed words and numbers as options: the base may leave one out that it needs, such as a folder."""
    values = {path: value for f in study.factors if f.role == "fixed" for path, value in f.levels[0].overrides.items()}
    return [
        f"--{path}={value}"
        for path, value in values.items()
        if path.startswith(("data.", "model.")) and isinstance(value, str | int | float)
    ]


def _stages(
    base: Config, combined: list[Cell], planner: Planner
) -> tuple[list[PlannedStage], dict[str, dict[str, Any]]]:
    found: dict[str, Stage] = {}
    served: dict[str, list[dict[str, Any]]] = {}
    refused: list[str] = []
    for cell in combined:
        labels = {column: shown(value) for column, value in cell.labels.items()}
        try:
            stage: Stage | None = resolve(base, cell, planner)
        except UserError as error:
            refused.append(f"  {', '.join(f'{column}: {value}' for column, value in labels.items())}: {error}")
            continue
        chain = []
        while stage:
            chain.append(stage)
            stage = stage.pretrain
        for stage in reversed(chain):
            found.setdefault(stage.id, stage)
            served.setdefault(stage.id, []).append(labels)
    if refused:
        more = [f"  and {len(refused) - MOST} more"] if len(refused) > MOST else []
        heading = f"{len(refused)} of {len(combined)} combinations cannot run; leave them out with `where`:"
        raise UserError("\n".join([heading, *refused[:MOST], *more]))
    stages = [
        PlannedStage(s.id, s.name, s.config, s.pretrain.id if s.pretrain else None, tuple(served[s.id]))
        for s in found.values()
    ]
    return stages, {stage.id: dict(stage.parts) for stage in found.values()}


def _line_of(study: Study, key: str) -> int:
    lines = study.path.read_text(encoding="utf-8").splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:")), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what Lightning says of each trainer, none of which trains anything here, to itself."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """The identity of a stage has the threads of the process that trains it, not of the one that plans it."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
