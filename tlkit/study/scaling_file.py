"""The key ``scaling`` of a study's YAML, and the table that such a study ends in."""

from collections.abc import Mapping
from typing import Any

from tlkit.errors import suggest
from tlkit.study.spec import Scaling
from tlkit.yaml_lines import OPAQUE, Fault, Node

COLUMNS = {
    "workers": "stages carried out at the same time",
    "threads": "threads of each",
    "repeat": "which of the repeats, from 1",
    "status": "`done`, `running`, `failed` (some stage did), `cut off` (is repeated from its start), or `to do`",
    "stages": "stages that were carried out",
    "startup_seconds": "until all workers were ready: started, torch imported, data packed, networks built once, s",
    "wall_seconds": "from then on until the last stage was done, s",
    "busy_seconds": "that the workers were at stages, summed over all workers, s",
    "utilisation": "`busy_seconds` / (`workers` × `wall_seconds`)",
    "stages_per_hour": "3600 × `stages` / `wall_seconds`",
    "nodes": "machines that the workers ran on",
    "cores": "cores that they could use, of all machines together",
    "hosts": "names of the machines",
    "engine": "`local`, or the file of the engine",
}
"""Column -> meaning; docs/study_scaling.md has the same."""

METRICS = ("startup_seconds", "wall_seconds", "busy_seconds", "utilisation", "stages_per_hour")
KEYS = ("workers", "threads", "repeats")
NUMBERS = "a list of whole numbers above 0, each once"


def read_scaling(given: Mapping[Any, Node], faults: list[Fault]) -> Scaling | None:
    """Returns what a scaling study is measured over; None: it is none, or there is too little to go on.

    Args:
        given: the top level of the study's YAML.
        faults: added to; what does not go together with ``scaling`` as well.
    """
    if "scaling" not in given:
        return None
    _check_others(given, faults)
    node = given["scaling"]
    if not isinstance(node.children, dict):
        faults.append(Fault(node.line, "scaling", f"expected a mapping with {', '.join(KEYS)}, got {node.value!r}"))
        return None
    for key, child in node.children.items():
        if key not in KEYS:
            meant = suggest(str(key), KEYS) or ";"
            faults.append(Fault(child.line, f"scaling.{key}", f"unknown key{meant} valid: {', '.join(KEYS)}"))
    workers, threads = (_numbers(node, node.children, key, faults) for key in ("workers", "threads"))
    repeats = node.children.get("repeats")
    if repeats is None or not _is_count(repeats.value):
        got = f"got {repeats.value!r}" if repeats else "missing"
        line = (repeats or node).line
        faults.append(Fault(line, "scaling.repeats", f"expected how often to measure each, at least 1; {got}"))
        return None
    return Scaling(workers, threads, repeats.value) if workers and threads else None


def _numbers(node: Node, children: dict[Any, Node], key: str, faults: list[Fault]) -> tuple[int, ...]:
    child = children.get(key)
    values = child.value if child and isinstance(child.value, list) else []
    if child and values and all(map(_is_count, values)) and len(set(values)) == len(values):
        return tuple(values)
    if child is None or child.value is not OPAQUE:
        got = f"got {child.value!r}" if child else "missing"
        faults.append(Fault((child or node).line, f"scaling.{key}", f"expected {NUMBERS}; {got}"))
    return ()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_others(given: Mapping[Any, Node], faults: list[Fault]) -> None:
    """Notes what means something else, or nothing, in a scaling study."""

    def below(key: str) -> dict[Any, Node]:
        children = given[key].children if key in given else None
        return children if isinstance(children, dict) else {}

    metric = below("metric").get("name")
    if metric and metric.value not in METRICS:
        meant = suggest(str(metric.value), METRICS) or ";"
        valid = f"a scaling study compares one of {', '.join(METRICS)}"
        faults.append(Fault(metric.line, "metric.name", f"got {metric.value!r}{meant} {valid}"))
    if "threads" in given:
        faults.append(Fault(given["threads"].line, "threads", "leave it out: scaling.threads says how many"))
    if size := below("budget").get("gigabytes"):
        faults.append(Fault(size.line, "budget.gigabytes", "leave it out: a scaling study keeps no run directories"))
    if columns := below("report").get("columns"):
        faults.append(Fault(columns.line, "report.columns", "leave it out: they are those of a scaling study's table"))
