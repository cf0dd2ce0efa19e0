"""A study as written: one YAML that varies an experiment. Read without importing torch, all faults at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tlkit.errors import UserError, suggest
from tlkit.yaml_lines import OPAQUE, Fault, Node, read

Role = Literal["scientific", "nuisance", "replicates"]

ROLES: tuple[Role, ...] = ("scientific", "nuisance", "replicates")
KEYS = ("name", "goal", "base", *ROLES, "metric", "where", "budget", "threads", "report")
REQUIRED = {"name": "a word", "goal": "the question, one sentence", "base": "path of an experiment", "metric": "METRIC"}
METRIC = "{name: test/accuracy, mode: max or min, label: TEXT}; label may be left out"
BUDGET = ("stages", "hours", "gigabytes")
PLAIN = ("seed_everything",)  # the paths without a dot that may vary
EPOCHS = ("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps")


@dataclass(frozen=True)
class Level:
    """One level of a factor.

    Attributes:
        labels: column -> level, as in the table.
        nodes: path -> what is set there, with its line in the file.
        when: label of the scientific level that it belongs to; empty: it is combined with all.
    """

    labels: dict[str, Any]
    nodes: dict[str, Node]
    when: str = ""

    @property
    def overrides(self) -> dict[str, Any]:
        """Path -> value."""
        return {path: node.value for path, node in self.nodes.items()}


@dataclass(frozen=True)
class Factor:
    """What is varied.

    Attributes:
        role: the section it stands in.
        columns: its paths (several: zipped, varied together), or the name it has in the file.
        levels: at least one.
        per: column of the scientific factor whose level decides; empty: all levels are combined with all.
    """

    role: Role
    columns: tuple[str, ...]
    levels: tuple[Level, ...]
    per: str = ""


@dataclass(frozen=True)
class Study:
    """A study as written.

    Attributes:
        path: its file.
        name: of the study, and of its directory below that of all runs.
        goal: the question, one sentence.
        base: file of the experiment that is varied.
        factors: in the order of the file.
        metric: name of a column of the table that runs are compared by.
        mode: whether more or less of it is better.
        metric_label: its name on axes; empty: its name.
        where: condition on the columns that a combination must fulfil; empty: all are kept.
        budget: ``stages`` (number), ``hours`` (of all stages together), ``gigabytes`` (of all run directories).
        threads: per process; results depend on it.
        report: what the mapping of the report has beyond the factors, see docs/study_report.md.
        notes: what one should know before it runs, one sentence each.
    """

    path: Path
    name: str
    goal: str
    base: Path
    factors: tuple[Factor, ...]
    metric: str
    mode: Literal["min", "max"]
    metric_label: str = ""
    where: str = ""
    budget: Mapping[str, float] = field(default_factory=dict)
    threads: int = 1
    report: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def columns(self, role: Role) -> tuple[str, ...]:
        """Returns the columns of all factors of a role; not those that a scientific level decides."""
        chosen = [factor for factor in self.factors if factor.role == role and not factor.per]
        return tuple(column for factor in chosen for column in factor.columns)


def label(value: Any) -> str:
    """Returns a level as text: a class by its short name."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return ", ".join(label(item) for item in value)
    return str(value)


