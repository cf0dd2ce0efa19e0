"""What is wrong with a study's levels against its experiment: paths that lead nowhere, values of the wrong type."""

from collections.abc import Iterable
from pathlib import Path

from tlkit.fault_overrides import apply, override_faults
from tlkit.fault_walk import Walk
from tlkit.paths import WITH
from tlkit.stage_cli import SCHEMA
from tlkit.study.cells import Cell, with_context
from tlkit.study.spec import Factor, Level, Study
from tlkit.yaml_lines import Fault, Node, read

Told = list[tuple[Level, Fault]]
"""Levels that cannot be used, and why."""
SEVERAL = "to try several, list them all as levels of this path, and let `where` keep what belongs together"


def level_faults(study: Study, cells: list[Cell]) -> Told:
    """Returns the faults of all levels, each within the first combination that has it.

    Args:
        study: as written; what is wrong with its base is not told again.
        cells: its combinations.
    """
    root, _ = read(study.base.read_text(encoding="utf-8"))
    walk = Walk(Path())
    before = {fault.path for fault in _faults(walk, root)}
    found: list[tuple[Factor, Level, Fault]] = []
    told: list[Factor] = []
    for factor, level, cell in with_context(study, cells, cells[0]):
        if factor in told:
            continue
        nodes = _nodes(study, cell) | level.nodes
        misplaced, changed = _changed(root, nodes)
        for fault in [*misplaced, *_faults(walk, changed)]:
            if fault.path not in before and any(_touches(fault.path, path) for path in level.nodes):
                line = fault.line if fault.line in {node.line for node in level.nodes.values()} else level.line
                found.append((factor, level, Fault(line, fault.path, fault.message)))
                told += [factor] * bool(factor.ranges)  # what is wrong with one point is wrong with its range
    theirs = {fault.path for _, level, fault in found if fault.path in level.nodes}
    return [
        one
        for factor, level, fault in found
        if fault.path in level.nodes or fault.path not in theirs  # else it comes from a level set below this one
        for one in told_of(factor, level, f"{fault.path}: {fault.message}", fault.line)
    ]


def told_of(factor: Factor, level: Level, message: str, line: int) -> Told:
    """Returns a fault of a level; one of all points, if they are those of a search.

    Args:
        factor: that the level is of.
        level: which.
        message: begins with the path that is at fault, if that is known.
        line: where it stands.
    """
    if factor.per and message.endswith("got a list"):
        message += f"; per takes one value for each level of {', '.join(factor.per)}: {SEVERAL}"
    path, _, rest = message.partition(": ")
    columns = factor.columns or tuple(level.nodes)
    at = next((found for column in columns if (found := _within(path, column))), "")
    fault = Fault(line, f"{factor.role}.{at or ', '.join(columns)}", rest if at else message)
    return [(one, fault) for one in (factor.levels if factor.ranges else [level])]


def is_faulty(factor: Factor, faults: Iterable[Fault]) -> bool:
    """Tells whether some of the faults of the file as such are a factor's own."""
    own = f"{factor.role}.{','.join(factor.columns)}"
    paths = {fault.path.replace(" ", "") for fault in faults}
    return any(path == own or path.startswith((f"{own}.", f"{own}[")) for path in paths)


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


def _touches(fault: str, path: str) -> bool:
    written = f"trainer.{path}" if path.startswith("callbacks.") else path
    written = written.removesuffix(".class_path")
    within = any(fault == one or fault.startswith((f"{one}.", f"{one}[")) for one in (written, path))
    return within or (bool(fault) and written.startswith(f"{fault}."))


def _within(path: str, column: str) -> str:
    """Returns a path as the column writes it, if it is that of the column, below it, or of what has it."""
    for one in (path, path.removeprefix("trainer.")):
        if one == column or one.startswith((f"{column}.", f"{column}[")):
            return one
        if one == column.rpartition(".")[0]:  # a class says which of its arguments it means
            return column
    return ""
