"""What measuring update ratios adds to a step: ``WeightUpdateRatio`` beside what one would write.

    make bench        # 4 minutes on an idle machine; writes benchmarks/results/update_ratio.md

Four arms train the same network from the same weights on the same batches, each with Lightning's stock trainer:

- ``bare``: measures nothing;
- ``tlkit``: ``WeightUpdateRatio(every=10)``;
- ``naive``: in every step a copy of each parameter, and two norms of each, each read with ``.item()``;
- ``naive_every_10``: the same in every tenth step.

They take turns, ten steps each; a round is one turn of every arm, and who begins moves on by one. The first round does
not count, and has five steps, so that measurements come in the middle of a turn. What counts is the end of a step, from
its backward pass on: the update, which all arms make, and all that a callback does. What an arm adds is the difference
to ``bare`` in the same round, per step. Ratios must be equal, and final weights to the last bit, or there is no table.

On a CPU a read waits for nothing: what ``.item()`` costs on an accelerator is not in here.
"""

import logging
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from relay import ENVIRONMENT, THREADS
from tlkit_callbacks.weight_update_ratio import WeightUpdateRatio
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader
from training_loop import _processor, _spread
from typing_extensions import override

from tlkit.layers import layers_of, network_of
from tlkit.models.alexnet import AlexNet
from tlkit.models.unet import UNet

RESULT = Path(__file__).parent / "results" / "update_ratio.md"
STEPS = EVERY = 10


@dataclass(frozen=True)
class Case:
    """A network, an input ``(B, C, H, W)``, a loss of output and input, and the number of rounds that count."""

    name: str
    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    loss: Callable[[Tensor, Tensor], Tensor]
    rounds: int


CASES = [
    Case(
        "AlexNet, 64 px, fc_width 512, batch 128",
        lambda: AlexNet(num_classes=10, in_channels=3, image_size=64, fc_width=512, dropout=0.0),
        (128, 3, 64, 64),
        lambda output, x: F.cross_entropy(output, torch.arange(len(x)) % 10),
        11,
    ),
    Case("U-Net of 14.3 M parameters, 64 px, batch 4", UNet, (4, 1, 64, 64), F.mse_loss, 22),
]


class Naive(Callback):
    """Reads one number per parameter."""

    def __init__(self, every: int) -> None:
        self.every = every

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.network, self.layers = network_of(pl_module), layers_of(network_of(pl_module))

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.before = {key: p.detach().clone() for key, p in self.network.named_parameters()}

    @override
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        step, values = trainer.global_step - 1, {}
        if step % self.every:
            return
        for name, layer in self.layers.items():
            change = weight = 0.0
            for key in layer.parameters:
                change += (self.network.get_parameter(key).detach() - self.before[key]).norm().item() ** 2
                weight += self.before[key].norm().item() ** 2
            values[f"update_ratio/{name}"] = math.sqrt(change / weight)
        trainer.logger.log_metrics(values, step=step)


class Clock(Callback):
    """Adds up the seconds of whole steps and of their ends; one instance before the others, one after them."""

    def __init__(self, first: "Clock | None" = None) -> None:
        self.first = first
        self.epoch = self.step = self.whole = self.end = 0.0

    @override
    def on_train_epoch_start(self, *_: Any) -> None:
        self.epoch = time.perf_counter()

    @override
    def on_before_optimizer_step(self, *_: Any) -> None:
        self.step = time.perf_counter()

    @override
    def on_train_batch_end(self, *_: Any) -> None:
        if self.first is not None:
            self.first.end += time.perf_counter() - self.first.step

    @override
    def on_train_epoch_end(self, *_: Any) -> None:
        if self.first is not None:
            self.first.whole += time.perf_counter() - self.first.epoch


class Notes(DummyLogger):
    """Keeps the ratios: step -> layer -> ratio."""

    def __init__(self) -> None:
        super().__init__()
        self.ratios: dict[int, dict[str, float]] = {}

    @override
    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.ratios[step] = metrics


