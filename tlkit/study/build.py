"""Plans a study from its YAML: resolves every combination (imports torch)."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tlkit.errors import UserError, behind
from tlkit.experiment import Planner, Stage
from tlkit.paths import Config
from tlkit.stage_cli import parse
from tlkit.study.cells import Cell, cells, shown, sound
from tlkit.study.check import Told, is_faulty, level_faults
from tlkit.study.check_metric import metric_fault
from tlkit.study.check_values import resolve, value_faults
from tlkit.study.planned import PlannedStage
from tlkit.study.spec import Level, Study
from tlkit.study.spec_file import refusal
from tlkit.yaml_lines import Fault, read

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
    base, errors = _base(study, root)
    combined, exact, unfit = _combined(study, faults)
    found = [*faults, *unfit]
    told = level_faults(study, combined)
    messages: list[str] = []
    stages: list[PlannedStage] = []
    parts: dict[str, dict[str, Any]] = {}
    with _threads(study.threads), _quiet():
        if base is not None:
            planner = Planner()
            told += value_faults(*sound(study, combined, _levels(told)), base, planner, exact)
            left, tried = sound(study, combined, _levels(told))
            stages, parts, refused = _stages(base, tried, planner)
            if refused and exact and left.factors:
                messages.append(_cannot_run(refused, len(tried)))
            missing = _missing(study, found, _levels(told), everything=bool(refused))
            if message := metric_fault(study, stages, missing, sound=not (found or told or refused)):
                found.append(Fault(_line_of(study, "metric", "name"), "metric.name", message))
    found += [fault for _, fault in told]
    if errors and not (len(set(errors)) == 1 + (base is None) and any(f.path.startswith("fixed.") for f in found)):
        messages.insert(0, errors[0])
    if found or messages:
        raise UserError("\n".join([*([refusal(study.path, found)] if found else []), *messages]))
    return stages, parts


def _base(study: Study, root: Path) -> tuple[Config | None, list[str]]:
    """Returns the experiment, and why it is refused: with what is fixed in it, and, then, without."""
    errors = []
    for words in dict.fromkeys((_fixed(study), ())):
        try:
            base = parse(["--config", str(study.base), *words])
        except UserError as error:
            errors.append(f"base: {error}")
        else:
            return base | {"name": study.name, "runs": str(root)}, errors
    return None, errors


def _combined(study: Study, faults: list[Fault]) -> tuple[list[Cell], bool, list[Fault]]:
    """Returns all combinations, whether ``where`` has left out what it should, and what is wrong with it."""
    try:
        return cells(study), all(fault.path != "where" for fault in faults), []
    except UserError as error:
        decided = (c for f in study.factors if f.per and is_faulty(f, faults) for c in f.columns)  # not in all cells
        doubtful = [*study.unread, *decided]
        no_condition = any(isinstance(one, SyntaxError) for one in behind(error))
        known = no_condition or not any(column in study.where for column in doubtful)
        unfit = [Fault(_line_of(study, "where"), "", str(error))] if known else []
        return cells(replace(study, where="")), False, unfit


def _levels(told: Told) -> list[Level]:
    return [level for level, _ in told]


def _missing(study: Study, faults: list[Fault], refused: list[Level], everything: bool) -> set[str]:
    """Returns paths that stages would have set which cannot be planned."""
    concerned = [
        level
        for factor in study.factors
        for level in factor.levels
        if everything or level in refused or is_faulty(factor, faults)
    ]
    unread = (column for column, role in study.unread.items() if role != "replicates")
    return {*unread, *(path for level in concerned for path in level.nodes)}


def _fixed(study: Study) -> tuple[str, ...]:
    """Returns fixed words and numbers as options: the base may leave one out that it needs, such as a folder."""
    values = {path: value for f in study.factors if f.role == "fixed" for path, value in f.levels[0].overrides.items()}
    return tuple(
        f"--{path}={value}"
        for path, value in values.items()
        if path.startswith(("data.", "model.")) and isinstance(value, str | int | float)
    )


def _stages(
    base: Config, combined: list[Cell], planner: Planner
) -> tuple[list[PlannedStage], dict[str, dict[str, Any]], list[str]]:
    """Returns stages, id -> parts, and the combinations that are refused, each with why."""
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
    stages = [
        PlannedStage(s.id, s.name, s.config, s.pretrain.id if s.pretrain else None, tuple(served[s.id]))
        for s in found.values()
    ]
    return stages, {stage.id: dict(stage.parts) for stage in found.values()}, refused


def _cannot_run(refused: list[str], number: int) -> str:
    more = [f"  and {len(refused) - MOST} more"] if len(refused) > MOST else []
    heading = f"{len(refused)} of {number} combinations cannot run; leave them out with `where`:"
    return "\n".join([heading, *refused[:MOST], *more])


def _line_of(study: Study, *keys: str) -> int:
    node, _ = read(study.path.read_text(encoding="utf-8"))
    for key in keys:
        node = node.children[key]  # type: ignore[call-overload,index]
    return node.line


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
