"""What an exponential moving average of the weights adds to a step: ``EMAWeights`` beside Lightning's.

    make bench        # 3 minutes on an idle machine; writes benchmarks/results/ema.md

Four arms train the same network from the same weights on the same batch, each in one fit of Lightning's stock trainer:

- ``bare``: averages nothing;
- ``tlkit``: ``EMAWeights(decay=0.999)``;
- ``lightning``: ``EMAWeightAveraging(decay=0.999)``, without buffers, which ``tlkit`` does not average either;
- ``lightning_foreach``: its base ``WeightAveraging`` with torch's own function for lists of tensors, as one may set it
  up by hand.

They take turns, ten steps each; a round is one turn of every arm, and who begins moves on by one. The first round does
not count. What counts is the end of a step, from its backward pass on: the update, which all arms make, and all that a
callback does. What an arm adds is the difference to ``bare`` in the same round, per step, and a ratio is the median of
the ratios within the rounds. Lightning's averages begin as the weights after the first update, so ``tlkit`` does too.
They must be equal: to the last bit to ``lightning_foreach``, to 1e-4 to ``lightning``, whose rounding adds up.
"""

import logging
import os
import platform
import sys
import tempfile
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from relay import ENVIRONMENT, THREADS
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from training_loop import _processor, _spread
from typing_extensions import override
from update_ratio import CASES, Case, Clock, Module

RESULT = Path(__file__).parent / "results" / "ema.md"
DECAY, STEPS, GOAL = 0.999, 10, 0.5


class Arm(Callback):
    """One fit in a thread of its own, which waits for its turn before each epoch."""

    def __init__(self, case: Case, averages: list[Callback], rounds: int) -> None:
        self.module, self.averages, self.clock = Module(case), averages, Clock()
        self.go, self.stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        callbacks = [self, self.clock, *averages, Clock(self.clock)]
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
        quiet["default_root_dir"] = tempfile.mkdtemp()  # for what callbacks write
        self.trainer = Trainer(accelerator="cpu", max_epochs=rounds, callbacks=callbacks, **quiet)
        self.batch = torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
        threading.Thread(target=self._fit, daemon=True).start()
        self._wait()

    def turn(self) -> tuple[float, float]:
        """Goes on for one epoch; returns the milliseconds of the end of a step, and of a step in all."""
        self.clock.end = self.clock.whole = 0.0
        self.go.release()
        self._wait()
        return self.clock.end * 1000 / STEPS, self.clock.whole * 1000 / STEPS

    def _wait(self) -> None:
        self.stopped.acquire()
        if self.error is not None:
            raise self.error

    def _fit(self) -> None:
        try:
            self.trainer.fit(self.module, DataLoader([self.batch] * STEPS, batch_size=None))
        except BaseException as error:
            self.error = error
        self.stopped.release()

    @override
    def on_train_epoch_start(self, *_: object) -> None:
        self.stopped.release()
        self.go.acquire()


def race(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Trains a case in all ways.

    Returns:
        Arm -> ``(rounds, 2)`` milliseconds per step: of its end, and of the whole step.

    Raises:
        AssertionError: the arms do not agree on the weights or on their average.
    """
    averages = {
        "bare": [],
        "tlkit": [EMAWeights(DECAY, start=Moment(step=1))],
        "lightning": [EMAWeightAveraging(use_buffers=False, decay=DECAY)],
        "lightning_foreach": [WeightAveraging(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(DECAY))],
    }
    arms = {name: Arm(case, average, rounds + 1) for name, average in averages.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        first = number % len(arms)
        for name in [*arms][first:] + [*arms][:first]:
            times[name].append(arms[name].turn())
    _check(arms)
    return {name: np.array(values[1:]) for name, values in times.items()}


def _check(arms: dict[str, Arm]) -> None:
    """After a fit, all averages are in the modules."""
    weights = {name: dict(arm.module.named_parameters()) for name, arm in arms.items()}
    raw = arms["tlkit"].averages[0].state_dict()["raw"]
    for key, average in weights["tlkit"].items():
        assert torch.equal(raw[key], weights["bare"][key]), f"tlkit and bare trained to other weights: {key}"
        assert torch.equal(average, weights["lightning_foreach"][key]), f"another average than Lightning's: {key}"
        torch.testing.assert_close(average, weights["lightning"][key], rtol=1e-4, atol=1e-4)
        assert not torch.equal(average, raw[key]), f"not averaged: {key}"


def _section(case: Case, times: dict[str, np.ndarray]) -> str:
    """Returns one case's table."""
    lines = [
        f"## {case.name}\n",
        f"{len(times['bare'])} rounds of {STEPS} steps; milliseconds per step.\n",
        "| arm | whole step | its end | added to bare | added / added by lightning |",
        "|---|---|---|---|---|",
    ]
    added = {name: values[:, 0] - times["bare"][:, 0] for name, values in times.items()}
    for name, values in times.items():
        cells = [name, _spread(values[:, 1], 1), _spread(values[:, 0], 2), "", ""]
        if name != "bare":
            cells[3:] = [_spread(added[name], 3), _spread(added[name] / added["lightning"], 3)]
        lines.append(f"| {' | '.join(cells)} |")
    ratio = float(np.median(added["tlkit"] / added["lightning"]))
    share = float(np.median(added["tlkit"] / times["bare"][:, 1]))
    met = "met" if ratio <= GOAL else "missed"
    return "\n".join(
        [*lines, "", f"Goal, tlkit / lightning ≤ {GOAL}: {ratio:.3f}, {met}. tlkit adds {share:.2%} to a bare step.\n"]
    )


def _header(seconds: float) -> str:
    """Returns what was measured where."""
    load, versions = os.getloadavg()[0], [f"{name} {version(name)}" for name in ("tlkit", "torch", "lightning")]
    return f"""# Time to average weights

Written by `make bench`; what is compared and how stands in `benchmarks/ema.py`. Medians over the rounds, in parentheses
the quartiles. The averages of all arms are equal.

- {time.strftime("%Y-%m-%d")}, {seconds / 60:.0f} minutes; {", ".join(versions)}, Python {platform.python_version()}
- {_processor()}, {os.cpu_count()} cores, {THREADS} thread; load average at the end {load:.1f}
"""


def main() -> None:
    """Runs all cases, prints their tables and keeps them; with ``--smoke`` two rounds of each, and nothing is kept."""
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)
    for name in ("tlkit", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    smoke, start, parts = "--smoke" in sys.argv, time.perf_counter(), []
    for case in CASES:
        parts.append(_section(case, race(case, 2 if smoke else case.rounds)))
        print(parts[-1], flush=True)
    text = "\n".join([_header(time.perf_counter() - start), *parts])
    if not smoke:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text)
        print(RESULT)


if __name__ == "__main__":
    main()
