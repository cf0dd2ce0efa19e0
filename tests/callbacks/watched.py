"""A module that copies its weights before and after each step, and what a fit logs as update ratios."""

from pathlib import Path
from typing import Any

import torch
from foreign_module import ForeignModule, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from torch.utils.data import DataLoader

MEMBERS = {
    "conv1": ["conv1.weight", "norm1.weight", "norm1.bias"],
    "conv2": ["conv2.weight", "norm2.weight", "norm2.bias"],
    "fc": ["fc.weight", "fc.bias"],
}
Ratios = dict[str, float]


def true_ratios(before: dict[str, Tensor], after: dict[str, Tensor]) -> Ratios:
    """The ratio of each layer of a ForeignModule, in float64."""
    ratios = {}
    for layer, keys in MEMBERS.items():
        old, new = (torch.cat([state[key].flatten().double() for key in keys]) for state in (before, after))
        ratios[layer] = float((new - old).norm() / old.norm())
    return ratios


class Watched(ForeignModule):
    """Copies all its weights before and after each step of its optimizer."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.true: list[Ratios] = []

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        before = snapshot(self)
        super().optimizer_step(*arguments, **named)
        self.true.append(true_ratios(before, snapshot(self)))


class Notes(Logger):
    """Keeps the update ratios that are logged, by step."""

    name, version = "notes", 0

    def __init__(self) -> None:
        super().__init__()
        self.ratios: dict[int, Ratios] = {}

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        found = {key.removeprefix("update_ratio/"): v for key, v in metrics.items() if key.startswith("update_ratio/")}
        if found:
            assert step is not None
            self.ratios[step] = found


def batches_of(size: int) -> DataLoader[Any]:
    return DataLoader(loader().dataset, batch_size=size)


def fit(module: LightningModule, tmp_path: Path, *callbacks: Any, size: int = 4, **arguments: Any) -> dict[int, Ratios]:
    """Fits and returns what was logged: step -> layer -> ratio."""
    notes = Notes()
    trainer(tmp_path, *callbacks, logger=notes, **arguments).fit(module, batches_of(size), loader())
    return notes.ratios


class Swaps(Callback):
    """Changes all weights before and after each batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.mul_(1.5)

    on_train_batch_end = on_train_batch_start  # type: ignore[assignment]
