"""The table of a study: a row per run and combination that it serves, rebuilt from the run directories at any time."""

import os
from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.errors import UserError, suggest
from tlkit.runs import write_text
from tlkit.study.columns import AFTER, BEFORE
from tlkit.study.estimate import duration
from tlkit.study.expression import as_numbers, select
from tlkit.study.plan import Planned
from tlkit.study.planned import PlannedStage
from tlkit.study.spec import Study
from tlkit.study.state import Found, states

SECONDS = ("setup", "fit", "train", "validate", "checkpoint", "test")
MOST = 60  # rows that are printed


def study_table(planned: Planned) -> pd.DataFrame:
    """Returns the table; its columns are those of docs/study_table.md."""
    plan = planned.plan
    found = states(plan.root, plan.name, [(stage.stage, stage.id) for stage in plan.stages.values()])
    factors = planned.study.all_columns
    rows: list[dict[str, Any]] = []
    for stage in plan.stages.values():
        run = _run(stage, found[stage.id])
        served = stage.cells if stage.stage == "transfer" else (stage.shared,)
        rows += [run | {column: cell.get(column) for column in factors} for cell in served]
    frame = pd.DataFrame(rows, dtype="object")
    metrics = sorted({name for row in found.values() for name in (row.result or {}).get("metrics", {})})
    frame = frame[[*BEFORE, *factors, *metrics, *AFTER]]
    return frame.apply(_of_one_type)


def write_table(frame: pd.DataFrame, directory: Path) -> list[Path]:
    """Writes the table as Parquet and CSV; returns both files."""
    directory.mkdir(parents=True, exist_ok=True)
    parquet, csv = directory / "table.parquet", directory / "table.csv"
    temporary = directory / f".table.{os.getpid()}.tmp"
    try:
        frame.to_parquet(temporary, index=False)
        temporary.replace(parquet)
    finally:
        temporary.unlink(missing_ok=True)
    write_text(csv, frame.to_csv(index=False))
    return [parquet, csv]


def _of_one_type(column: pd.Series) -> pd.Series:
    """Returns a column as numbers if it holds only such, else as text; Parquet has one type per column."""
    values = column.dropna()
    kinds = {type(value) for value in values}
    if kinds <= {int}:
        return column.astype("Int64")
    return column.astype(float) if kinds <= {int, float} else column.map(str, na_action="ignore")


def _run(stage: PlannedStage, found: Found) -> dict[str, Any]:
    """Returns what a row says of the run itself."""
    result = found.result or {}
    metric, seconds, energy, memory, parameters, summaries = (
        result.get(key) or {} for key in ("metric", "seconds", "energy", "memory", "parameters", "summaries")
    )
    monitors = [one for one in summaries.values() if isinstance(one, dict) and "train_joules" in one]
    monitor = monitors[0] if monitors else {}
    epochs = _epochs(found)
    best = None if metric.get("best_epoch") is None else metric["best_epoch"] + 1
    return {
        **(result.get("metrics") or {}),
        "stage": stage.stage,
        "status": found.state,
        "selected_by": metric.get("name"),
        "selected_mode": metric.get("mode"),
        "best_value": metric.get("best"),
        "last_value": metric.get("last"),
        "epochs": epochs,
        "best_epoch": best,
        "best_epoch_fraction": best / epochs if best and epochs else None,
        "best_step": metric.get("best_step"),
        "seconds": duration(found) if seconds else None,
        **{f"seconds_{part}": seconds.get(part) for part in SECONDS},
        "joules": energy.get("joules"),
        "joules_train": monitor.get("train_joules"),
        "energy_method": energy.get("method"),
        "peak_bytes": memory.get("peak_bytes"),
        "memory_device": memory.get("device"),
        "peak_bytes_fit": monitor.get("peak_bytes"),
        "parameters": parameters.get("total"),
        "parameters_trainable": parameters.get("trainable"),
        **{key: result.get(key) for key in ("device", "precision", "threads", "seed")},
        "combinations": len(stage.cells),
        "run": str(found.path) if found.path else None,
        "id": stage.id,
        "pretrain_id": stage.pretrain,
    }


def _epochs(found: Found) -> int | None:
    """Returns how many epochs a finished run had; its number of epochs may have been a limit only."""
    if found.state != "done" or found.path is None:
        return None
    try:
        last = (found.path / "metrics.csv").read_bytes().rstrip().rpartition(b"\n")[2]
        return int(last.partition(b",")[0]) + 1
    except (OSError, ValueError):
        return None


def _printed(value: Any) -> Any:
    return "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else value


def view(frame: pd.DataFrame, study: Study, where: str | None, sort: str | None) -> str:
    """Returns the rows that a condition keeps, in the order of a column, as text for a terminal.

    Raises:
        UserError: no such condition or column.
    """
    rows = chosen(frame, where, sort)
    shown = ["stage", "status", *study.all_columns, study.metric, "best_epoch", "best_epoch_fraction", "seconds", "id"]
    return printed(rows[[column for column in shown if column in rows]].assign(id=rows["id"].str[:8]))


def chosen(frame: pd.DataFrame, where: str | None, sort: str | None) -> pd.DataFrame:
    """Returns the rows that a condition keeps, in the order of a column; ``-COLUMN``: from the largest down.

    Raises:
        UserError: no such condition or column.
    """
    rows = frame[select(frame, where)] if where else frame
    if not sort:
        return rows
    name = sort.removeprefix("-").strip("`")  # as in a condition
    if name not in frame:
        raise UserError(f"--sort: no column '{name}'{suggest(name, frame) or ';'} valid: {', '.join(frame)}")
    numbers = as_numbers(rows[name])
    keys = rows[name] if numbers is None else numbers
    return rows.loc[keys.sort_values(ascending=not sort.startswith("-"), kind="stable").index]


def printed(frame: pd.DataFrame) -> str:
    """Returns a table as text for a terminal, its first rows."""
    if frame.empty:
        return "no rows"
    text = frame.head(MOST).map(_printed).to_string(index=False)
    return text if len(frame) <= MOST else f"{text}\n… {len(frame) - MOST} more rows in the files"
