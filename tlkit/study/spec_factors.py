"""The factors of a study as written: paths with levels or ranges, zipped paths, named levels, one value per level."""

import re
from collections.abc import Iterator
from typing import Any

from tlkit.paths import flatten
from tlkit.study.columns import AFTER, BEFORE
from tlkit.study.spec import Factor, Level, Range, Role, is_batch_size, is_length, label
from tlkit.study.spec_search import RANGE, SEARCH, SearchReader, is_range, search_factor
from tlkit.yaml_lines import OPAQUE, Fault, Node

PLAIN = ("seed_everything",)  # the paths without a dot that may vary
SHAPES = "a list of levels; `a, b: [[1, 2], [3, 4]]` varies two together; a name: {level: {path: value}} sets several"

REFUSED = {
    ("nuisance", "length"): "the length of the run, which is never tuned: choose one for all runs in the base and take "
    "the best epoch of each; it may be a scientific factor",
    ("nuisance", "batch size"): "not tuned for quality: the same quality is reached with any, once the rate is tuned; "
    "take the largest that is fast, in the base; it may be a scientific factor, for its cost",
    ("replicates", "length"): "the length of the run: longer runs do not repeat shorter ones; it may be a scientific "
    "factor",
    ("replicates", "batch size"): "the batch size: runs with another do not repeat each other; it may be a scientific "
    "factor, for its cost",
}
"""Role and what differs between levels -> why not."""


def named(section: Node) -> dict[str, Node]:
    """Returns the factors of a section, whatever is wrong with it: a list or a word may stand for a mapping."""
    if isinstance(section.children, dict):
        return {str(name): node for name, node in section.children.items()}
    if isinstance(section.children, list):
        return {name: node for item in section.children for name, node in named(item).items()}
    return {section.value: section} if isinstance(section.value, str) else {}


def columns_of(name: str) -> tuple[str, ...]:
    """Returns the columns of a factor; several are zipped."""
    return tuple(part.strip() for part in name.split(","))


