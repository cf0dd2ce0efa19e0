"""What a study is: an experiment, what is varied in it, and what it is compared by."""

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
        columns: its paths (several: zipped, varied together), or the name it has in the file; none if it is fixed.
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
