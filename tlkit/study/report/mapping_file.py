"""A mapping as YAML: read and checked as a whole, so that everything that is wrong with it is said at once."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from tlkit.errors import UserError, suggest
from tlkit.study.report.mapping import FACTOR_ROLES, ROLES, TableMapping
from tlkit.yaml_lines import OPAQUE, Fault, Node, read

KEYS = (
    "metric", "factors", "replicate", "where", "goal", "answer", "nuisance", "pairs", "threshold", "fixed", "columns",
    "curves",
)  # fmt: skip
SHOWN = 80  # characters of what is echoed


def read_mapping(path: Path, columns: Collection[str]) -> TableMapping:
    """Reads and checks a mapping.

    A column of a factor or a role that the table does not have is no fault: it is left out and listed in `missing`.

    Args:
        path: the YAML; files named in it are relative to its directory.
        columns: those of the table.

    Raises:
        UserError: it cannot be read; everything that is wrong with it, with line numbers; no metric or no factor left.
    """
    try:
        root, faults = read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a mapping in YAML, got {path}: {error}") from error
    if root.value is not OPAQUE and not isinstance(root.children, dict):
        faults.append(Fault(1, "", f"expected a mapping with {', '.join(KEYS)}, got {_cut(root.value)}"))
    check = _Check(columns, faults)
    mapping = check.mapping(root.children, path.parent) if isinstance(root.children, dict) else None
    if check.faults or mapping is None:
        lines = [f"  line {f.line}  {f.path}{': ' if f.path else ''}{f.message}" for f in sorted(set(check.faults))]
        raise UserError("\n".join([f"{path}: {len(lines)} fault{'s' * (len(lines) != 1)}", *lines]))
    return mapping


def _cut(value: Any) -> str:
    """Returns a value as a message has it: the beginning of what may be a whole file."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class _Check:
    """Takes the nodes of a mapping one by one and notes what is wrong."""

    def __init__(self, columns: Collection[str], faults: list[Fault]) -> None:
        self.columns, self.faults = columns, faults
        self.missing: list[str] = []
        self.selected_mode: Literal["min", "max"] | None = None

    def fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, path, message))

    def mapping(self, top: dict[Any, Node], folder: Path) -> TableMapping | None:
        """Returns the mapping; None, or one that must not be used, if there are faults."""
        for key, node in top.items():
            if key not in KEYS:
                self.fault(node, str(key), f"unknown key{suggest(str(key), KEYS) or ';'} valid: {', '.join(KEYS)}")
        given = {key: node for key, node in top.items() if node.value is not None and node.value is not OPAQUE}
        for key in ("metric", "factors"):
            if key not in given:
                self.faults.append(
                    Fault(1, key, "missing; expected " + ("column: label" if key == "factors" else "column and mode"))
                )
        metric, mode, label = self._metric(given.get("metric"))
        factors = self._labels(given, "factors")
        kept = {column: text for column, text in factors.items() if self._exists(column, given["factors"], "factors")}
        if factors and not kept:
            self.fault(given["factors"], "factors", f"none is a column of the table; it has {self._valid()}")
        replicate = self._text(given, "replicate")
        if replicate and not self._exists(replicate, given["replicate"], "replicate"):
            replicate = None
        for role, column in (("metric", metric), ("replicate", replicate)):
            if column in factors:
                self.fault(given[role], role, f"expected a column that is no factor, got '{column}'")
        curves = self._text(given, "curves")
        return TableMapping(
            metric=metric,
            mode=mode,
            factors=kept,
            metric_label=label,
            replicate=replicate,
            where=self._text(given, "where"),
            goal=self._text(given, "goal") or "",
            answer=self._factor(given, "answer", factors, kept),
            nuisance=tuple(self._names(given.get("nuisance"), "nuisance", factors, kept)),
            pairs=self._pairs(given.get("pairs"), factors, kept),
            threshold=self._number(given, "threshold"),
            fixed=self._labels(given, "fixed"),
            columns=self._roles(given.get("columns"), factors, kept),
            selected_mode=self.selected_mode,
            curves=folder / curves if curves else None,
            missing=tuple(self.missing),
        )

    def _metric(self, node: Node | None) -> tuple[str, Literal["min", "max"], str]:
        if node is None:
            return "", "min", ""
        parts = node.children
        if not isinstance(parts, dict) or not {"column", "mode"} <= set(parts):
            self.fault(node, "metric", "expected {column: NAME, mode: min or max, label: TEXT}, label may be left out")
            return "", "min", ""
        for key, part in parts.items():
            if key not in ("column", "mode", "label"):
                self.fault(part, f"metric.{key}", "unknown key; valid: column, mode, label")
        column, mode = str(parts["column"].value), parts["mode"].value
        if column not in self.columns:
            self.fault(parts["column"], "metric.column", self._no_column(column))
        if mode not in ("min", "max"):
            self.fault(parts["mode"], "metric.mode", f"expected min or max, got {mode!r}")
        label = parts["label"].value if "label" in parts else None
        return column, "max" if mode == "max" else "min", "" if label is None else str(label)

    def _labels(self, given: dict[Any, Node], key: str) -> dict[str, str]:
        """Returns name -> text; a list of names has no labels of its own."""
        if key not in given:
            return {}
        node = given[key]
        children = node.children
        if isinstance(children, list) and key == "factors":
            return {str(child.value): str(child.value) for child in children}
        if not isinstance(children, dict) or not children:
            what = "column: label" if key == "factors" else "name: value"
            self.fault(node, key, f"expected a mapping of {what}, got {node.value!r}")
            return {}
        for name, child in children.items():
            if child.children is not None and key == "factors":
                self.fault(child, f"{key}.{name}", f"expected a label, got {child.value!r}")
        return {str(name): str(name if child.value is None else child.value) for name, child in children.items()}

    def _text(self, given: dict[Any, Node], key: str) -> str | None:
        if key not in given:
            return None
        value = given[key].value
        if isinstance(value, str):
            return value
        self.fault(given[key], key, f"expected a text, got {value!r}")
        return None

    def _number(self, given: dict[Any, Node], key: str) -> float | None:
        value = given[key].value if key in given else None
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)):
            return None if value is None else float(value)
        self.fault(given[key], key, f"expected a number, got {value!r}")
        return None

    def _factor(self, given: dict[Any, Node], key: str, factors: Collection[str], kept: Collection[str]) -> str | None:
        if key not in given:
            return None
        found = self._names(given[key], key, factors, kept)
        return found[0] if found else None

    def _names(self, node: Node | None, path: str, factors: Collection[str], kept: Collection[str]) -> list[str]:
        """Returns the factors that a node names: a text or a list of texts; those that the table lacks are dropped."""
        if node is None:
            return []
        items = node.children if isinstance(node.children, list) else [node]
        for item in items:
            if str(item.value) not in factors:
                valid = f"{suggest(str(item.value), factors) or ';'} factors: {', '.join(factors)}"
                self.fault(item, path, f"expected a factor, got {item.value!r}{valid}")
        return [str(item.value) for item in items if str(item.value) in kept]

    def _pairs(self, node: Node | None, factors: Collection[str], kept: Collection[str]) -> tuple[tuple[str, str], ...]:
        if node is None:
            return ()
        pairs = []
        for item in node.children if isinstance(node.children, list) else [node]:
            if not isinstance(item.children, list) or len(item.children) != 2:
                self.fault(item, "pairs", f"expected a list of pairs of factors, got {item.value!r}")
                continue
            names = self._names(item, "pairs", factors, kept)
            if len(names) == 2:
                pairs.append((names[0], names[1]))
        return tuple(pairs)

    def _roles(self, node: Node | None, factors: Collection[str], kept: Collection[str]) -> dict[str, tuple[str, ...]]:
        if node is None:
            return {}
        if not isinstance(node.children, dict):
            self.fault(node, "columns", f"expected a mapping of role: column, got {node.value!r}")
            return {}
        roles: dict[str, tuple[str, ...]] = {}
        for role, child in node.children.items():
            path = f"columns.{role}"
            if role == "selected_by":
                child = self._selected_by(child, path)
            if child.value is None:
                continue
            if role not in ROLES:
                self.fault(child, path, f"unknown role{suggest(str(role), ROLES) or ';'} valid: {', '.join(ROLES)}")
            elif child.children is not None and not (role == "over" and isinstance(child.children, list)):
                self.fault(child, path, f"expected one column, got {child.value!r}")
            elif role in FACTOR_ROLES:
                roles[role] = tuple(self._names(child, path, factors, kept))
            elif self._exists(str(child.value), child, path):
                roles[role] = (str(child.value),)
        return {role: columns for role, columns in roles.items() if columns}

    def _selected_by(self, node: Node, path: str) -> Node:
        """Returns the column of a role that may have a mode of its own, and notes that."""
        parts = node.children
        if not isinstance(parts, dict):
            return node
        if set(parts) != {"column", "mode"} or parts["mode"].value not in ("min", "max"):
            self.fault(node, path, f"expected a column, or {{column: NAME, mode: min or max}}, got {node.value!r}")
            return Node(node.line, None)
        self.selected_mode = "min" if parts["mode"].value == "min" else "max"
        return parts["column"]

    def _exists(self, column: str, node: Node, path: str) -> bool:
        if column in self.columns:
            return True
        self.missing.append(f"{path}: {self._no_column(column)}")
        return False

    def _no_column(self, column: str) -> str:
        return f"the table has no column '{column}'{suggest(column, self.columns) or ';'} it has {self._valid()}"

    def _valid(self) -> str:
        return ", ".join(map(str, self.columns))
