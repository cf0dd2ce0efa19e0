"""How long a training step takes: ``tlkit fit`` beside a hand-written loop and beside Lightning.

    make bench        # 5 minutes on an idle machine; writes benchmarks/results/training_loop.md

Four arms train the same network from the same weights on the same batches, each in a process and on a terminal of its
own:

- ``tlkit_fit``: the command, from a YAML, with everything that it does by itself: packed store on disk, conversion of
  8-bit images in the loop, check for NaN, TensorBoard, checkpoints, progress bar;
- ``hand_written``: a plain loop over float32 tensors in memory, one indexing operation per batch, foreach SGD;
- ``lightning_defaults``: ``Trainer()``, ``DataLoader(TensorDataset)`` and ``self.log`` of the loss, step and epoch;
- ``lightning_barebones``: the same module and loader with ``Trainer(barebones=True)``, which logs nothing.

They take turns, one epoch each; a round is one epoch of every arm, and who begins moves on by one. What counts is an
epoch from before its first batch is fetched to after its last step. What follows once per epoch (checkpoints,
``metrics.csv``) does not count for any arm, nor does the first epoch; nothing is validated. A ratio is the median over
the rounds of the ratio within a round, so that what else the machine does touches both sides alike.
Every arm has one thread and keeps the memory it has freed (`relay.ENVIRONMENT` says why).
Final losses and weights must be equal to the last bit, or there is no table.
"""

import os
import platform
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from relay import THREADS, race
from workload import Workload

import tlkit

RESULT = Path(__file__).parent / "results" / "training_loop.md"
ALEXNET = Workload(
    name="AlexNet, 64 px, fc_width 512, batch 128",
    network="AlexNet",
    arguments={"image_size": 64, "fc_width": 512, "dropout": 0.0},
    **{"channels": 3, "image_size": 64, "batch_size": 128, "steps": 10, "rounds": 12},
)
LENET = Workload(
    name="LeNet-5, 28 px, batch 64",
    network="workload.LeNet",
    arguments={},
    **{"channels": 1, "image_size": 28, "batch_size": 64, "steps": 50, "rounds": 50},
)
NARROW = Workload(
    name="AlexNet, 64 px, width 1/8, fc_width 64, batch 32",
    network="AlexNet",
    arguments={"image_size": 64, "width": 0.125, "fc_width": 64, "dropout": 0.0},
    **{"channels": 3, "image_size": 64, "batch_size": 32, "steps": 50, "rounds": 50},
)

Times = dict[str, np.ndarray]  # arm -> (rounds, 2) milliseconds per step: on the clock, of CPU
WALL, CPU = 0, 1


@dataclass(frozen=True)
class Goal:
    """A bound on the ratio of two arms.

    Attributes:
        above: arm in the numerator.
        below: arm in the denominator.
        bound: what the ratio is to be.
        at_least: whether the bound is a lower one.
    """

    above: str
    below: str
    bound: float
    at_least: bool = False

    def row(self, times: Times) -> str:
        """Returns the goal, what was measured on the clock and of CPU time, and whether the former meets it."""
        ratio, cpu = (float(np.median(_ratios(times, self.above, self.below, clock))) for clock in (WALL, CPU))
        met = ratio >= self.bound if self.at_least else ratio <= self.bound
        sign = "≥" if self.at_least else "≤"
        cells = [f"{self.above} / {self.below} {sign} {self.bound}", f"{ratio:.3f}", f"{cpu:.3f}"]
        return f"| {' | '.join(cells)} | {'met' if met else 'missed'} |"


SMALL_STEP = [
    Goal("tlkit_fit", "lightning_barebones", 1.1),
    Goal("lightning_defaults", "tlkit_fit", 1.3, at_least=True),
]
WORKLOADS = [(ALEXNET, [Goal("tlkit_fit", "hand_written", 1.05)]), (LENET, SMALL_STEP), (NARROW, SMALL_STEP)]


def main() -> None:
    """Runs all workloads, prints their tables and keeps them."""
    start = time.perf_counter()
    parts = []
    for workload, goals in WORKLOADS:
        with tempfile.TemporaryDirectory() as folder:
            times = race(workload, Path(folder))
        parts.append(_section(workload, goals, times))
        print(parts[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join([_header(time.perf_counter() - start), *parts]))
    print(RESULT)


def _section(workload: Workload, goals: list[Goal], times: Times) -> str:
    """Returns one workload's tables."""
    lines = [
        f"## {workload.name}\n",
        f"{workload.rounds} rounds of {workload.steps} steps.\n",
        "| arm | ms per step | CPU ms per step | / hand_written | / lightning_barebones |",
        "|---|---|---|---|---|",
    ]
    for arm, values in times.items():
        cells = [_spread(values[:, WALL], 2), _spread(values[:, CPU], 2)]
        cells += [_spread(_ratios(times, arm, other), 3) for other in ("hand_written", "lightning_barebones")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "| goal | measured | by CPU time | |", "|---|---|---|---|", *(goal.row(times) for goal in goals), ""]
    return "\n".join(lines)


def _ratios(times: Times, above: str, below: str, clock: int = WALL) -> np.ndarray:
    """Returns ``(rounds,)`` ratios of times."""
    ratios: np.ndarray = times[above][:, clock] / times[below][:, clock]
    return ratios


def _spread(values: np.ndarray, digits: int) -> str:
    """Returns the median and the quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _header(seconds: float) -> str:
    """Returns what was measured where."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "lightning", "numpy"))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return "\n".join(
        [
            "# Time per training step\n",
            "Written by `make bench`; what is compared and how stands in `benchmarks/training_loop.py`. Medians over "
            "the rounds, in parentheses the quartiles.\n",
            f"- {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes",
            f"- {_processor()}, {os.cpu_count()} cores, {THREADS} thread per arm; load average at the end {load}",
            f"- tlkit {tlkit.__version__}, Python {platform.python_version()}, {versions}",
            "- final losses and weights of all arms equal to the last bit\n",
        ]
    )


def _processor() -> str:
    """Returns the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
