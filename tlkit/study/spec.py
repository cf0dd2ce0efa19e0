"""What a study is: an experiment, what is varied in it, and what it is compared by."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tlkit.yaml_lines import Node

Role = Literal["scientific", "nuisance", "replicates", "fixed"]

ROLES: tuple[Role, ...] = ("scientific", "nuisance", "replicates", "fixed")
EPOCHS = ("max_epochs", "max_steps", "max_time", "min_epochs", "min_steps")


@dataclass(frozen=True)
class Level:
    """One level of a factor.

    Attributes:
        labels: column -> level, as in the table.
        nodes: path -> what is set there, with its line in the file.
        when: labels of the scientific levels that it belongs to; empty: it is combined with all.
    """

    labels: dict[str, Any]
    nodes: dict[str, Node]
    when: tuple[str, ...] = ()

    @property
    def overrides(self) -> dict[str, Any]:
        """Path -> value."""
        return {path: node.value for path, node in self.nodes.items()}

    @property
    def line(self) -> int:
        """Where it begins in the file."""
        return min((node.line for node in self.nodes.values()), default=1)


@dataclass(frozen=True)
class Range:
    """Where a nuisance factor is searched, in its own unit.

    Attributes:
        low: the lowest value.
        high: the highest; both whole numbers (1, not 1.0): so are all between.
        log: whether equal ratios count alike, not equal differences.
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Returns where a value lies on the scale of the range: 0 at its low end, 1 at its high one."""
        scale = math.log if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def __str__(self) -> str:
        """Returns ``0.001 to 0.1 (log)``."""
        return f"{self.low} to {self.high}{' (log)' * self.log}"


@dataclass(frozen=True)
class Factor:
    """What is varied.

    Attributes:
        role: the section it stands in.
        columns: its paths (several: zipped, varied together), or the name it has in the file; none if it is fixed.
        levels: at least one.
        per: columns of the scientific factors whose levels decide; empty: all levels are combined with all.
        ranges: column -> range, if the levels are points of a search.
    """

    role: Role
    columns: tuple[str, ...]
    levels: tuple[Level, ...]
    per: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)


@dataclass(frozen=True)
class Scaling:
    """The workers and threads under which a scaling study carries its stages out anew.

    Attributes:
        workers: numbers of workers.
        threads: numbers of threads per worker.
        repeats: how often each pair of them is measured.
    """

    workers: tuple[int, ...]
    threads: tuple[int, ...]
    repeats: int


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
        scaling: what the execution time of all its stages is measured over; None: it is no scaling study.
        unread: columns of factors that could not be read, which has been told, and their roles.
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
    scaling: Scaling | None = None
    unread: Mapping[str, Role] = field(default_factory=dict)

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Columns of all factors, in the order of the file."""
        return tuple(column for factor in self.factors for column in factor.columns)

    def columns(self, role: Role) -> tuple[str, ...]:
        """Returns the columns of all factors of a role; not those that a scientific level decides."""
        chosen = [factor for factor in self.factors if factor.role == role and not factor.per]
        return tuple(column for factor in chosen for column in factor.columns)


def label(value: Any) -> str:
    """Returns a level as text: a class by its short name, null as ``none``, for an empty cell would be no level."""
    if value is None:
        return "none"
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    if isinstance(value, list):
        return ", ".join(label(item) for item in value)
    return str(value)


def is_length(path: str) -> bool:
    """Tells whether a path is the length of a run: epochs, steps, time."""
    return path.rpartition(".")[2] in EPOCHS


def is_batch_size(path: str) -> bool:
    """Tells whether a path is the number of images per update."""
    return path.rpartition(".")[2] in ("batch_size", "accumulate_grad_batches")