class Module(LightningModule):
    """Trains on one batch; keeps its optimizer from turn to turn."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.loss = case.network(), case.loss
        self.sgd = torch.optim.SGD(self.network.parameters(), lr=0.001, momentum=0.9)

    @override
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.loss(self.network(batch), batch)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.sgd


class Arm:
    """One fit, a few steps at a time."""

    def __init__(self, case: Case, monitor: Callback | None) -> None:
        self.module, self.clock, self.notes = Module(case), Clock(), Notes()
        callbacks = [self.clock, *([monitor] if monitor else []), Clock(self.clock)]
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        self.trainer = Trainer(accelerator="cpu", max_epochs=0, callbacks=callbacks, logger=self.notes, **quiet)

    def turn(self, batches: DataLoader[Tensor]) -> tuple[float, float]:
        """Goes on for one epoch; returns the milliseconds of a step, of its end and in all."""
        self.clock.end = self.clock.whole = 0.0
        self.trainer.fit_loop.max_epochs += 1
        self.trainer.fit(self.module, batches)
        return self.clock.end * 1000 / len(batches), self.clock.whole * 1000 / len(batches)


def race(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Trains a case in all ways.

    Returns:
        Arm -> ``(rounds, 2)`` milliseconds per step: of its end, and of the whole step.

    Raises:
        AssertionError: the arms do not agree on a ratio or on a final weight.
    """
    batch = torch.randn(case.shape, generator=torch.Generator().manual_seed(0))
    half, turn = (DataLoader([batch] * steps, batch_size=None) for steps in (STEPS // 2, STEPS))
    monitors = {"bare": None, "tlkit": WeightUpdateRatio(EVERY), "naive": Naive(1), "naive_every_10": Naive(EVERY)}
    arms = {name: Arm(case, monitor) for name, monitor in monitors.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        first = number % len(arms)
        for name in [*arms][first:] + [*arms][:first]:
            times[name].append(arms[name].turn(turn if number else half))
    _check(arms)
    return {name: np.array(values[1:]) for name, values in times.items()}


def _check(arms: dict[str, Arm]) -> None:
    expected = arms["naive"].notes.ratios
    for name in ("tlkit", "naive_every_10"):
        found = arms[name].notes.ratios
        assert list(found) == list(expected)[::EVERY], f"{name} measured at steps {list(found)}"
        for step, ratios in found.items():
            close = [math.isclose(ratios[key], value, rel_tol=1e-4) for key, value in expected[step].items()]
            assert all(close), f"{name} and naive measured other ratios at step {step}"
    for name, arm in arms.items():
        pairs = zip(arm.module.parameters(), arms["bare"].module.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), f"{name} ended with other weights than bare"


def _section(case: Case, times: dict[str, np.ndarray]) -> str:
    """Returns one case's table."""
    lines = [
        f"## {case.name}\n",
        f"{len(times['bare'])} rounds of {STEPS} steps; milliseconds per step.\n",
        "| arm | whole step | its end | added to bare | added, in medians of tlkit |",
        "|---|---|---|---|---|",
    ]
    added = {name: values[:, 0] - times["bare"][:, 0] for name, values in times.items()}
    for name, values in times.items():
        cells = [name, _spread(values[:, 1], 1), _spread(values[:, 0], 2), "", ""]
        if name != "bare":
            cells[3:] = [_spread(added[name], 3), _spread(added[name] / np.median(added["tlkit"]), 2)]
        lines.append(f"| {' | '.join(cells)} |")
    share = float(np.median(added["tlkit"] / times["bare"][:, 1]))
    return "\n".join([*lines, "", f"`WeightUpdateRatio(every={EVERY})` adds {share:.2%} to a bare step.\n"])


def _header(seconds: float) -> str:
    """Returns what was measured where."""
    load, versions = os.getloadavg()[0], [f"{name} {version(name)}" for name in ("tlkit", "torch", "lightning")]
    return f"""# Time to measure update ratios

Written by `make bench`; what is compared and how stands in `benchmarks/update_ratio.py`. Medians over the rounds, in
parentheses the quartiles. Ratios of all arms are equal to 1e-4, final weights to the last bit.

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
