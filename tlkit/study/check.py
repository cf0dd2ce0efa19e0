"""What is wrong with a study's levels against its experiment: paths that lead nowhere, values of the wrong type."""

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlkit.errors import Unavailable, UserError, behind, mistake_behind
from tlkit.experiment import Planner, Stage
from tlkit.fault_overrides import apply, override_faults
from tlkit.fault_walk import Walk
from tlkit.identity import class_paths
from tlkit.paths import WITH, Config, with_overrides
from tlkit.stage_check import check
from tlkit.stage_cli import SCHEMA
from tlkit.study.cells import Cell
from tlkit.study.spec import Factor, Level, Study
from tlkit.yaml_lines import Fault, Node, read

SAMPLE = 20
"""Combinations of which one is expected to be accepted."""


def level_faults(study: Study, cells: list[Cell]) -> list[Fault]:
    """Returns the faults of all levels, each within the first combination that has it.

    Args:
        study: as written; its base has no faults of its own.
        cells: its combinations.
    """
    root, _ = read(study.base.read_text(encoding="utf-8"))
    walk = Walk(Path())
    before = set(_faults(walk, root))
    found: list[Fault] = []
    told: list[Factor] = []
    for factor, level, cell in _with_context(study, cells, cells[0]):
        if factor in told:
            continue
        nodes = _nodes(study, cell) | level.nodes
        misplaced, changed = _changed(root, nodes)
        for fault in [*misplaced, *_faults(walk, changed)]:
            if fault not in before and any(_touches(fault.path, path) for path in level.nodes):
                line = fault.line if fault.line in {node.line for node in level.nodes.values()} else _line(level)
                found.append(Fault(line, _place(factor, level), f"{fault.path}: {fault.message}"))
                told += [factor] * bool(factor.ranges)  # what is wrong with one point is wrong with its range
    return found


def value_faults(study: Study, base: Config, cells: list[Cell], planner: Planner) -> list[Fault]:
    """Returns what the classes themselves refuse in a level.

    Each level is tried beside levels that are accepted, so that a fault is told where it is: within the combination
    nearest to one of the study's that nothing refuses.
    """
    trial = _Trial(base, planner)
    some = [*cells[:1], *random.Random(0).sample(cells, min(SAMPLE, len(cells)))]
    accepted = next((cell for cell in some if not trial.refusal(cell)), None)
    if accepted is None:
        always, others = _always_refused(study, some[0], trial)
        more = bool(always) and bool(others.factors)  # none: a path is set twice, which has been told
        return always + (value_faults(others, base, without(cells, others), planner) if more else [])
    found: list[Fault] = []
    told: list[Factor] = []
    refused: list[Level] = []
    for factor, level, cell in _with_context(study, cells, accepted):
        if factor in told or any(_has(cell, other) for other in refused):
            continue
        if refusal := trial.refusal(cell, built=factor.role != "replicates"):  # seeds and splits make no other network
            found.append(Fault(_line(level), _place(factor, level), refusal))
            told += [factor] * bool(factor.ranges)
            refused.append(level)
    return found


def without(cells: list[Cell], study: Study) -> list[Cell]:
    """Returns combinations of which only what a study's own factors set is left."""
    paths = {path for factor in study.factors for level in factor.levels for path in level.nodes}
    return [Cell(cell.labels, {path: v for path, v in cell.overrides.items() if path in paths}) for cell in cells]


def is_faulty(factor: Factor, faults: list[Fault]) -> bool:
    """Tells whether some of the faults are a factor's own."""
    own = _place(factor, factor.levels[0]).replace(" ", "")
    return any(fault.path.replace(" ", "").startswith(own) for fault in faults)


def _place(factor: Factor, level: Level) -> str:
    """Returns where a level stands in the study's file."""
    return f"{factor.role}.{', '.join(factor.columns or level.nodes)}"


class _Trial:
    """Tries combinations, each network once."""

    def __init__(self, base: Config, planner: Planner) -> None:
        self.base, self.planner = base, planner
        self.refusals: dict[str, str] = {}

    def refusal(self, cell: Cell, built: bool = True) -> str:
        """Returns why a combination is refused; empty: it is not."""
        try:
            stage = resolve(self.base, cell, self.planner)
        except Unavailable:
            return ""  # a login node has no GPU; the machine that trains is asked again
        except UserError as error:
            return str(error)
        both = (stage, *([stage.pretrain] if stage.pretrain else [])) if built else ()
        return next((refusal for one in both if (refusal := self._built(one))), "")

    def _built(self, stage: Stage) -> str:
        if stage.id not in self.refusals:
            self.refusals[stage.id] = ""
            try:
                _build(stage)
            except Unavailable:
                pass
            except UserError as error:
                self.refusals[stage.id] = str(error)
        return self.refusals[stage.id]


