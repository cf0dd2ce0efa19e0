"""A search: nuisance paths with a range in place of levels become one factor of points, all known beforehand.

The points are quasi-random: a Halton sequence, scrambled (Owen 2017, arXiv:1706.02808), which fills the ranges more
evenly than random points do (Bousquet et al. 2017, arXiv:1706.03200) and serves at any number of them. A longer search
begins with the points of a shorter one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tlkit.errors import suggest
from tlkit.study.spec import Factor, Level, Range
from tlkit.yaml_lines import OPAQUE, Fault, Node

RANGE = "{low: 0.001, high: 0.1, log: true}; log may be left out"
SEARCH = "{points: 12, seed: 0}; seed may be left out"
DIGITS = 4  # of a point; more cannot be told apart by any result
ROUNDS = 64  # times the points asked for that are drawn at most; of n values, each is then left out with e^-64


@dataclass(frozen=True)
class Search:
    """How ranges are searched.

    Attributes:
        points: how many.
        seed: which of many equally good sets of them.
    """

    points: int
    seed: int = 0


def is_range(node: Node) -> bool:
    """Tells whether a factor is written as a range, whatever is wrong with it."""
    return isinstance(node.children, dict) and not {"low", "high"}.isdisjoint(node.children)


def search_factor(ranges: dict[str, tuple[Node, Range]], search: Search) -> tuple[Factor, str]:
    """Returns one factor for all ranges together, and a sentence that says what is searched.

    Args:
        ranges: path -> what stands in the file, and the range.
        search: number of points and seed.
    """
    found = points([range_ for _, range_ in ranges.values()], search)
    levels = [
        Level(
            dict(zip(ranges, point, strict=True)),
            {path: Node(node.line, value) for (path, (node, _)), value in zip(ranges.items(), point, strict=True)},
        )
        for point in found
    ]
    where = ", ".join(f"{path} {range_}" for path, (_, range_) in ranges.items())
    number = f"{len(found)} quasi-random points"
    if len(found) < search.points:
        number = f"{len(found)} points instead of {search.points}, for there are no more"
    factor = Factor("nuisance", tuple(ranges), tuple(levels), ranges={path: r for path, (_, r) in ranges.items()})
    return factor, f"search: {number}, in {where}"


def points(ranges: Sequence[Range], search: Search) -> list[tuple[float, ...]]:
    """Returns the points of a search, each once; fewer than asked for if the ranges hold no more.

    Args:
        ranges: one per coordinate.
        search: number of points and seed.
    """
    from scipy.stats import qmc  # half a second, which a study without a search does not wait for

    space = math.prod(r.high - r.low + 1 if _whole(r) else math.inf for r in ranges)
    sequence = qmc.Halton(len(ranges), scramble=True, seed=search.seed)
    found: dict[tuple[float, ...], None] = {}
    for _ in range(ROUNDS):
        for row in sequence.random(search.points).tolist():
            found[tuple(_value(r, u) for r, u in zip(ranges, row, strict=True))] = None
            if len(found) == min(search.points, space):
                return list(found)
    return list(found)


def _whole(range_: Range) -> bool:
    return isinstance(range_.low, int) and isinstance(range_.high, int)


def _value(range_: Range, u: float) -> float:
    """Returns the value at a fraction of a range, from 0 to below 1; every whole number has an equal part of it."""
    low, high = range_.low, range_.high
    margin = 0.5 if _whole(range_) else 0.0
    if range_.log:
        value = math.exp(math.log(low - margin) + u * math.log((high + margin) / (low - margin)))
    else:
        value = low - margin + u * (high - low + 2 * margin)
    if _whole(range_):
        return min(max(round(value), low), high)
    step = min(value, high - low) if range_.log else high - low
    return float(min(max(round(value, DIGITS - 1 - math.floor(math.log10(step))), low), high))


class SearchReader:
    """Takes what a study file says of a search, and notes what is wrong."""

    def __init__(self, faults: list[Fault]) -> None:
        """Starts.

        Args:
            faults: added to.
        """
        self.faults = faults

    def range(self, node: Node, path: str) -> Range | None:
        """Returns a range; None if there are faults."""
        known = len(self.faults)
        parts = self._parts(node, path, ("low", "high"), "log", RANGE)
        low, high = (self._number(parts.get(key), f"{path}.{key}") for key in ("low", "high"))
        log = parts["log"].value if "log" in parts else False
        if not isinstance(log, bool):
            self._fault(parts["log"], f"{path}.log", f"expected true or false, got {log!r}")
        if low is None or high is None or len(self.faults) > known:
            return None
        if low >= high:
            self._fault(parts["low"], f"{path}.low", f"expected less than high, got {low} and {high}")
        if log and low <= 0:
            self._fault(parts["low"], f"{path}.low", f"expected more than 0 on a log scale, got {low}")
        return Range(low, high, bool(log)) if len(self.faults) == known else None

    def search(self, node: Node) -> Search | None:
        """Returns number of points and seed; None if there are faults."""
        known = len(self.faults)
        parts = self._parts(node, "search", ("points",), "seed", SEARCH)
        for key, least in (("points", 1), ("seed", 0)):
            value = parts[key].value if key in parts else least
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                self._fault(parts[key], f"search.{key}", f"expected a whole number from {least}, got {value!r}")
        return Search(**{key: part.value for key, part in parts.items()}) if len(self.faults) == known else None

    def _parts(self, node: Node, path: str, required: tuple[str, ...], optional: str, expected: str) -> dict[Any, Node]:
        """Returns the parts of a mapping; what must be there and is not, and what must not be there, is a fault."""
        parts = node.children if isinstance(node.children, dict) else {}
        valid = (*required, optional)
        for key, part in parts.items():
            if key not in valid:
                self._fault(
                    part,
                    f"{path}.{key}",
                    f"unknown key{suggest(str(key), valid) or ';'} valid: {', '.join(valid)}",
                )
        if not set(required) <= set(parts):
            self._fault(node, path, f"expected {expected}; got {node.value!r}")
        return parts

    def _number(self, node: Node | None, path: str) -> float | None:
        if node is None or node.value is OPAQUE:  # told already
            return None
        value = node.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._fault(node, path, f"expected a number, got {value!r}")
            return None
        return value

    def _fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, path, message))
