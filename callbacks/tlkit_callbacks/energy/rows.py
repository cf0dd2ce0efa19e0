"""The rows of ``energy.csv``: what a part of a run took, and what follows from that."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

PARTS = ("train", "validate", "checkpoint", "other")
"""Of the seconds of a row. ``other``: between epochs."""
PERIODS = 10
"""Windows of fewer periods of their counter are invalid: each end may be off by one, so by up to 10 %."""
ALL = "all"


@dataclass
class Use:
    """What one device, or all of them, used in a row.

    Attributes:
        method: how it was measured.
        joules: of energy; None: unknown.
        train_joules: while training alone; None: unknown.
        windows: in which the training was measured.
        fault: why joules are unknown, or ''.
        period_ms: in which the counter renews itself, in milliseconds; None: it did not.
        celsius: temperature at the end.
        cap_watts: power limit in force at the end.
    """

    method: str
    joules: float | None = 0.0
    train_joules: float | None = 0.0
    windows: int = 0
    fault: str = ""
    period_ms: float | None = None
    celsius: float | None = None
    cap_watts: float | None = None

    def add(self, other: "Use") -> None:
        """Adds what the same device used afterwards."""
        self.joules = _sum([self.joules, other.joules])
        self.train_joules = _sum([self.train_joules, other.train_joules])
        self.windows += other.windows
        self.fault = self.fault or other.fault
        self.period_ms, self.celsius, self.cap_watts = other.period_ms, other.celsius, other.cap_watts


@dataclass
class Total:
    """What a device used in a whole run, from its first edge to its last: also where an edge between was not read.

    Attributes:
        joules: of energy.
        fault: why they are too few, or ''.
    """

    joules: float = 0.0
    fault: str = ""


@dataclass
class Row:
    """A part of a run without a change of epoch or phase.

    Attributes:
        stage: ``pretrain`` or ``transfer``; ``fit`` where there are no stages.
        epoch: from 0.
        phase: of the callback that has phases; None: there is none.
        step: optimizer steps at its end.
        precision: of the trainer.
        cap_watts: the cap that was asked for; None: none.
        frozen_fraction: of the parameters, at its first batch; None: it had no batch.
        samples: trained on, of all ranks.
        peak_bytes: of memory, the greatest of all ranks.
        seconds: by part.
        uses: by device.
    """

    stage: str
    epoch: int
    phase: int | None
    step: int
    precision: str
    cap_watts: float | None
    frozen_fraction: float | None = None
    samples: int = 0
    peak_bytes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    uses: dict[str, Use] = field(default_factory=dict)

    @property
    def methods(self) -> set[str]:
        """How it was measured."""
        return {use.method for use in self.uses.values()}

    @staticmethod
    def of(state: dict[str, Any]) -> "Row":
        """Returns the row that ``dataclasses.asdict`` was made of."""
        return Row(**state | {"uses": {device: Use(**use) for device, use in state["uses"].items()}})


def join_ranks(rows: Iterable[Row]) -> Row:
    """Returns one row of what each rank measured at the same time; a card that several share counts once."""
    first, *others = rows
    joined = _copy(first)
    for row in others:
        joined.samples += row.samples
        joined.peak_bytes = max(joined.peak_bytes, row.peak_bytes)
        for device, use in row.uses.items():
            joined.uses.setdefault(device, use)
    return joined


def join(rows: Iterable[Row]) -> Row:
    """Returns one row of several that follow each other; its labels are those of the last.

    Where they were not all measured in the same way, as in a run that went on elsewhere, their joules are unknown.
    """
    first, *others = rows
    joined = _copy(first)
    for row in others:
        joined.epoch, joined.phase, joined.step = row.epoch, row.phase, row.step
        joined.frozen_fraction = row.frozen_fraction
        joined.samples += row.samples
        joined.peak_bytes = max(joined.peak_bytes, row.peak_bytes)
        for part, seconds in row.seconds.items():
            joined.seconds[part] += seconds
        for device, use in row.uses.items():
            joined.uses.setdefault(device, Use(use.method)).add(use)
    if any(row.methods != first.methods for row in others):
        for use in joined.uses.values():
            use.joules, use.train_joules, use.fault = None, None, "not measured in the same way throughout"
    return joined


def whole(rows: list[Row], totals: dict[str, Total]) -> Row:
    """Returns one row of a whole run.

    Args:
        rows: in order.
        totals: device -> what it used, from its counter instead of its windows.
    """
    joined = join(rows)
    if all(row.methods == joined.methods for row in rows):
        for device, total in totals.items():
            joined.uses[device].joules = None if total.fault else total.joules
            joined.uses[device].fault = total.fault
    return joined


def records(row: Row) -> list[dict[str, Any]]:
    """Returns the lines of ``energy.csv``: the sum over all devices, then each device."""
    labels = {
        "stage": row.stage,
        "epoch": row.epoch,
        "phase": row.phase,
        "step": row.step,
        "frozen_fraction": row.frozen_fraction,
        "precision": row.precision,
        "cap_requested_watts": row.cap_watts,
    }
    lines = [labels | {"device": device} | figures(row, device) for device in (ALL, *row.uses)]
    return [{key: _short(value) for key, value in line.items()} for line in lines]


def figures(row: Row, device: str = ALL) -> dict[str, Any]:
    """Returns what a row amounts to; None wherever it is not known.

    Args:
        row: of one rank or joined.
        device: one of them, or all together.
    """
    use = _all(row) if device == ALL else row.uses[device]
    seconds, train = sum(row.seconds.values()), row.seconds["train"]
    fault = _fault(row, use)
    joules = use.joules if use.joules and not use.fault else None
    exact = train >= PERIODS * use.windows * (use.period_ms or 0) / 1000
    return {
        "method": use.method,
        "valid": not fault,
        "why": fault,
        "seconds": seconds,
        **{f"{part}_seconds": row.seconds[part] for part in PARTS[:-1]},
        "samples": row.samples,
        "samples_per_second": row.samples / train if train else None,
        "joules": joules,
        "train_joules": use.train_joules if joules else None,
        "watts": joules / seconds if joules and seconds else None,
        "samples_per_joule": row.samples / use.train_joules if joules and use.train_joules and exact else None,
        "peak_bytes": row.peak_bytes,
        "cap_enforced_watts": use.cap_watts,
        "celsius": use.celsius,
        "counter_period_ms": use.period_ms,
    }


def _fault(row: Row, use: Use) -> str:
    """Returns why the energy of a row is unknown or inexact, or ''."""
    if use.fault or not row.uses:
        return use.fault or "nothing to measure with"
    shortest = PERIODS * (use.period_ms or 0) / 1000
    if sum(row.seconds.values()) < shortest:
        return f"shorter than {PERIODS} periods of the counter ({shortest:.3g} s)"
    return "" if use.joules else "the counter did not change"


def _all(row: Row) -> Use:
    """Returns the sum over devices; of labels the greatest."""
    uses = row.uses
    return Use(
        method=" + ".join(dict.fromkeys(use.method for use in uses.values())) or "none",
        joules=_sum([use.joules or None for use in uses.values()]),
        train_joules=_sum([use.train_joules for use in uses.values()]),
        windows=max((use.windows for use in uses.values()), default=0),
        fault="; ".join(f"{device}: {use.fault}" for device, use in uses.items() if use.fault),
        **{
            label: max((v for use in uses.values() if (v := getattr(use, label)) is not None), default=None)
            for label in ("period_ms", "celsius", "cap_watts")
        },
    )


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _copy(row: Row) -> Row:
    return Row.of({**vars(row), "seconds": dict(row.seconds), "uses": {k: vars(use) for k, use in row.uses.items()}})


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
