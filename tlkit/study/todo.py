"""Which stages of a study are still to run: those without a finished run that can be trusted."""

import json
import logging
import zipfile
from functools import cache
from pathlib import Path

from tlkit.study.planned import PlannedStage, StudyPlan
from tlkit.study.state import RUN, again, finished_result, weights

log = logging.getLogger("tlkit")


def to_run(plan: StudyPlan) -> list[PlannedStage]:
    """Returns the stages without a finished run, and the finished pretrains whose weights they need and are gone.

    A finished run that was damaged is set aside under another name, and its stage is run again.
    """
    finished = _finished(plan.root, {id_[:8] for id_ in plan.stages})
    todo = {id_ for id_ in plan.stages if id_ not in finished}
    todo |= again(todo, plan.pretrains, cache(lambda id_: _has_weights(finished[id_])))
    return [stage for id_, stage in plan.stages.items() if id_ in todo]


def _finished(root: Path, short: set[str]) -> dict[str, Path]:
    """Returns id -> run directory of runs with a sound result, of stages whose ids have these first 8 characters."""
    found: dict[str, Path] = {}
    runs = [file.parent for file in root.glob("*/*/result.json")]
    for run in sorted(runs, key=lambda run: run.stat().st_mtime):  # the newest counts
        match = RUN.fullmatch(run.name)
        if match is None or match[2] not in short:  # another study's, or set aside before
            continue
        try:
            if result := finished_result(run):
                found[result["id"]] = run
        except ValueError as error:
            _set_aside(run, f"result.json: {error}")
    return found


def _has_weights(run: Path) -> bool:
    """Tells whether a finished run has what a stage that starts from it reads: best.ckpt, whole."""
    best = weights(run, json.loads((run / "result.json").read_text())["metric"])
    if best is None:
        if (run / "checkpoints" / "last.ckpt").exists():
            _set_aside(run, "of its checkpoints best.ckpt is missing, and last.ckpt would be taken for it")
        return False  # else cleaned up
    try:
        with zipfile.ZipFile(best) as archive:  # torch reads what is in it without looking at the checksums
            wrong = archive.testzip()
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        wrong = str(error)
    if wrong:
        _set_aside(run, f"{best.name} is no whole checkpoint: {wrong}")
    return not wrong


def _set_aside(run: Path, reason: str) -> None:
    target = run.with_name(f"damaged-{run.name}")
    n = 1
    while target.exists():
        n += 1
        target = run.with_name(f"damaged-{run.name}-{n}")
    run.rename(target)
    log.warning("%s is damaged (%s): it is now %s, and its stage is run again", run, reason, target.name)
