"""Where the time of a study goes: in the engine, and in the hand-written loop beside it."""

import json
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from study_arms import Work
from study_clock import WORKERS

PARTS = ("setup", "train", "validate", "checkpoint", "other in fit", "test", "end")

Seconds = dict[str, float]


@dataclass(frozen=True)
class Parts:
    """Seconds of all runs of an arm in one round.

    Attributes:
        pretrains: of each pretrain, part -> seconds.
        transfers: of each transfer.
    """

    pretrains: list[Seconds]
    transfers: list[Seconds]


def parts_of(work: Work, arm: str) -> Parts:
    """Returns where the time of an arm's runs went.

    Args:
        work: that was done.
        arm: ``engine`` or ``two_loops``.
    """
    if arm == "engine":
        runs = [(json.loads(file.read_text()), file) for file in (work.folder / arm).rglob("result.json")]
        seconds = {result["id"]: _of_run(result["seconds"], file) for result, file in runs}
    else:
        files = (work.folder / arm).glob("*/results.json")
        loops = {id_: run for file in files for id_, run in json.loads(file.read_text()).items()}
        seconds = {id_: run["seconds"] for id_, run in loops.items()}
    kinds = {id_: stage.stage for id_, stage in work.plan.stages.items()}
    found = ([some for id_, some in seconds.items() if kinds[id_] == kind] for kind in ("pretrain", "transfer"))
    return Parts(*found)


def _of_run(seconds: Seconds, file: Any) -> Seconds:
    """Returns parts that do not overlap; the end is known by when the run directory's first and last file came."""
    whole = file.stat().st_mtime - (file.parent / "identity.json").stat().st_mtime
    inside = seconds["train"] + seconds["validate"] + seconds["checkpoint"]
    end = whole - seconds["setup"] - seconds["fit"] - seconds["test"]
    return seconds | {"other in fit": seconds["fit"] - inside, "end": end}


def total_section(rounds: list[Seconds], parts: list[dict[str, Parts]]) -> str:
    """Returns what the two workers, or the two loops, did all the time.

    Args:
        rounds: arm -> seconds, for each round.
        parts: arm -> parts, for each round.
    """
    arms = list(parts[0])
    rows: dict[str, list[float]] = {"pretrains": [], "transfers": [], "rest": []}
    for arm in arms:
        pretrains = fmean(_sum(one[arm].pretrains) for one in parts)
        transfers = fmean(_sum(one[arm].transfers) for one in parts)
        rows["pretrains"].append(pretrains)
        rows["transfers"].append(transfers)
        rows["rest"].append(WORKERS * fmean(one[arm] for one in rounds) - pretrains - transfers)
    lines = [
        "## Where the time of the study goes\n",
        f"Seconds of {WORKERS} processes per round. The rest: starting and importing, planning, waiting for a pretrain "
        "or for the last run, and of each of the engine's stages what comes before its run directory.\n",
        *_heading(arms),
        *(f"| {part} | {' | '.join(f'{value:.1f}' for value in values)} |" for part, values in rows.items()),
    ]
    return "\n".join([*lines, ""])


def parts_section(parts: list[dict[str, Parts]]) -> str:
    """Returns where the time of a transfer goes: means over all transfers."""
    arms = list(parts[0])
    lines = [
        "## Where the time of a transfer goes\n",
        "Milliseconds, mean over all transfers. The engine's are the seconds in result.json; `other in fit` is the fit "
        "without the three parts before it, `end` from the test to result.json: curves.png, hyperparameters.\n",
        *_heading(arms),
    ]
    runs = {arm: [run for one in parts for run in one[arm].transfers] for arm in arms}
    for part in PARTS:
        cells = [f"{1000 * fmean(run.get(part, 0.0) for run in runs[arm]):.0f}" for arm in arms]
        lines.append(f"| {part} | {' | '.join(cells)} |")
    total = [f"{1000 * _sum(runs[arm]) / len(runs[arm]):.0f}" for arm in arms]
    return "\n".join([*lines, f"| total | {' | '.join(total)} |", ""])


def _sum(runs: list[Seconds]) -> float:
    return sum(run.get(part, 0.0) for run in runs for part in PARTS)


def _heading(arms: list[str]) -> list[str]:
    return [f"| | {' | '.join(arms)} |", "|---" * (1 + len(arms)) + "|"]
