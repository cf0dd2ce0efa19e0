"""The table of a study: a row per run and combination that it serves, rebuilt from the run directories at any time."""

from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.study.plan import Planned
from tlkit.study.planned import PlannedStage
from tlkit.study.spec import ROLES
from tlkit.study.state import Found, states

FIRST = ("stage", "status")
PARTS = ("setup", "fit", "test", "train", "validate", "checkpoint")


def study_table(planned: Planned) -> pd.DataFrame:
    """Returns the table; its columns are those of docs/study_table.md."""
    plan = planned.plan
    found = states(plan.root, plan.name, [(stage.stage, stage.id) for stage in plan.stages.values()])
    rows: list[dict[str, Any]] = []
    columns = list(dict.fromkeys(column for factor in planned.study.factors for column in factor.columns))
    for stage in plan.stages.values():
        run = _run(stage, found[stage.id])
        served = stage.cells if stage.stage == "transfer" else (_shared(stage.cells, columns),)
        rows += [{"stage": stage.stage, "status": run["status"], **_levels(cell, columns), **run} for cell in served]
    frame = pd.DataFrame(rows)
    metrics = sorted(column for column in frame if "/" in str(column))
    last = ["run", "id", "pretrain_id"]
    order = [*FIRST, *columns, *metrics]
    rest = [column for column in frame if column not in (*order, *last)]
    return frame[[*order, *rest, *last]]


def write_table(frame: pd.DataFrame, directory: Path) -> list[Path]:
    """Writes the table as Parquet and CSV; returns both files."""
    from tlkit.runs import write_text

    directory.mkdir(parents=True, exist_ok=True)
    parquet, csv = directory / "table.parquet", directory / "table.csv"
    temporary = directory / ".table.parquet.tmp"
    typed = frame.copy()
    for column in typed.columns[typed.dtypes == object]:
        values = typed[column].dropna()
        if len({type(value) for value in values} - {int, float}) > (0 if len({type(v) for v in values}) > 1 else 1):
            typed[column] = typed[column].map(lambda value: None if pd.isna(value) else str(value))  # one type a column
    typed.to_parquet(temporary, index=False)
    temporary.replace(parquet)
    write_text(csv, frame.to_csv(index=False))
    return [parquet, csv]


def _levels(cell: dict[str, Any], columns: list[str]) -> dict[str, Any]:
    return {column: cell.get(column) for column in columns}


def _shared(cells: tuple[dict[str, Any], ...], columns: list[str]) -> dict[str, Any]:
    """Returns the levels that all combinations of a pretrain have in common."""
    return {
        column: cells[0].get(column) for column in columns if len({str(cell.get(column)) for cell in cells}) == 1
    }


def _run(stage: PlannedStage, found: Found) -> dict[str, Any]:
    """Returns what a row says of the run itself."""
    result = found.result or {}
    metric = result.get("metric") or {}
    seconds, energy, memory = (result.get(key) or {} for key in ("seconds", "energy", "memory"))
    parameters = result.get("parameters") or {}
    epochs = _epochs(stage, result)
    best = metric.get("best_epoch")
    row: dict[str, Any] = {
        **(result.get("metrics") or {}),
        "status": found.state,
        "selected_by": metric.get("name"),
        "best_value": metric.get("best"),
        "last_value": metric.get("last"),
        "epochs": epochs,
        "best_epoch": None if best is None else best + 1,
        "best_epoch_fraction": None if best is None or not epochs else min(1.0, (best + 1) / epochs),
        "best_step": metric.get("best_step"),
        "seconds": sum(float(seconds.get(part) or 0) for part in PARTS[:3]) if seconds else None,
        **{f"seconds_{part}": seconds.get(part) for part in PARTS},
        "joules": energy.get("joules"),
        **{f"joules_{part}": energy.get(f"{part}_joules") for part in ("train", "validate", "checkpoint")},
        "energy_method": energy.get("method"),
        "peak_bytes": memory.get("peak_bytes"),
        "memory_device": memory.get("device"),
        "parameters": parameters.get("total"),
        "parameters_trainable": parameters.get("trainable"),
        "device": result.get("device"),
        "precision": result.get("precision"),
        "threads": result.get("threads"),
        "seed": result.get("seed"),
        "combinations": len(stage.cells),
        "run": str(found.path) if found.path else None,
        "id": stage.id,
        "pretrain_id": stage.pretrain,
    }
    return row


def _epochs(stage: PlannedStage, result: dict[str, Any]) -> int | None:
    """Returns how many epochs a run had: those of its record, for a run by steps has no number of them."""
    del result
    epochs = stage.config["trainer"]["max_epochs"]
    return int(epochs) if isinstance(epochs, int) and epochs > 0 else None


assert ROLES
