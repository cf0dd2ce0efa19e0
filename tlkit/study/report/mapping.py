"""What the columns of a table mean: the mapping that a report is made with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tlkit.study.roles import FACTOR_ROLES, NUMBER_ROLES, ROLES
from tlkit.study.spec import Range

__all__ = ["FACTOR_ROLES", "NUMBER_ROLES", "ROLES", "TableMapping"]


@dataclass(frozen=True)
class TableMapping:
    """What the columns of a table mean.

    Attributes:
        metric: column of the value that runs are compared by.
        mode: whether less or more of it is better.
        factors: column -> label (with the unit) of what was varied.
        metric_label: name of the metric on axes, with its unit; empty: the column's name.
        replicate: column of what was repeated for its own sake (seed, split); None: nothing was.
        where: rows that the report is about, see `tlkit.study.expression`; None: all.
        goal: the question, one sentence.
        answer: factor that the question is about; None: the one with the largest share of variance.
        nuisance: factors to be set as well as possible before the others are compared.
        pairs: pairs of factors whose distributions are drawn as small multiples; empty: the strongest interaction.
        threshold: value of the metric beyond which a model is unacceptable; None: that of the worst quarter of all.
        fixed: name -> value of what was not varied; the caveats.
        columns: role -> column, see `ROLES`; ``over`` has several.
        part_of: column -> factor that it is a part of, where several columns are varied together.
        selected_mode: whether less or more of the role ``selected_by`` is better; None: as of the metric.
        ranges: nuisance factor -> the range that it was searched in.
        curves: CSV or Parquet with columns run, epoch, value: the training curves.
        curves_label: what their value is; empty: the metric.
        shared_pretrain: whether runs start from a pretrain whose seconds and joules are not in theirs.
        missing: what the mapping names and the table does not have, one sentence each.
    """

    metric: str
    mode: Literal["min", "max"]
    factors: dict[str, str]
    metric_label: str = ""
    replicate: str | None = None
    where: str | None = None
    goal: str = ""
    answer: str | None = None
    nuisance: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    threshold: float | None = None
    fixed: dict[str, str] = field(default_factory=dict)
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    part_of: Mapping[str, str] = field(default_factory=dict)
    selected_mode: Literal["min", "max"] | None = None
    ranges: Mapping[str, Range] = field(default_factory=dict)
    curves: Path | None = None
    curves_label: str = ""
    shared_pretrain: bool = False
    missing: tuple[str, ...] = ()
