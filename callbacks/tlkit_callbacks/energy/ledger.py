"""The rows of a run: gathered from all ranks, kept in checkpoints, written to ``energy.csv``, summed up."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from tlkit.recorder import write_csv
from tlkit_callbacks.energy.rows import Row, Total, figures, join, join_ranks, records, whole
from tlkit_callbacks.energy.trained import gather

FILE = "energy.csv"
SCALARS = {
    **{f"energy/{name}": name for name in ("watts", "joules", "samples_per_joule")},
    **{f"time/{name}": name for name in ("seconds", "train_seconds", "validate_seconds", "checkpoint_seconds")},
    "time/samples_per_second": "samples_per_second",
    "memory/peak_bytes": "peak_bytes",
}
"""Tag in the loggers -> figure of an epoch."""


class Ledger:
    """What a run has used so far.

    Attributes:
        rows: joined over ranks; the last one may still change.
        totals: device -> what it used.
        open: rows of this rank that `publish` will join; the last one is being measured. Empty: nothing is.
    """

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.totals: dict[str, Total] = {}
        self.open: list[Row] = []
        self._closed = 0

    def begin(self, row: Row) -> None:
        """Adds a row, which is measured from now on."""
        if not self.open:
            self._closed = len(self.rows)
        self.open.append(row)

    def publish(self, trainer: Trainer, totals: dict[str, Total]) -> None:
        """Joins what all ranks have measured since the last time; they must all call it, except after an error.

        Args:
            trainer: in a fit.
            totals: of the devices of this rank.
        """
        everyone = gather(trainer, (self.open, totals))
        self.rows[self._closed :] = [join_ranks(rows) for rows in zip(*(rows for rows, _ in everyone), strict=True)]
        for _, theirs in everyone:
            self.totals |= theirs
        self.open, self._closed = self.open[-1:], len(self.rows) - 1

    def write(self, directory: Path) -> None:
        """Writes ``energy.csv``."""
        directory.mkdir(parents=True, exist_ok=True)
        write_csv(directory / FILE, [record for row in self.rows for record in records(row)])

    def log(self, trainer: Trainer) -> None:
        """Logs the epoch that the rows end with; its energy if that is valid."""
        epoch = join([row for row in self.rows if row.epoch == self.rows[-1].epoch])
        known = figures(epoch)
        tags = [tag for tag in SCALARS if known["valid"] or not tag.startswith("energy/")]
        values = {tag: known[SCALARS[tag]] for tag in tags if known[SCALARS[tag]] is not None}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=epoch.step)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint holds: the rows as published last."""
        totals = {device: asdict(total) for device, total in self.totals.items()}
        return {"rows": [asdict(row) for row in self.rows], "totals": totals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint."""
        self.rows = [Row.of(row) for row in state["rows"]]
        self.totals = {device: Total(**total) for device, total in state["totals"].items()}

    def summary(self) -> dict[str, Any]:
        """Returns the figures of the whole run, of each device and of each phase; the fraction frozen is the last."""
        if not self.rows:
            return {}
        run = whole(self.rows, self.totals)
        phases = sorted({row.phase for row in self.rows if row.phase is not None})
        joined = {str(phase): join([row for row in self.rows if row.phase == phase]) for phase in phases}
        return {
            "stage": run.stage,
            "precision": run.precision,
            "cap_requested_watts": run.cap_watts,
            "frozen_fraction": run.frozen_fraction,
            **figures(run),
            "devices": {device: figures(run, device) for device in run.uses},
            "phases": {phase: {"frozen_fraction": row.frozen_fraction} | figures(row) for phase, row in joined.items()},
        }