def _always_refused(study: Study, cell: Cell, trial: _Trial) -> tuple[list[Fault], Study]:
    """Returns the faults of factors at which a combination begins to be refused, and the study without them.

    They are added one by one, those that are the same in all runs first.
    """
    found: list[Fault] = []
    kept: list[Factor] = []
    overrides: dict[str, Any] = {}
    if refusal := trial.refusal(Cell({}, {})):  # the base as parsed has words and numbers that are fixed in it
        fixed = [factor.levels[0] for factor in study.factors if factor.role == "fixed"]
        where = Fault(_line(fixed[0]), "base, fixed", refusal) if fixed else Fault(1, "base", refusal)
        return [where], replace(study, factors=())
    for factor in sorted(study.factors, key=lambda factor: factor.role != "fixed"):
        mine = [level for level in factor.levels if level.overrides.items() <= cell.overrides.items()]
        added = {path: value for level in mine for path, value in level.overrides.items()}
        if not trial.refusal(Cell({}, overrides | added)):
            overrides |= added
            kept.append(factor)
            continue
        for level in mine if factor.ranges else factor.levels:
            if refusal := trial.refusal(Cell({}, overrides | level.overrides)):
                found.append(Fault(_line(level), _place(factor, level), refusal))
    return found, replace(study, factors=tuple(kept))


def _build(stage: Stage) -> None:
    """Builds network and callbacks of a stage, without its data: do the layers that it names exist?"""
    with _mistakes_of_classes(stage.config):
        check(replace(stage, pretrain=None, checkpoint=None), with_data=False)


def resolve(base: Config, cell: Cell, planner: Planner) -> Stage:
    """Returns the stage of a combination.

    Raises:
        UserError: what it is refused for, whoever refuses it.
    """
    config = with_overrides(base, cell.overrides)
    with _mistakes_of_classes(config):
        return planner.stage(planner.parse(config))


@contextmanager
def _mistakes_of_classes(config: Config) -> Iterator[None]:
    """Makes a `UserError` of what the constructor of a class that a configuration names raises, whatever that is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = mistake_behind(error) or _constructors(error, config)
        if mistake is None:
            raise
        raise mistake from error


def _constructors(error: Exception, config: Config) -> UserError | None:
    """Returns what is to be told of an error in the constructor of a class that a configuration names."""
    names = {path.rpartition(".")[2] for path in class_paths(config)}
    for one in behind(error):
        for frame, line in reversed(list(traceback.walk_tb(one.__traceback__))):
            name = type(frame.f_locals.get("self")).__name__
            if frame.f_code.co_name == "__init__" and name in names:
                what = "".join(traceback.format_exception_only(one)).strip()
                return UserError(f"{name} cannot be made: {what} ({Path(frame.f_code.co_filename).name}, line {line})")
    return None


def _with_context(study: Study, cells: list[Cell], like: Cell) -> Iterator[tuple[Factor, Level, Cell]]:
    """Yields each level that occurs with the combination that has it and is most like another."""

    def likeness(cell: Cell) -> int:
        return sum(cell.labels.get(column) == value for column, value in like.labels.items())

    for factor in study.factors:
        for level in factor.levels:
            shared = (cell for cell in cells if _has(cell, level))
            if (cell := max(shared, key=likeness, default=None)) is not None:
                yield factor, level, cell


def _has(cell: Cell, level: Level) -> bool:
    return all(cell.labels.get(column) == value for column, value in level.labels.items())


def _nodes(study: Study, cell: Cell) -> dict[str, Node]:
    """Returns what a combination sets, with its lines."""
    levels = (level for factor in study.factors for level in factor.levels)
    return {
        path: node
        for level in levels
        for path, node in level.nodes.items()
        if path in cell.overrides and cell.overrides[path] == node.value
    }


def _changed(root: Node, nodes: dict[str, Node]) -> tuple[list[Fault], Node]:
    """Returns the faults of paths in the experiment's YAML, and the YAML with values there."""
    direct = [(path, node) for path, node in nodes.items() if not path.startswith(WITH)]
    faults, changed = apply(root, sorted(direct, key=lambda item: item[0].count(".")), into_lists=True)
    within = {path.removeprefix(WITH): node for path, node in nodes.items() if path.startswith(WITH)}
    if within:
        section = _children(changed).get("pretrain", Node(1, {}, {}))
        stated = _children(_children(section).get("with", Node(1, {}, {}))) | within
        _, changed = apply(changed, [("pretrain.with", _mapping(stated))], into_lists=True)
    return faults, changed


def _faults(walk: Walk, root: Node) -> list[Fault]:
    return [*walk.check(root, dict(SCHEMA), ""), *override_faults(walk, root, SCHEMA)]


def _children(node: Node) -> dict[str, Node]:
    return node.children if isinstance(node.children, dict) else {}


def _mapping(children: dict[str, Node]) -> Node:
    return Node(1, {key: child.value for key, child in children.items()}, children)


def _line(level: Level) -> int:
    return min((node.line for node in level.nodes.values()), default=1)


def _touches(fault: str, path: str) -> bool:
    written = f"trainer.{path}" if path.startswith("callbacks.") else path
    written = written.removesuffix(".class_path")
    within = any(fault == one or fault.startswith((f"{one}.", f"{one}[")) for one in (written, path))
    return within or (bool(fault) and written.startswith(f"{fault}."))
