"""The report of a study's own table: what the study's YAML says of its columns."""

import csv
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.errors import UserError, suggest
from tlkit.paths import flatten
from tlkit.study.expression import as_numbers
from tlkit.study.joined import crossed, factor_label, part_of, replicate, with_joined
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
    "cap": ("cap", "callbacks.EnergyMonitor.power_cap_watts"),
    "batch_size": ("data.batch_size",),
    "train_loss": ("train/loss",),
    "val_loss": ("val/loss",),
    "epochs": ("epochs",),
    "seconds": ("seconds_train", "seconds"),
    "joules": ("joules_train", "joules"),  # of the same batches: set-up and test are no part of an epoch
    "memory": ("peak_bytes",),
    "best_epoch_fraction": ("best_epoch_fraction",),
    "run": ("id",),
}
"""Role -> columns that have it where the study's ``report.columns`` does not say otherwise."""

SEED = 0  # of an experiment that names none
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
    done, mapping = finished(planned)
    curves = pd.DataFrame(_curves(done, study.metric), columns=["run", "epoch", "value", "what"])
    mapping = replace(mapping, curves_label=", ".join(curves["what"].unique()))
    return write_report(done, mapping, out, title=study.name, command=command, curves=None if curves.empty else curves)


def finished(planned: Planned) -> tuple[pd.DataFrame, TableMapping]:
    """Returns the finished transfers of a study, a row each, and what their columns mean.

    Those that failed are among them, without a metric: under a setting where runs diverge, those left were lucky.

    Raises:
        UserError: no run is done; what the study's ``report`` says does not fit.
    """
    study = planned.study
    table = study_table(planned)
    transfers = table[table["stage"] == "transfer"]
    done = transfers[transfers["status"].isin(["done", "failed"])].reset_index(drop=True)
    if "done" not in set(done["status"]):
        raise UserError(f"expected finished runs of {study.name}, got none; tlkit study run {study.path}")
    if study.metric not in done:
        valid = [column for column in done if "/" in column]
        meant = suggest(study.metric, valid) or ";"
        raise UserError(f"metric: no run has '{study.metric}'{meant} there are: {', '.join(valid)}")
    counts = transfers["status"].value_counts()
    absent = tuple(f"{number} of {len(transfers)} runs: {state}" for state, number in counts.items() if state != "done")
    done = _with_selection(_with_source(with_joined(done, study), study))
    return done, _mapping(planned, done, (*absent, *crossed(done, study)))


def _mapping(planned: Planned, frame: pd.DataFrame, absent: tuple[str, ...]) -> TableMapping:
    study, given = planned.study, planned.study.report
    factors = [*study.columns("scientific"), *study.columns("nuisance")]
    parts, asked = part_of(study), given.get("answer")
    wholes = dict.fromkeys(parts.get(name, name) for name in factors)
    known = [name for name in frame if frame[name].notna().any()]
    roles = {
        role: tuple(name for name in names if (name in factors if role in FIGURED else name in known))
        for role, names in DEFAULT_ROLES.items()
    }
    before = f"before/{study.metric.partition('/')[2]}"
    roles |= {role: (name,) for role, name in (("before", before), *SOURCE.items()) if name in known}
    columns = dict(given.get("columns") or {})
    roles["selected_by"], selected_mode = _selection(frame, columns.pop("selected_by", None))
    for role, names in columns.items():
        chosen = [names] if isinstance(names, str) else [str(name) for name in names or ()]
        if role not in ROLES or any(name not in frame for name in chosen):
            raise UserError(
                f"report.columns.{role}: expected a role ({', '.join(ROLES)}) and columns of the table, got {names!r}"
            )
        roles[role] = tuple(chosen)
    if not roles["over"] and "over" not in columns:
        taken = {parts.get(name, name) for role in ("size", "protocol", "source", "target") for name in roles[role]}
        roles["over"] = tuple(name for name in wholes if name not in {*taken, *study.columns("nuisance")})
    return TableMapping(
        metric=study.metric,
        mode=study.mode,
        factors={name: factor_label(name, given.get("labels") or {}) for name in wholes},
        metric_label=study.metric_label,
        replicate=replicate(study),
        goal=study.goal,
        answer=parts.get(asked or "", asked),
        nuisance=study.columns("nuisance"),
        pairs=tuple((str(one), str(other)) for one, other in given.get("pairs") or ()),
        threshold=given.get("threshold"),
        fixed=fixed_values(study),
        columns={role: names if role == "over" else names[:1] for role, names in roles.items() if names},
        part_of=parts,
        selected_mode=selected_mode,
        ranges={path: searched for factor in study.factors for path, searched in factor.ranges.items()},
        shared_pretrain="pretrain_id" in known,
        missing=(*absent, *study.notes),
    )


