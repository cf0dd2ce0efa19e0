"""What a full set of protocols adds to a step of AlexNet.

    make bench        # 4 minutes on an idle machine; writes benchmarks/results/full_set.md

Two arms train the same network from the same weights on the same batch, each in one fit of Lightning's stock trainer:

- ``by_hand``: conv1 is frozen and one cycle of rate and momentum is set in eight lines, nothing else;
- ``full_set``: ``LayerFreezing``, ``OneCycle``, ``EMAWeights``, ``WeightUpdateRatio(every=50)``, and ``EnergyMonitor``
  with a counter that takes 1 ms to answer.

They take turns, 50 steps each, so that every turn has one measurement of ratios and one reading of the counter. A round
is one turn of each, and who begins alternates; the first round does not count. Ratios are within a round. Final weights
are equal to 1e-6 (both cycles are computed in their own way), or there is no table.
"""

import logging
import math
import os
import platform
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ema
import numpy as np
import torch
from energy import energy_counter
from lightning.pytorch import Callback, LightningModule, Trainer
from relay import ENVIRONMENT, THREADS
from tlkit_callbacks import EMAWeights, EnergyMonitor, LayerFreezing, OneCycle, WeightUpdateRatio
from training_loop import _processor, _spread
from update_ratio import CASES

RESULT = Path(__file__).parent / "results" / "full_set.md"
STEPS, ROUNDS, GOAL = 50, 10, 0.03


class ByHand(Callback):
    """Freezes conv1 and sets rate and momentum."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes."""
        for parameter in pl_module.network.features[0].parameters():
            parameter.requires_grad_(False)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Sets both, along equations 10.5 and 10.6."""
        last = trainer.max_epochs * STEPS - 1
        t, up, peak = trainer.global_step, 0.3 * last, 0.001
        rises = t <= up
        phase = math.pi * (t / up if rises else (t - up) / (last - up))
        low = peak / 10 if rises else peak / 1e4
        share = math.sin(phase / 2) ** 2 if rises else math.cos(phase / 2) ** 2
        for group in trainer.optimizers[0].param_groups:
            group["lr"], group["momentum"] = low + (peak - low) * share, 0.95 - 0.1 * share


class Monitor(EnergyMonitor):
    """Measures a device that needs no GPU."""

    def counters(self, trainer: Trainer, card: Any) -> list[Any]:
        """Opens it."""
        return [energy_counter()]


def race(rounds: int) -> np.ndarray:
    """Returns ``(rounds, 2)`` milliseconds per step, by hand and with the full set."""
    ema.STEPS = STEPS
    full = [LayerFreezing("conv1"), OneCycle(), EMAWeights(0.999), WeightUpdateRatio(every=50), Monitor()]
    arms = [ema.Arm(CASES[0], callbacks, rounds + 1) for callbacks in ([ByHand()], full)]
    times = np.zeros((rounds + 1, 2))
    for number in range(rounds + 1):
        for arm in (0, 1) if number % 2 else (1, 0):
            times[number, arm] = arms[arm].turn()[1]
    raw = full[2].state_dict()["raw"]
    for key, value in arms[0].module.named_parameters():
        torch.testing.assert_close(raw[key], value, rtol=1e-6, atol=1e-7, msg=f"other weights: {key}")
    return times[1:]


def main() -> None:
    """Runs, prints and keeps the table; with ``--smoke`` two rounds, and nothing is kept."""
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)
    for name in ("tlkit", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    smoke, start = "--smoke" in sys.argv, time.perf_counter()
    times = race(2 if smoke else ROUNDS)
    added = times[:, 1] / times[:, 0] - 1
    met = "met" if np.median(added) <= GOAL else "missed"
    versions = [f"{name} {version(name)}" for name in ("tlkit", "torch", "lightning")]
    versions.append(f"Python {platform.python_version()}")
    minutes = (time.perf_counter() - start) / 60
    text = f"""# Time that a full set of protocols adds

Written by `make bench`; what is compared and how stands in `benchmarks/full_set.py`. Medians over the rounds, in
parentheses the quartiles. Final weights are equal.

- {time.strftime("%Y-%m-%d")}, {minutes:.0f} minutes; {", ".join(versions)}
- {_processor()}, {os.cpu_count()} cores, {THREADS} thread; load average at the end {os.getloadavg()[0]:.1f}

{CASES[0].name}; {len(times)} rounds of {STEPS} steps; milliseconds per step.

| by hand | full set | added, percent |
|---|---|---|
| {_spread(times[:, 0], 1)} | {_spread(times[:, 1], 1)} | {_spread(added * 100, 2)} |

Goal, at most {GOAL:.0%}: {np.median(added):.2%}, {met}.
"""
    print(text)
    if not smoke:
        RESULT.write_text(text)


if __name__ == "__main__":
    main()