class FactorReader:
    """Takes the sections of factors and notes what is wrong."""

    def __init__(self, faults: list[Fault]) -> None:
        """Starts.

        Args:
            faults: added to.
        """
        self.faults = faults
        self.set_by: dict[str, str] = {}  # path -> where it is set
        self.ranges: dict[str, tuple[Node, Range | None]] = {}
        self.notes: list[str] = []
        self.unread: set[str] = set()  # columns of scientific factors that something is wrong with

    def read(self, sections: dict[Role, Node], search: Node | None = None) -> tuple[Factor, ...]:
        """Returns the factors of all sections.

        Args:
            sections: role -> what stands there.
            search: how ranges are searched.
        """
        factors: list[Factor] = []
        for role, node in sections.items():
            if role != "scientific" and "scientific" in sections:
                written = {column for name in named(sections["scientific"]) for column in columns_of(name)}
                self.unread = written - {column for factor in factors for column in factor.columns}
            if not isinstance(node.children, dict) or not node.children:
                self._fault(node, role, f"expected a mapping, factor: levels, got {node.value!r}")
                continue
            for name, levels in node.children.items():
                fixed = Factor("fixed", (), (Level({}, {str(name): levels}),))
                factor = fixed if role == "fixed" else self._factor(role, str(name), levels, factors)
                if factor:
                    self._check(factor, f"{role}.{name}", levels)
                    told = any(set(factor.columns) & set(other.columns) for other in factors)
                    factors += [factor] * (not told)
            if role == "nuisance" and (searched := self._searched(search)):
                factors.append(searched)
        if search and not self.ranges:
            self._fault(search, "search", f"there is no range to search; expected nuisance: {{path: {RANGE}}}")
        return tuple(factors)

    def _searched(self, search: Node | None) -> Factor | None:
        """Returns the factor of all ranges together."""
        if search is None:
            for path, (node, _) in self.ranges.items():
                self._fault(node, f"nuisance.{path}", f"a range needs, beside nuisance, search: {SEARCH}")
            return None
        how = SearchReader(self.faults).search(search)
        known = {path: (node, range_) for path, (node, range_) in self.ranges.items() if range_}
        if how is None or not known:
            return None
        factor, note = search_factor(known, how)
        self._check(factor, f"nuisance.{', '.join(known)}", search)
        self.notes.append(note)
        return factor

    def _fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, path, message))

    def _factor(self, role: Role, name: str, node: Node, before: list[Factor]) -> Factor | None:
        path = f"{role}.{name}"
        columns = columns_of(name)
        is_path = all("." in column or column in PLAIN for column in columns)
        if name in (*BEFORE, *AFTER) or "/" in name:
            remedy = f"give the factor another name, or its path (one has a dot, or is {PLAIN[0]})"
            self._fault(node, path, f"'{name}' is a column of every study's table; {remedy}")
            return None
        if is_path and is_range(node):
            self._range(role, columns, node, path)
            return None
        if isinstance(node.children, dict) and set(node.children) == {"per", "values"} and is_path:
            return self._per_level(role, columns, node.children, before, path)
        if isinstance(node.children, dict) and node.children and not is_path and len(columns) == 1:
            levels: list[Level | None] = [self._named(name, key, child, path) for key, child in node.children.items()]
        elif isinstance(node.children, list) and node.children and is_path:
            levels = [self._plain(columns, child, path) for child in node.children]
        else:
            shapes = f"{SHAPES}; or a range, {RANGE}" if role == "nuisance" else SHAPES
            named = f"a mapping of level: {{path: value}}, for '{name}' is no path (one has a dot, or is {PLAIN[0]})"
            what = shapes if is_path else named
            self._fault(node, path, f"expected {what}; got {node.value!r}")
            return None
        kept = tuple(level for level in levels if level)
        return Factor(role, columns, kept) if kept else None

    def _range(self, role: Role, columns: tuple[str, ...], node: Node, path: str) -> None:
        """Notes a range; all of them together make one factor in the end."""
        if role != "nuisance":
            self._fault(node, path, f"a range is searched for its best value, under nuisance; expected {SHAPES}")
        elif len(columns) > 1:
            self._fault(node, path, "expected one path for a range, got several; all ranges vary together anyway")
        else:
            self.ranges[columns[0]] = (node, SearchReader(self.faults).range(node, path))

    def _plain(self, columns: tuple[str, ...], node: Node, path: str) -> Level | None:
        if node.value is OPAQUE:
            return None
        if len(columns) == 1:
            return Level({columns[0]: node.value}, {columns[0]: node})
        items = node.children
        if not isinstance(items, list) or len(items) != len(columns):
            self._fault(node, path, f"expected a list of {len(columns)} values, one per path, got {node.value!r}")
            return None
        return Level({c: item.value for c, item in zip(columns, items, strict=True)}, dict(zip(columns, items)))  # noqa: B905

    def _named(self, name: str, level: Any, node: Node, path: str) -> Level:
        if not isinstance(node.children, dict) and node.value is not None:
            self._fault(node, f"{path}.{level}", f"expected path: value, got {node.value!r}; {{}} changes nothing")
            return Level({name: level}, {})
        return Level({name: level}, {str(key): child for key, child in (node.children or {}).items()})  # type: ignore[union-attr]

    def _per_level(
        self, role: Role, columns: tuple[str, ...], parts: dict[Any, Node], before: list[Factor], path: str
    ) -> Factor | None:
        names = columns_of(str(parts["per"].value))
        scientific = {c: f for f in before if f.role == "scientific" for c in f.columns}
        if unknown := [name for name in names if name not in scientific]:
            if set(unknown) & self.unread:
                return None
            valid = ", ".join(scientific)
            self._fault(
                parts["per"], f"{path}.per", f"expected a scientific factor, got {unknown[0]!r}; valid: {valid}"
            )
            return None
        decides = [(name, [label(level.labels[name]) for level in scientific[name].levels]) for name in names]
        if not isinstance(parts["values"].children, dict):
            self._fault(parts["values"], f"{path}.values", "expected level: value for each level of " + names[0])
            return None
        levels = [
            Level(found.labels, found.nodes, when=when)
            for when, node in self._decided(parts["values"], decides, f"{path}.values")
            if (found := self._plain(columns, node, path))
        ]
        return Factor(role, columns, tuple(levels), names)

    def _decided(
        self, node: Node, decides: list[tuple[str, list[str]]], path: str, chosen: tuple[str, ...] = ()
    ) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Yields levels and the value for them; what is no mapping holds for all levels of the factors that follow."""
        if not decides:
            yield chosen, node
            return
        (per, wanted), *rest = decides
        if not isinstance(node.children, dict):
            for level in wanted:
                yield from self._decided(node, rest, path, (*chosen, level))
            return
        given = {label(key): child for key, child in node.children.items()}
        for key, child in given.items():
            if key not in wanted:
                self._fault(child, f"{path}.{key}", f"{per} has no such level; it has {', '.join(wanted)}")
            else:
                yield from self._decided(child, rest, f"{path}.{key}", (*chosen, key))
        if missing := [key for key in wanted if key not in given]:
            self._fault(node, path, f"missing for {per}: {', '.join(missing)}")

    def _check(self, factor: Factor, path: str, node: Node) -> None:
        """Refuses what is varied twice, and what is not to be tuned."""
        seen: set[str] = set()
        for level in factor.levels if not factor.per else ():
            text = label(list(level.labels.values()))
            if text in seen:
                self._fault(node, path, f"level {text} is given twice")
            seen.add(text)
        paths = {target: value for level in factor.levels for target, value in level.nodes.items()}
        for target, value in paths.items():
            if (written := _shortest(target)) in self.set_by:
                what = _subject(target, path)
                self._fault(value, path, f"{what} is set by {self.set_by[written]} as well")
        self.set_by |= dict.fromkeys(map(_shortest, paths), path)
        if factor.role in ("nuisance", "replicates"):
            self._check_what_differs(factor, path)

    def _check_what_differs(self, factor: Factor, path: str) -> None:
        """Refuses levels that differ in the length of the run or its batch size, in whatever mapping these stand."""
        settings = [flatten(level.overrides) for level in factor.levels]
        for target in dict.fromkeys(target for setting in settings for target in setting):
            kind = "length" if is_length(target) else "batch size" if is_batch_size(target) else ""
            found = [
                (str(setting[target]), level)
                for setting, level in zip(settings, factor.levels, strict=True)
                if target in setting
            ]
            named = factor.role == "nuisance" and target in found[0][1].nodes
            if kind and (named or len(found) < len(settings) or len({value for value, _ in found}) > 1):
                node = next(node for at, node in found[-1][1].nodes.items() if target.startswith(at))
                self._fault(node, path, f"{_subject(target, path)} is {REFUSED[factor.role, kind]}")


def _subject(target: str, path: str) -> str:
    """Returns a path as the subject of what is told of a place; it is not said twice."""
    return "this" if path.partition(".")[2] == target else target


def _shortest(path: str) -> str:
    """Returns a path as it is usually written: ``trainer.callbacks.A.init_args.b`` is ``callbacks.A.b``."""
    return re.sub(r"^trainer\.(?=callbacks\.)|\.init_args\b", "", path)