def fixed_values(study: Study) -> dict[str, str]:
    """Returns what the experiment says and the study does not vary, its seed, and that all else is at its default."""
    root, _ = read(study.base.read_text(encoding="utf-8"))
    said = {"seed_everything": SEED} | flatten(root.value)
    levels = [(factor.role == "fixed", level) for factor in study.factors for level in factor.levels]
    given = {_full(path, said): value for fixed, level in levels if fixed for path, value in level.overrides.items()}
    varied = {_full(path, said) for fixed, level in levels if not fixed for path in level.nodes} | {"name", "runs"}
    replaced = varied | {path for path, value in given.items() if value != said.get(path)}
    values = {path: value for path, value in said.items() if not _below(path, replaced)}
    for path, value in given.items():  # set at every level, also below what varies
        within = [other for other in varied if _below(other, [path])]
        values |= {part: v for part, v in flatten(value, path).items() if not _below(part, within)}
    values["threads"] = study.threads
    kept = {path: "none" if value is None else str(value) for path, value in values.items()}
    return kept | {"all else": "at its default, which 'tlkit config' shows"}


def _full(path: str, said: Collection[str]) -> str:
    """Returns a path as an experiment has it; where that names a class, its ``class_path`` stands for its arguments."""
    path = f"trainer.{path}" if path.partition(".")[0] == "callbacks" else path
    owner = path.removesuffix(".class_path")
    return owner if owner in said else path


def _below(path: str, others: Collection[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in others)


SOURCE = {"source_before": "metric on the source, before", "source_after": "metric on the source, after"}


def _with_source(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Adds the metric on each run's own source domain, where defocus is what was varied: its columns end in nm."""
    source, metric = "pretrain.with.data.defocus", study.metric.partition("/")[2]
    if source not in frame or as_numbers(frame[source]) is None:
        return frame
    for phase, name in zip(("before", "test"), SOURCE.values(), strict=True):
        columns = [f"{phase}/{metric}/{float(value):+g}nm".replace("/+0nm", "/0nm") for value in frame[source]]
        values = [row.get(column) for column, row in zip(columns, frame.to_dict("records"), strict=True)]
        frame = frame.assign(**{name: values})
    return frame


def _with_selection(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds the value that selected each run's checkpoint, where it is one of validation, under a name that says so.

    Without validation the last epoch counts as the best one, which says nothing of the number of epochs.
    """
    names = {name for name in frame["selected_by"].dropna() if name.startswith("val/")}
    frame = frame.assign(best_epoch_fraction=frame["best_epoch_fraction"].where(frame["selected_by"].isin(names)))
    best = {f"best {name}": frame["best_value"].where(frame["selected_by"] == name) for name in sorted(names)}
    return frame.assign(**best)


def _selection(frame: pd.DataFrame, given: Any) -> tuple[tuple[str, ...], Any]:
    """Returns the column that nuisance settings are chosen by, and its mode (None: the metric's).

    Args:
        frame: the runs, with the columns of `_with_selection`.
        given: what the study's ``report.columns`` says of it; None: it is what selected the checkpoints, if all runs
            had the same.

    Raises:
        UserError: `given` names no column or no mode.
    """
    if given is None:
        selected = frame.loc[frame["status"] == "done", ["selected_by", "selected_mode"]]
        (name, mode), *others = selected.astype(str).drop_duplicates().to_numpy()
        usable = not others and f"best {name}" in frame and mode in ("min", "max")
        return ((f"best {name}",), mode) if usable else ((), None)
    parts = given if isinstance(given, dict) else {"column": given, "mode": None}
    if set(parts) != {"column", "mode"} or parts["column"] not in frame or parts["mode"] not in (None, "min", "max"):
        raise UserError(
            "report.columns.selected_by: expected a column of the table, or {column: NAME, mode: min or max}, got "
            f"{given!r}"
        )
    return (str(parts["column"]),), parts["mode"]


def _curves(frame: pd.DataFrame, metric: str) -> Iterator[tuple[str, int, float, str]]:
    """Yields run, epoch (from 1), value and name of what is closest to the metric in each ``metrics.csv``."""
    done = frame[frame["status"] == "done"].drop_duplicates("id")
    for id_, path, selected in done[["id", "run", "selected_by"]].to_numpy():
        try:
            with open(Path(path) / "metrics.csv", newline="", encoding="utf-8") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
        except OSError:
            continue
        name = f"val/{metric.partition('/')[2]}"
        name = name if rows and name in rows[0] else str(selected)
        yield from ((id_, int(row["epoch"]) + 1, float(row[name]), name) for row in rows if row.get(name))
