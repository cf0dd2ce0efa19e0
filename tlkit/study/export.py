"""A study as files for a workflow manager, whose jobs call ``tlkit study stage``. Imports no torch."""

import csv
import io
import json
import math
import os
import shlex
import sys
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tlkit.errors import UserError
from tlkit.runs import write_text
from tlkit.study.estimate import duration, estimate
from tlkit.study.plan import Planned
from tlkit.study.planned import PlannedStage
from tlkit.study.state import Found

SHORT = 16  # characters of an id that are in the names of files
RULES, PROFILE = "Snakefile", "profiles/default/config.yaml"
COLUMNS = ("id", "stage", "pretrain", "mem_mb", "runtime", "gpu")
MEM_MB = 2048  # where nothing was measured: torch, a small network and its data
MEM_MARGIN = 1.5
TIME_MARGIN = 2.0
START = 5  # minutes: a cold process on a busy node


def to_snakemake(planned: Planned, found: dict[str, Found], out: Path, arguments: list[str]) -> list[Path]:
    """Writes rules, their configuration and a table of stages; a stage that is done has its result there at once.

    Args:
        planned: the study.
        found: id -> what has become of the stage.
        out: directory of these files, a new one or that of an earlier export.
        arguments: what names the study on the command line.

    Returns:
        The files.

    Raises:
        UserError: `out` has a Snakefile of someone else's.
    """
    template = resources.files("tlkit.study") / "workflow"
    rules = (template / RULES).read_text(encoding="utf-8")
    _check(out, rules.partition("\n")[0])
    study = (planned.plan.root / planned.plan.name).resolve()
    config = {
        "study": shlex.join(arguments),
        "folder": os.getcwd(),
        "tlkit": shlex.join([sys.executable, "-m", "tlkit"]),
        "threads": planned.plan.threads,
        "table": str(study / "table.parquet"),
        "report": str(study / "report" / "report.html"),
    }
    contents = {
        RULES: rules,
        PROFILE: (template / PROFILE).read_text(encoding="utf-8"),
        "config.yaml": f"# {planned.study.goal}\n" + yaml.safe_dump(config, sort_keys=False, width=1000),
        "stages.tsv": _table(planned, found),
    }
    for name, text in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(out / name, text)
    _enter_results(planned, found, out / "results")
    return [out / name for name in contents]


def write_result(run: Path, file: Path) -> None:
    """Writes the result of a run, and where that is, to a place known beforehand."""
    result = json.loads((run / "result.json").read_text())
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"run": str(run.resolve())} | result, indent=1) + "\n")


def _check(out: Path, first_line: str) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out: expected a directory, got the file {out}")
    rules = out / RULES
    earlier = rules.exists() and rules.read_text(encoding="utf-8").startswith(first_line)
    if out.exists() and any(out.iterdir()) and not earlier:
        raise UserError(
            f"--out: expected a new or empty directory, or one with an earlier export, got {out} with other files"
        )


def _enter_results(planned: Planned, found: dict[str, Found], results: Path) -> None:
    """Makes the results those of the run directories: what is done needs no job, what is gone needs one."""
    for stage in planned.plan.stages.values():
        file, known = results / f"{stage.stage}-{stage.id[:SHORT]}.json", found[stage.id]
        if known.state != "done" or known.path is None:
            file.unlink(missing_ok=True)
        elif not file.exists():
            write_result(known.path, file)


def _table(planned: Planned, found: dict[str, Found]) -> str:
    """Returns the stages as tab-separated text."""
    text = io.StringIO()
    table = csv.writer(text, delimiter="\t", lineterminator="\n")
    table.writerow(COLUMNS)
    seconds = estimate(planned.study, planned.plan, found).stages
    memory = _memory(planned, found)
    for stage in planned.plan.stages.values():
        expected = seconds.get(stage.id) or duration(found[stage.id])
        runtime = math.ceil(TIME_MARGIN * expected / 60) + START if expected else ""
        source = stage.pretrain[:SHORT] if stage.pretrain else ""
        table.writerow([stage.id[:SHORT], stage.stage, source, memory[stage.stage], runtime, gpus(stage)])
    return text.getvalue()


def _memory(planned: Planned, found: dict[str, Found]) -> dict[str, int]:
    """Returns kind of stage -> MB to ask for: with a margin over the most that was measured, never less than usual."""
    peaks: dict[str, int] = defaultdict(lambda: MEM_MB)
    for stage in planned.plan.stages.values():
        memory = (found[stage.id].result or {}).get("memory") or {}
        if memory.get("device") == "process":
            asked = math.ceil(MEM_MARGIN * memory["peak_bytes"] / 2**20)
            peaks[stage.stage] = max(peaks[stage.stage], asked)
    return peaks


def gpus(stage: PlannedStage) -> Any:
    """Returns the number of GPUs that a stage cannot do without; empty: none."""
    trainer = stage.config["trainer"]
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        return ""
    devices = trainer.get("devices")
    return len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) and devices > 0 else 1
