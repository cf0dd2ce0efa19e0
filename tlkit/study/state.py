"""What has become of a study's stages, read from run directories, locks and failure records. Imports no torch."""

import json
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tlkit.runs import RESULT, identity_of, is_running

State = Literal["done", "running", "failed", "damaged", "cut off", "again", "to do"]

RUN = re.compile(r"(pretrain|transfer)-([0-9a-f]{8})(?:-\d+)?")
KEYS = ("metric", "metrics", "seconds")  # a result without these is none
FAILED = "failed"


@dataclass(frozen=True)
class Found:
    """What has become of a stage.

    Attributes:
        state: ``cut off`` has begun and can go on; ``damaged`` has a result that is not to be trusted;
            ``again``, of `with_again`, is done, but its weights are deleted and a stage to do starts from them.
        path: its run directory, the newest; None: there is none.
        result: of the finished run; None: there is none.
    """

    state: State
    path: Path | None = None
    result: dict[str, Any] | None = None


def states(root: Path, name: str, wanted: Collection[tuple[str, str]]) -> dict[str, Found]:
    """Returns id -> what has become of a stage.

    Args:
        root: directory of all runs; a run counts in whichever experiment it was made.
        name: of the study, whose failure records are read.
        wanted: kind (``pretrain``, ``transfer``) and id of each stage.
    """
    directories = _directories(root)
    failed = failures(root / name)
    found = {}
    for stage, id_ in wanted:
        runs = [_state_of(path, id_) for path in directories.get((stage, id_[:8]), ())]
        candidates = [run for run in runs if run]
        best = min(candidates, key=lambda run: ORDER.index(run.state), default=Found("to do"))
        if best.state not in ("done", "running") and id_[:8] in failed:
            best = Found("failed", best.path)
        found[id_] = best
    return found


ORDER: tuple[State, ...] = ("done", "running", "cut off", "damaged")


def with_again(found: dict[str, Found], pretrains: dict[str, str | None]) -> dict[str, Found]:
    """Returns what has become of stages, where a finished one that `again` names is no longer ``done``.

    Args:
        found: id -> what has become of a stage.
        pretrains: id -> that of the stage that it starts from, which comes before it.
    """

    @cache
    def has_weights(id_: str) -> bool:
        one = found[id_]
        return bool(one.path and one.result and weights(one.path, one.result["metric"]))

    todo = {id_ for id_ in pretrains if found[id_].state != "done"}
    more = again(todo, pretrains, has_weights)
    return found | {id_: replace(found[id_], state="again") for id_ in more}


def again(todo: set[str], pretrains: dict[str, str | None], has_weights: Callable[[str], bool]) -> set[str]:
    """Returns the finished stages that one to do starts from and whose weights are gone."""
    wanted = set(todo)
    for id_, source in reversed(pretrains.items()):
        if source and id_ in wanted and source not in wanted and not has_weights(source):
            wanted.add(source)
    return wanted - todo


def weights(run: Path, metric: dict[str, Any]) -> Path | None:
    """Returns the checkpoint of a finished run that a stage starts from; None: it is gone."""
    best, last = (run / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    validated = metric.get("best") is not None and metric.get("name") != "train/loss"
    return next((file for file in ([best] if validated else [best, last]) if file.exists()), None)


def failures(directory: Path) -> dict[str, Path]:
    """Returns the first 8 characters of an id -> its failure record, in the directory of a study."""
    return {os.path.basename(path): Path(path) for path in _folders(directory / FAILED)}


def _directories(root: Path) -> dict[tuple[str, str], list[str]]:
    """Returns kind and first 8 characters of an id -> run directories, the newest first, as `tlkit.runs.find`."""
    found: dict[tuple[str, str], list[str]] = {}
    for experiment in _folders(root):
        for path in _folders(experiment):
            if match := RUN.fullmatch(os.path.basename(path)):
                found.setdefault((match[1], match[2]), []).append(path)
    return {key: sorted(paths, key=os.path.getmtime, reverse=True) for key, paths in found.items()}


def _folders(path: str | Path) -> Iterable[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return []


def finished_result(run: str | Path) -> dict[str, Any] | None:
    """Returns the result of a run directory, if all that is beside it agrees with it; None: there is no result.

    Raises:
        ValueError: it is not to be trusted; says why.
    """
    try:
        with open(f"{run}/{RESULT}", "rb") as file:
            result: dict[str, Any] = json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(str(error)) from error
    if not isinstance(result, dict) or not all(isinstance(result.get(key), dict) for key in KEYS):
        raise ValueError(f"it is no mapping with {', '.join(KEYS)}")
    if result.get("id") != identity_of(Path(run)):
        raise ValueError("identity.json beside it does not say the same id")
    try:
        expected = result.get("epochs", (result["metric"].get("best_epoch") or 0) + 1)  # of an earlier tlkit: at least
        with open(f"{run}/metrics.csv", "rb") as file:
            epochs = max(0, file.read().count(b"\n") - 1)  # below the header
        if epochs < expected:
            raise ValueError(f"metrics.csv beside it has {epochs} of {expected} epochs")
    except (OSError, TypeError) as error:
        raise ValueError(str(error)) from error
    return result


def _state_of(path: str, id_: str) -> Found | None:
    """Returns what has become of a run; None if it is that of another stage."""
    label = identity_of(Path(path))
    try:
        result = finished_result(path)
    except ValueError:
        return Found("damaged", Path(path)) if label in (id_, None) else None
    if label != id_:
        return None
    if result is not None:
        return Found("done", Path(path), result)
    return Found("running" if is_running(Path(path)) else "cut off", Path(path))
