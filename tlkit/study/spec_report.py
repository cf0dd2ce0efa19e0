"""The key ``report`` of a study's YAML, checked before anything runs: it is used when everything has."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from tlkit.errors import suggest
from tlkit.study.columns import AFTER, BEFORE
from tlkit.study.roles import FACTOR_ROLES, ROLES
from tlkit.study.spec import Role
from tlkit.study.spec_factors import columns_of, named
from tlkit.yaml_lines import OPAQUE, Fault, Node

KEYS = ("answer", "pairs", "threshold", "columns", "labels")


def compared(sections: Mapping[Role, Node]) -> tuple[str, ...]:
    """Returns the columns of the factors that a report compares or tunes, whatever is wrong with their levels.

    Args:
        sections: role -> what stands there.
    """
    found: list[str] = []
    for role in ("scientific", "nuisance"):
        for name, node in named(sections[role]).items() if role in sections else ():
            if not isinstance(node.children, dict) or "per" not in node.children:
                found += columns_of(name)
    return tuple(found)


class ReportReader:
    """Takes what a study file says of its report, and notes what is wrong."""

    def __init__(self, factors: Collection[str], faults: list[Fault]) -> None:
        """Starts.

        Args:
            factors: columns of what is compared or tuned.
            faults: added to.
        """
        self.factors, self.faults = factors, faults

    def read(self, node: Node) -> dict[str, Any]:
        """Returns what is said; not to be used if there are faults."""
        if not isinstance(node.children, dict):
            self._fault(node, "", f"expected a mapping with {', '.join(KEYS)}, got {node.value!r}")
            return {}
        checks = dict(zip(KEYS, (self._factor, self._pairs, self._threshold, self._columns, self._labels), strict=True))
        for key, child in node.children.items():
            if key not in KEYS:
                self._fault(child, key, f"unknown key{suggest(str(key), KEYS) or ';'} valid: {', '.join(KEYS)}")
            elif child.value is not None and child.value is not OPAQUE:
                checks[key](child, key)
        return dict(node.value)

    def _fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, f"report.{path}".rstrip("."), message))

    def _factor(self, node: Node, path: str) -> None:
        if node.value not in list(self.factors):
            valid = f"{suggest(str(node.value), self.factors) or ';'} valid: {', '.join(self.factors)}"
            self._fault(node, path, f"expected a factor, scientific or nuisance, got {node.value!r}{valid}")

    def _pairs(self, node: Node, path: str) -> None:
        pairs = node.children if isinstance(node.children, list) else [node]
        for pair in pairs:
            if not isinstance(pair.children, list) or len(pair.children) != 2:
                self._fault(pair, path, f"expected a list of pairs of factors, [[a, b]], got {pair.value!r}")
                continue
            for one in pair.children:
                self._factor(one, path)

    def _threshold(self, node: Node, path: str) -> None:
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._fault(node, path, f"expected a value of the metric, got {value!r}")

    def _labels(self, node: Node, path: str) -> None:
        if not isinstance(node.children, dict):
            self._fault(node, path, f"expected factor: text, got {node.value!r}")
            return
        for name, child in node.children.items():
            self._factor(Node(child.line, name), path)
            if child.children is not None or child.value is None:
                self._fault(child, f"{path}.{name}", f"expected a text, got {child.value!r}")

    def _columns(self, node: Node, path: str) -> None:
        if not isinstance(node.children, dict):
            self._fault(node, path, f"expected role: column, got {node.value!r}; roles: {', '.join(ROLES)}")
            return
        for role, child in node.children.items():
            below = f"{path}.{role}"
            if role not in ROLES:
                self._fault(child, below, f"unknown role{suggest(str(role), ROLES) or ';'} valid: {', '.join(ROLES)}")
            elif role == "over" and isinstance(child.children, list):
                for one in child.children:
                    self._factor(one, below)
            elif role in FACTOR_ROLES and child.value is not None:
                self._factor(child, below)
            elif child.value is not None:
                self._number(child, below, with_mode=role == "selected_by")

    def _number(self, node: Node, path: str, with_mode: bool) -> None:
        """Notes what can be no column of the table; which metrics there are only the runs tell: test/…, val/…."""
        name = node.value
        if with_mode and isinstance(node.children, dict):
            if set(node.children) != {"column", "mode"} or node.children["mode"].value not in ("min", "max"):
                self._fault(node, path, f"expected a column, or {{column: NAME, mode: min or max}}, got {node.value!r}")
                return
            name = node.children["column"].value
        others = (*BEFORE, *AFTER, *self.factors)
        if not isinstance(name, str) or not (name in others or "/" in name or name.startswith("metric on ")):
            valid = f"{suggest(str(name), others) or ';'} docs/study_table.md has them all"
            self._fault(node, path, f"expected one column of the table, got {name!r}{valid}")
