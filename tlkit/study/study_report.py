"""The report of a study's own table: what the study's YAML says of its columns."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.errors import UserError, suggest
from tlkit.paths import flatten
from tlkit.study.plan import Planned
from tlkit.study.report import write_report
from tlkit.study.report.mapping import ROLES, TableMapping
from tlkit.study.spec import Study
from tlkit.study.table import study_table
from tlkit.yaml_lines import read

DEFAULT_ROLES = {
    "size": ("data.examples_per_class", "data.train_structures", "data.train_images"),
    "over": ("pretrain.layers", "callbacks.LayerFreezing.layers", "callbacks.InitialDecay.epochs"),
    "protocol": ("protocol",),
    "source": ("pretrain.with.data.defocus",),
    "target": ("data.defocus",),
    "freeze": ("freeze", "callbacks.LayerFreezing.layers"),
    "precision": ("trainer.precision",),
    "cap": ("cap", "callbacks.EnergyMonitor.cap_watts"),
    "batch_size": ("data.batch_size",),
    "train_loss": ("train/loss",),
    "val_loss": ("val/loss",),
    "epochs": ("epochs",),
    "seconds": ("seconds",),
    "joules": ("joules",),
    "memory": ("peak_bytes",),
    "best_epoch_fraction": ("best_epoch_fraction",),
    "run": ("id",),
}
"""Role -> columns that have it where the study's ``report.columns`` does not say otherwise."""

REPLICATE = "replicate"
FIGURED = ("size", "over", "protocol", "source", "target", "freeze", "precision", "cap", "batch_size")


def report_study(planned: Planned, out: Path, command: str) -> tuple[Path, tuple[str, ...]]:
    """Writes the report of a study.

    Args:
        planned: the study.
        out: a new directory, or one with an earlier report.
        command: that makes the report again; printed on the page.

    Returns:
        The page, and what was left out of it, one sentence each.

    Raises:
        UserError: no run is done; what the study's ``report`` says does not fit.
    """
    study = planned.study
    table = study_table(planned)
    transfers = table[table["stage"] == "transfer"]
    done = transfers[transfers["status"] == "done"].reset_index(drop=True)
    if done.empty:
        raise UserError(f"expected finished runs of {study.name}, got none; tlkit study run {study.path}")
    if study.metric not in done:
        valid = [column for column in done if "/" in column]
        meant = suggest(study.metric, valid) or ";"
        raise UserError(f"metric: no run has '{study.metric}'{meant} there are: {', '.join(valid)}")
    counts = transfers["status"].value_counts()
    absent = tuple(f"{number} of {len(transfers)} runs: {state}" for state, number in counts.items() if state != "done")
    done = _with_source(_with_replicate(done, study), study)
    mapping = _mapping(planned, done, absent)
    curves = pd.DataFrame(_curves(done, study.metric), columns=["run", "epoch", "value"])
    return write_report(done, mapping, out, title=study.name, command=command, curves=None if curves.empty else curves)


def _mapping(planned: Planned, frame: pd.DataFrame, absent: tuple[str, ...]) -> TableMapping:
    study, given = planned.study, planned.study.report
    labels = given.get("labels") or {}
    factors = [*study.columns("scientific"), *study.columns("nuisance")]
    roles = {
        role: tuple(name for name in names if (name in factors if role in FIGURED else name in frame))
        for role, names in DEFAULT_ROLES.items()
    }
    before = f"before/{study.metric.partition('/')[2]}"
    roles |= {role: (name,) for role, name in (("before", before), *SOURCE.items()) if name in frame}
    for role, names in (given.get("columns") or {}).items():
        chosen = [names] if isinstance(names, str) else [str(name) for name in names or ()]
        if role not in ROLES or any(name not in frame for name in chosen):
            raise UserError(
                f"report.columns.{role}: expected a role ({', '.join(ROLES)}) and columns of the table, got {names!r}"
            )
        roles[role] = tuple(chosen)
    return TableMapping(
        metric=study.metric,
        mode=study.mode,
        factors={column: str(labels.get(column, column)) for column in factors},
        metric_label=study.metric_label,
        replicate=REPLICATE if REPLICATE in frame else None,
        goal=study.goal,
        answer=given.get("answer"),
        nuisance=study.columns("nuisance"),
        pairs=tuple((str(one), str(other)) for one, other in given.get("pairs") or ()),
        threshold=given.get("threshold"),
        fixed=_fixed(study),
        columns={role: names if role == "over" else names[:1] for role, names in roles.items() if names},
        missing=(*absent, *study.notes),
    )


def _fixed(study: Study) -> dict[str, str]:
    """Returns what the experiment says and the study does not vary."""
    root, _ = read(study.base.read_text(encoding="utf-8"))
    fixed = {path: v for f in study.factors if f.role == "fixed" for path, v in f.levels[0].overrides.items()}
    fixed |= {"threads": study.threads}
    varied = {path for f in study.factors if f.role != "fixed" for level in f.levels for path in level.nodes}
    varied |= {f"trainer.{path}" for path in varied if path.startswith("callbacks.")} | {"name", "runs"}
    return {
        path: str(value)
        for path, value in (flatten(root.value) | fixed).items()
        if not any(path == other or path.startswith(f"{other}.") for other in varied)
    }


def _with_replicate(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Adds one column for all that is repeated."""
    columns = list(study.columns("replicates"))
    if not columns:
        return frame
    if len(columns) == 1:
        return frame.assign(**{REPLICATE: frame[columns[0]].astype(str)})
    short = [column.rpartition(".")[2] for column in columns]
    joined = [", ".join(f"{n} {v}" for n, v in zip(short, row, strict=True)) for row in frame[columns].to_numpy()]
    return frame.assign(**{REPLICATE: joined})


SOURCE = {"source_before": "metric on the source, before", "source_after": "metric on the source, after"}


def _with_source(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Adds the metric on each run's own source domain, where defocus is what was varied: its columns end in nm."""
    source, metric = "pretrain.with.data.defocus", study.metric.partition("/")[2]
    if source not in frame:
        return frame
    for phase, name in zip(("before", "test"), SOURCE.values(), strict=True):
        columns = [f"{phase}/{metric}/{float(value):+g}nm".replace("/+0nm", "/0nm") for value in frame[source]]
        values = [row.get(column) for column, row in zip(columns, frame.to_dict("records"), strict=True)]
        frame = frame.assign(**{name: values})
    return frame


def _curves(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, int, float]]:
    """Yields run, epoch (from 1) and value of what is closest to the metric in each ``metrics.csv``."""
    for id_, path, selected in frame[["id", "run", "selected_by"]].drop_duplicates("id").to_numpy():
        try:
            with open(Path(path) / "metrics.csv", newline="", encoding="utf-8") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
        except OSError:
            continue
        name = f"val/{metric.partition('/')[2]}"
        name = name if rows and name in rows[0] else str(selected)
        yield from ((id_, int(row["epoch"]) + 1, float(row[name])) for row in rows if row.get(name))
