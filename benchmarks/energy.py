"""What measuring energy adds to a step: ``EnergyMonitor`` on devices that take their time to answer.

    make bench        # 3 minutes on an idle machine; writes benchmarks/results/energy.md

Three arms train the same AlexNet from the same weights on the same batches, each with Lightning's stock trainer:

- ``bare``: measures nothing;
- ``counter``: a device with an energy counter, which takes 1 ms to answer, as NVML does;
- ``power``: a device that only knows its power, takes 5 ms to answer, and is asked ten times a second by a thread.

They take turns, one epoch of ten steps each; a round is one turn of every arm, and who begins moves on by one. A turn
lasts from the start of an epoch to that of the next, so that all that happens once per epoch counts; the first round
does not. Ratios are within a round. What the monitor adds is less than what else moves a step, so the time within its
hooks is measured as well, and the processor time of the thread, which goes on during the others' turns. Final weights
must be equal to the last bit.
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
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from relay import ENVIRONMENT, THREADS
from tlkit_callbacks.energy.counter import POWER_INTERVAL, Counter, PowerIntegral
from tlkit_callbacks.energy_monitor import EnergyMonitor
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader
from training_loop import _processor, _spread

from tlkit.models.alexnet import AlexNet

RESULT = Path(__file__).parent / "results" / "energy.md"
NAME, SHAPE = "AlexNet, 64 px, fc_width 512, batch 128", (128, 3, 64, 64)
STEPS, ROUNDS = 10, 15
HOOKS = [name for name in vars(EnergyMonitor) if name.startswith("on_") and name != "on_train_start"]


def joules() -> float:
    """Answers after 1 ms: 300 W, renewed every 20 ms."""
    time.sleep(0.001)
    return time.perf_counter() // 0.02 * 6


def watts() -> float:
    """Answers after 5 ms."""
    time.sleep(0.005)
    return 300.0


def energy_counter() -> Counter:
    return Counter("counter", "benchmark", joules, time)


class Power(PowerIntegral):
    """Adds up the processor time of the thread that reads it."""

    cpu = 0.0

    def update(self) -> str:
        """Reads."""
        start = time.thread_time()
        fault = super().update()
        self.cpu += time.thread_time() - start if threading.current_thread().name == "EnergyMonitor" else 0
        return fault


def power() -> Counter:
    return Power("power", "benchmark", watts, time, interval=POWER_INTERVAL)


class Monitor(EnergyMonitor):
    """Measures one device, and the seconds that its own hooks take."""

    def __init__(self, open_counter: Any) -> None:
        super().__init__()
        self.open_counter, self.seconds = open_counter, 0.0
        for name in HOOKS:
            setattr(self, name, self._timed(getattr(self, name)))

    def counters(self, trainer: Trainer, card: Any) -> list[Counter]:
        """Opens the device."""
        self.opened, self.counter = time.perf_counter(), self.open_counter()
        return [self.counter]

    @property
    def thread_share(self) -> float:
        """Processor time of the sampling thread as a share of the time."""
        return getattr(self.counter, "cpu", 0.0) / (time.perf_counter() - self.opened)

    def _timed(self, hook: Any) -> Any:
        def timed(*args: Any) -> None:
            start = time.perf_counter()
            hook(*args)
            self.seconds += time.perf_counter() - start

        return timed


class Module(LightningModule):
    """Trains on one batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = AlexNet(num_classes=10, in_channels=3, image_size=SHAPE[-1], fc_width=512, dropout=0.0)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Returns the loss."""
        return F.cross_entropy(self.network(batch), torch.arange(len(batch)) % 10)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.001, momentum=0.9)


class Turns(Callback):
    """Lets its fit, in a thread, go on by one epoch at a time; the first among the callbacks."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_train_epoch_start(self, *_: Any) -> None:
        """Waits for the turn."""
        self.done.release()
        self.go.acquire()

    def on_fit_end(self, *_: Any) -> None:
        """Ends the last turn."""
        self.done.release()


