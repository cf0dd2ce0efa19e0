"""The runs as data for the page's own view: columns instead of rows, levels as numbers."""

import json

import numpy as np
import pandas as pd

from tlkit.study.report.section import Shown
from tlkit.study.report.tidy import Runs, exact

GIB = 2.0**30

OWN = ("seconds", "joules")  # under the table's own name, which says of what they are
EXTRA = {
    "seconds": "seconds", "joules": "joules", "memory": "peak memory (GiB)", "train_loss": "training loss",
    "val_loss": "validation loss", "best_epoch_fraction": "best epoch / epochs",
}  # fmt: skip


def page_data(runs: Runs, shown_first: list[str]) -> str:
    """Returns the JSON that the page's script reads; nothing in it can end the script element that holds it.

    Args:
        runs: all of them.
        shown_first: keys of the factors along x and of the lines when the page opens.
    """
    frame = runs.frame
    data = {
        "metric": runs.metric,
        "lower": runs.lower,
        "factors": [
            {
                "label": factor.label,
                "levels": factor.levels,
                "ordered": factor.ordered,
                "codes": frame[factor.key].cat.codes.tolist(),
            }
            for factor in runs.factors
        ],
        "first": [place for key in shown_first for place, f in enumerate(runs.factors) if f.key == key],
        "y": frame["y"].tolist(),
        "replicate": frame["r"].tolist() if "r" in frame else None,
        "replicateLabel": runs.mapping.replicate,
        "columns": [
            {"label": _label(runs, role), "values": _numbers(frame[role] / (GIB if role == "memory" else 1))}
            for role in EXTRA
            if role in frame
        ],
        "run": frame["run"].tolist() if "run" in frame else None,
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _label(runs: Runs, role: str) -> str:
    """Returns the name of a column on the page."""
    return runs.mapping.columns[role][0] if role in OWN else EXTRA[role]


def _numbers(column: pd.Series) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in column]


def runs_table(runs: Runs) -> Shown:
    """Returns all runs as the page's table has them, and those without a value of the metric, which it has not.

    A level that no run with a value has is an empty cell.
    """
    names = {exact(runs.frame, factor): factor.column for factor in runs.factors} | {"y": runs.mapping.metric}
    if runs.mapping.replicate and "r" in runs.frame:
        names["r"] = runs.mapping.replicate
    taken = set(names.values())
    for role in (*EXTRA, "run"):
        if role in runs.frame:
            name = _label(runs, role) if role in OWN else role
            names[role] = f"{role} (role)" if name in taken else name
            taken.add(names[role])
    table = pd.concat([runs.frame, runs.missing]).sort_index(kind="stable")[list(names)].rename(columns=names)
    return Shown("runs", "All runs that the report is about.", table, rows=0)
