"""A module that notes the rate and the momentum of every update it makes, and data of any number of batches."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from foreign_module import ForeignModule, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from toy import ToyData, ToyNet

from tlkit.optim import build_optimizer
from tlkit.tasks import Classification

Batch = tuple[Tensor, ...]


class Recorded(ForeignModule):
    """One list of rates and of momenta per update, with a number for each group.

    Args:
        scales: layer -> its rate relative to ``lr``; None: one unnamed group.
        overflow: numbers of the batches whose loss is infinite.
    """

    def __init__(
        self,
        optimizer: str = "SGD",
        scales: dict[str, float] | None = None,
        overflow: tuple[int, ...] = (),
        **arguments: Any,
    ) -> None:
        super().__init__(optimizer, **({"momentum": 0.9} if optimizer == "SGD" else {}) | arguments)
        self.scales, self.overflow = scales, overflow
        self.by_update: list[list[float]] = []
        self.momenta: list[list[float]] = []
        self.batches = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        factor = torch.inf if self.batches in self.overflow else 1.0
        self.batches += 1
        return super().training_step(batch, batch_idx) * factor

    def configure_optimizers(self) -> Optimizer:
        if self.scales is None:
            optimizer: Optimizer = super().configure_optimizers()
        else:
            cls = getattr(torch.optim, self.optimizer)
            optimizer = build_optimizer(self, lambda groups: cls(groups, **self.arguments), self.scales)
        optimizer.register_step_pre_hook(self.note)
        return optimizer

    def note(self, optimizer: Optimizer, *_: Any) -> None:
        if getattr(optimizer, "found_inf", 0):  # a fused optimizer skips the update itself
            return
        groups = optimizer.param_groups
        self.by_update.append([group["lr"] for group in groups])
        self.momenta.append([group["betas"][0] if "betas" in group else group.get("momentum", 0) for group in groups])

    @property
    def of_first(self) -> list[float]:
        """The rate of the first group in each update."""
        return [rates[0] for rates in self.by_update]


def data(batches: int = 3, last: int = 2, drop_last: bool = False) -> DataLoader[Batch]:
    """That many batches of two images, the last one with ``last`` of them."""
    count = 2 * (batches - 1) + last
    images = torch.randn(count, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    return DataLoader(TensorDataset(images, torch.arange(count) % 2), batch_size=2, drop_last=drop_last)


def fit(
    module: LightningModule, batches: DataLoader[Batch], tmp_path: Any, *callbacks: Callback, **arguments: Any
) -> Trainer:
    """Fits with Lightning's own trainer, from a ``checkpoint`` if one is given."""
    checkpoint = arguments.pop("checkpoint", None)
    run = trainer(tmp_path, *callbacks, **arguments)
    run.fit(module, batches, data(1), ckpt_path=checkpoint, weights_only=True)
    return run


class Endless(IterableDataset[Batch]):
    """Batches without an end, of an unknown number."""

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield from data()


def endless() -> DataLoader[Batch]:
    return DataLoader(Endless(), batch_size=None)


def scaler() -> MixedPrecision:
    """Mixed precision whose scaler skips updates with infinite gradients, on the CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0))


class Reseeded(Classification):
    """A task whose dropout does not depend on where a run was cut off."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(self.trainer.fit_loop.epoch_loop.total_batch_idx)


class Keeps(Checkpoint):
    """Writes a checkpoint after each epoch, when tlkit's recorder does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.directory / f"{trainer.current_epoch}.ckpt")


def whole_and_resumed(
    callbacks: Callable[[], list[Callback]], stop: int, tmp_path: Path, epochs: int = 4
) -> tuple[Classification, Classification]:
    """Trains a task, and a second time from the checkpoint after ``stop`` epochs."""

    def run(checkpoint: Path | None = None) -> Classification:
        torch.manual_seed(0)
        task = Reseeded(ToyNet(num_classes=4, in_channels=1), optimizer=partial(torch.optim.AdamW, lr=0.01))
        fit = trainer(tmp_path, *callbacks(), Keeps(tmp_path), epochs=epochs, enable_checkpointing=True)
        fit.fit(task, ToyData(cache_dir=str(tmp_path)), ckpt_path=checkpoint, weights_only=True)
        return task

    return run(), run(tmp_path / f"{stop - 1}.ckpt")