class Arm:
    """One fit."""

    def __init__(self, monitor: Monitor | None, epochs: int, folder: str, batch: Tensor) -> None:
        self.module, self.monitor, self.turns = Module(), monitor, Turns()
        self.seconds = 0.0
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
        callbacks = [self.turns, *([monitor] if monitor else [])]
        trainer = Trainer(accelerator="cpu", max_epochs=epochs, callbacks=callbacks, default_root_dir=folder, **quiet)
        batches = DataLoader([batch] * STEPS, batch_size=None)
        self.thread = threading.Thread(target=trainer.fit, args=(self.module, batches), daemon=True)
        self.thread.start()
        self.turns.done.acquire()

    def turn(self) -> tuple[float, float]:
        """Trains one epoch; returns milliseconds per step: in all, and in the monitor's hooks."""
        start, before = time.perf_counter(), self.monitor.seconds if self.monitor else 0.0
        self.turns.go.release()
        self.turns.done.acquire()
        hooks = self.monitor.seconds - before if self.monitor else 0.0
        return (time.perf_counter() - start) * 1000 / STEPS, hooks * 1000 / STEPS


def race(rounds: int, folder: str) -> tuple[dict[str, np.ndarray], float]:
    """Trains in all ways.

    Returns:
        Arm -> ``(rounds, 2)`` milliseconds per step, as `Arm.turn` does; share of the time that the thread computes.
    """
    batch = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    monitors = {"bare": None, "counter": Monitor(energy_counter), "power": Monitor(power)}
    # the last epoch is not timed: the end of the fit comes after it
    arms = {name: Arm(m, rounds + 2, f"{folder}/{name}", batch) for name, m in monitors.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(rounds + 2):
        first = number % len(arms)
        for name in [*arms][first:] + [*arms][:first]:
            times[name].append(arms[name].turn())
    share = monitors["power"].thread_share
    for name, arm in arms.items():
        arm.thread.join()
        pairs = zip(arm.module.parameters(), arms["bare"].module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), f"{name} ended with other weights than bare"
        assert arm.monitor is None or arm.monitor.energy()["joules"] > 0
    return {name: np.array(values[1:-1]) for name, values in times.items()}, share


def _report(times: dict[str, np.ndarray], share: float, seconds: float) -> str:
    load, versions = os.getloadavg()[0], [f"{name} {version(name)}" for name in ("tlkit", "torch", "lightning")]
    lines = [
        "# Time to measure energy\n",
        "Written by `make bench`; what is compared and how stands in `benchmarks/energy.py`. Medians over the rounds,",
        "in parentheses the quartiles. Final weights of all arms are equal to the last bit.\n",
        f"- {time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes; {', '.join(versions)}, "
        f"Python {platform.python_version()}",
        f"- {_processor()}, {os.cpu_count()} cores, {THREADS} thread; load average at the end {load:.1f}\n",
        f"## {NAME}\n",
        f"{len(times['bare'])} rounds of {STEPS} steps, milliseconds per step.\n",
        "| arm | step | / bare | added | within its hooks |",
        "|---|---|---|---|---|",
    ]
    bare = times["bare"][:, 0]
    for name, values in times.items():
        step, hooks = values[:, 0], values[:, 1]
        cells = [_spread(step, 1), _spread(step / bare, 3), _spread(step - bare, 2), _spread(hooks, 3)]
        lines.append(f"| {name} | {' | '.join(cells if name != 'bare' else [cells[0], '', '', ''])} |")
    return "\n".join([*lines, "", f"The thread of `power` takes {share:.2%} of the time of one core.\n"])


def main() -> None:
    """Runs it, prints the table and keeps it; with ``--smoke`` one round, and nothing is kept."""
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ENVIRONMENT)
    for name in ("tlkit", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    smoke, start = "--smoke" in sys.argv, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        times, share = race(1 if smoke else ROUNDS, folder)
    text = _report(times, share, time.perf_counter() - start)
    print(text)
    if not smoke:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text)
        print(RESULT)


if __name__ == "__main__":
    main()
