"""The table of a scaling study, a row per measurement, and its report."""

from pathlib import Path
from typing import Any

import pandas as pd

from tlkit.errors import UserError
from tlkit.study.report import write_report
from tlkit.study.report.mapping import TableMapping
from tlkit.study.scaling import ScalingStudy, measurements, setting
from tlkit.study.scaling_file import COLUMNS
from tlkit.study.spec import label
from tlkit.study.study_report import fixed_values

LABELS = {"workers": "workers", "threads": "threads per worker"}
ROLES = ("workers", "threads", "wall_seconds", "utilisation")


def scaling_table(study: ScalingStudy) -> pd.DataFrame:
    """Returns the table; its columns are `tlkit.study.scaling_file.COLUMNS`."""
    rows: list[dict[str, Any]] = []
    for one in sorted(measurements(study.scaling)):
        row = {"workers": one.workers, "threads": one.threads, "repeat": one.repeat, "status": study.state(one)}
        if found := study.kept(one):
            wall = found["wall_seconds"]
            row |= {name: found[name] for name in ("stages", "startup_seconds", "wall_seconds", "busy_seconds")}
            row |= {
                "utilisation": found["busy_seconds"] / (one.workers * wall),
                "stages_per_hour": 3600 * found["stages"] / wall,
                "nodes": len(found["cores"]),
                "cores": sum(found["cores"].values()),
                "hosts": ", ".join(sorted(found["cores"])),
                "engine": found["engine"],
            }
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: "Int64" for name in ("stages", "nodes", "cores")})


def report_scaling(study: ScalingStudy, out: Path, command: str) -> tuple[Path, tuple[str, ...]]:
    """Writes the report of a scaling study.

    Args:
        study: as planned.
        out: a new directory, or one with an earlier report.
        command: that makes the report again; printed on the page.

    Returns:
        The page, and what was left out of it, one sentence each.

    Raises:
        UserError: nothing is measured; `out` holds other files.
    """
    table = scaling_table(study)
    done = table[table["status"] == "done"].reset_index(drop=True)
    spec = study.study
    if done.empty:
        raise UserError(f"expected measurements of {spec.name}, got none; tlkit study run {spec.path}")
    counts = table["status"].value_counts()
    absent = (f"{number} of {len(table)} measurements: {state}" for state, number in counts.items() if state != "done")
    given = spec.report
    mapping = TableMapping(
        metric=spec.metric,
        mode=spec.mode,
        factors=LABELS | {str(key): str(value) for key, value in (given.get("labels") or {}).items() if key in LABELS},
        metric_label=spec.metric_label,
        replicate="repeat",
        goal=spec.goal,
        answer=given.get("answer"),
        pairs=tuple((str(one), str(other)) for one, other in given.get("pairs") or ()),
        threshold=given.get("threshold"),
        fixed=_workload(study, done),
        columns={role: (role,) for role in ROLES},
        missing=(*absent, *_notes(done)),
    )
    return write_report(done, mapping, out, title=spec.name, command=command)


def _workload(study: ScalingStudy, done: pd.DataFrame) -> dict[str, str]:
    """Returns what was carried out each time, and on what."""
    levels = {
        ", ".join(factor.columns): "; ".join(label(list(level.labels.values())) for level in factor.levels)
        for factor in study.study.factors
        if factor.role != "fixed"
    }
    facts = {name: ", ".join(map(str, done[name].unique())) for name in ("stages", "hosts", "cores", "engine")}
    return facts | levels | {name: value for name, value in fixed_values(study.study).items() if name != "threads"}


def _notes(done: pd.DataFrame) -> list[str]:
    """Returns what one should know of the measurements, one sentence each."""
    notes = []
    over = done[done["workers"] * done["threads"] > done["cores"]][["workers", "threads"]].drop_duplicates()
    if len(over):
        settings = ", ".join(setting(*pair) for pair in over.itertuples(index=False))
        notes.append(f"oversubscribed, more threads than cores: {settings}")
    for name in ("hosts", "engine"):
        if done[name].nunique() > 1 and done["nodes"].max() == 1:
            notes.append(f"measured with several {name}: settings may differ by that alone")
    return notes
