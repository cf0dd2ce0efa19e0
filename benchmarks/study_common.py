"""What the benchmarks of studies share: an engine of two workers, processes of one thread, weights, headers."""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from relay import ENVIRONMENT
from study_clock import WORKERS
from training_loop import _processor

ROOT = Path(__file__).parents[1]
# This checkout, whatever is installed, and where trivial networks and data are.
MODULES = (ROOT, *(ROOT / folder for folder in ("callbacks", "benchmarks", "tests", "tests/study")))


MALLOC = (
    "All processes keep the memory that they have freed, which users' do not unless they set "
    f"{' '.join(f'{name}={value}' for name, value in ENVIRONMENT.items() if 'MALLOC' in name)}."
)
"""What `run` does to the timings; for the header of what uses it."""


def write_engine(folder: Path) -> Path:
    """Writes the engine for this machine, with `WORKERS` workers, and returns its file."""
    engine = yaml.safe_load((ROOT / "configs" / "engines" / "local.yaml").read_text())
    engine["parsl"]["init_args"]["executors"][0]["init_args"]["max_workers_per_node"] = WORKERS
    file = folder / "engine.yaml"
    file.write_text(yaml.safe_dump(engine))
    return file


def run(command: Sequence[str | Path], log: Path) -> float:
    """Runs a command with one thread and returns its seconds on the clock, the start of Python included.

    Args:
        command: without the interpreter.
        log: file that gets what it says.

    Raises:
        SystemExit: it failed; shows the end of what it said.
    """
    path = os.pathsep.join(map(str, MODULES))
    start = time.perf_counter()
    with log.open("w") as file:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=log.parent,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": path},
        )
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))} ended with exit code {done.returncode}:\n{log.read_text()[-4000:]}")
    return seconds


def network_weights(checkpoint: Path) -> list[torch.Tensor]:
    """Returns the tensors of a checkpoint of tlkit, those of the network only, in the order of its modules."""
    state: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    return [value for key, value in state.items() if key.startswith("network.")]


def equal(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    """Tells whether tensors are equal to the last bit."""
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def header(title: str, seconds: float, remark: str) -> str:
    """Returns what was measured where, by the script that runs.

    Args:
        title: of the page.
        seconds: that it took.
        remark: one line on how to read it.
    """
    script = Path(sys.argv[0]).name
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "parsl"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    commit = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    tlkit = subprocess.run(commit, capture_output=True, text=True).stdout.strip() or "no git checkout"
    return "\n".join(
        [
            f"# {title}\n",
            f"    python benchmarks/{script} {shlex.join(sys.argv[1:])}".rstrip() + "\n",
            f"What is compared and how stands in `benchmarks/{script}`. {remark}\n",
            f"- {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes",
            f"- {_processor()}, {os.cpu_count()} cores; load average at the end {load}",
            f"- tlkit at {tlkit}, {versions}, Python {platform.python_version()}\n",
        ]
    )


def spread(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Returns the median and the extremes."""
    extremes = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{unit}{extremes}"


def goal(text: str, ratio: float, bound: float, at_least: bool = False, digits: int = 2) -> str:
    """Returns a row of a table of goals: the goal, what was measured, whether it is met."""
    met = ratio >= bound if at_least else ratio <= bound
    return f"| {text} {'≥' if at_least else '≤'} {bound:g} | {ratio:.{digits}f} | {'met' if met else 'missed'} |"


def keep(text: str, output: Path | None) -> None:
    """Prints the tables, and writes them if there is a file to write them to."""
    print(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
        print(output)