def read_study(path: Path) -> tuple[Study | None, list[Fault]]:
    """Reads a study file.

    Returns:
        The study (None: there is too little to go on) and everything that is wrong with the file as such; whether
        its paths exist in the experiment is for `tlkit.study.check`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        root, faults = read(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"expected a study in YAML, got {path}: {error}") from error
    if not isinstance(root.children, dict):
        if root.value is not OPAQUE:
            faults.append(Fault(1, "", f"expected a mapping with {', '.join(KEYS)}, got {root.value!r}"))
        return None, faults
    reader = _Reader(path, faults)
    return reader.study(root.children), sorted(set(faults))


def refusal(path: Path, faults: list[Fault]) -> str:
    """Returns the faults of a study file as text."""
    lines = [f"  line {f.line}  {f.path}{': ' if f.path else ''}{f.message}" for f in sorted(set(faults))]
    return "\n".join([f"{path}: {len(lines)} fault{'s' * (len(lines) != 1)}", *lines])


class _Reader:
    """Takes the nodes of a study one by one and notes what is wrong."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        from tlkit.study.spec_factors import FactorReader

        self.path, self.faults = path, faults
        self.factors = FactorReader(faults)

    def fault(self, node: Node, path: str, message: str) -> None:
        self.faults.append(Fault(node.line, path, message))

    def study(self, top: dict[Any, Node]) -> Study | None:
        """Returns the study; None if there is no base, or no name to tell one study from another."""
        for key, node in top.items():
            if key not in KEYS:
                self.fault(node, str(key), f"unknown key{suggest(str(key), KEYS) or ';'} valid: {', '.join(KEYS)}")
        given = {key: node for key, node in top.items() if node.value not in (None, OPAQUE)}
        for key, what in REQUIRED.items():
            if key not in given:
                what = METRIC if what == "METRIC" else what
                self.faults.append(Fault(top[key].line if key in top else 1, key, f"missing; expected {what}"))
        name, base = self._text(given, "name"), self._base(given)
        if any(sign in name for sign in "/\\") or name.startswith("."):
            self.fault(given["name"], "name", f"expected a name that a directory can have, got '{name}'")
        factors = self.factors.read({role: given[role] for role in ROLES if role in given})
        if not any(factor.role == "scientific" for factor in factors) and "scientific" not in given:
            self.faults.append(Fault(1, "scientific", "missing; expected factor: [levels], what the question is about"))
        metric, mode, metric_label = self._metric(given.get("metric"))
        study = Study(
            path=self.path,
            name=name,
            goal=self._text(given, "goal"),
            base=base or Path(),
            factors=factors,
            metric=metric,
            mode=mode,
            metric_label=metric_label,
            where=self._text(given, "where"),
            budget=self._budget(given.get("budget")),
            threads=self._threads(given.get("threads")),
            report=self._report(given.get("report")),
            notes=tuple(self._notes(factors)),
        )
        return study if base else None

    def _text(self, given: dict[Any, Node], key: str) -> str:
        value = given[key].value if key in given else ""
        if not isinstance(value, str) or (key in given and not value.strip()):
            self.fault(given[key], key, f"expected a text, got {value!r}")
            return ""
        return value.strip()

    def _base(self, given: dict[Any, Node]) -> Path | None:
        written = self._text(given, "base")
        tried = [self.path.parent / written, Path(written)]
        found = next((path for path in tried if written and path.is_file()), None)
        if written and found is None:
            places = " and ".join(dict.fromkeys(str(path) for path in tried))
            self.fault(given["base"], "base", f"expected the file of an experiment, got none at {places}")
        return found

    def _metric(self, node: Node | None) -> tuple[str, Literal["min", "max"], str]:
        if node is None:
            return "", "max", ""
        parts = node.value if isinstance(node.children, dict) else {}
        if not {"name", "mode"} <= set(parts) or set(parts) > {"name", "mode", "label"}:
            self.fault(node, "metric", f"expected {METRIC}, got {node.value!r}")
            return "", "max", ""
        if parts["mode"] not in ("min", "max"):
            self.fault(node, "metric.mode", f"expected min or max, got {parts['mode']!r}")
        return str(parts["name"]), "min" if parts["mode"] == "min" else "max", str(parts.get("label") or "")

    def _budget(self, node: Node | None) -> dict[str, float]:
        children = node.children if node else {}
        if node and not isinstance(children, dict):
            self.fault(node, "budget", f"expected a mapping with {', '.join(BUDGET)}, got {node.value!r}")
        budget: dict[str, float] = {}
        for key, child in children.items() if isinstance(children, dict) else ():
            if key not in BUDGET:
                self.fault(child, f"budget.{key}", f"unknown key{suggest(str(key), BUDGET) or ';'} valid: {BUDGET}")
            elif isinstance(child.value, bool) or not isinstance(child.value, int | float) or child.value <= 0:
                self.fault(child, f"budget.{key}", f"expected a number above 0, got {child.value!r}")
            else:
                budget[str(key)] = float(child.value)
        return budget

    def _threads(self, node: Node | None) -> int:
        if node is None:
            return 1
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < 1:
            self.fault(node, "threads", f"expected the number of threads per process, at least 1, got {node.value!r}")
            return 1
        return node.value

    def _report(self, node: Node | None) -> dict[str, Any]:
        valid = ("answer", "pairs", "threshold", "columns", "labels")
        if node is None:
            return {}
        if not isinstance(node.children, dict):
            self.fault(node, "report", f"expected a mapping with {', '.join(valid)}, got {node.value!r}")
            return {}
        for key, child in node.children.items():
            if key not in valid:
                self.fault(child, f"report.{key}", f"unknown key{suggest(str(key), valid) or ';'} valid: {valid}")
        return dict(node.value)

    def _notes(self, factors: tuple[Factor, ...]) -> list[str]:
        notes = []
        paths = {path for f in factors if f.role == "scientific" for level in f.levels for path in level.nodes}
        if lengths := sorted(path for path in paths if is_length(path)):
            notes.append(
                f"{', '.join(lengths)} differs between scientific levels: a longer run has had more of everything, say "
                "so with the result"
            )
        if sizes := sorted(path for path in paths if is_batch_size(path)):
            notes.append(
                f"{', '.join(sizes)} differs between scientific levels: it changes speed and energy; quality can be "
                "compared only where the rate is tuned anew for each"
            )
        if not any(factor.role == "replicates" for factor in factors):
            notes.append("there are no replicates: no difference can be told from random variation")
        return notes


def is_length(path: str) -> bool:
    """Tells whether a path is the length of a run: epochs, steps, time."""
    return path.rpartition(".")[2] in EPOCHS


def is_batch_size(path: str) -> bool:
    """Tells whether a path is the number of images per update."""
    return path.rpartition(".")[2] in ("batch_size", "accumulate_grad_batches")
