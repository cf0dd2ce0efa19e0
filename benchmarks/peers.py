"""The arms beside tlkit: a hand-written loop, Lightning with its defaults, Lightning barebones.

They train on normalised float32 images in memory, converted once beforehand; tlkit converts each batch of its 8-bit
store. Run by ``training_loop.py`` as ``python peers.py ARM FOLDER FD``.
"""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from stopwatch import Stopwatch, Turns
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Sampler, TensorDataset
from workload import SGD_ARGUMENTS, Workload, epoch_order, plain_network, tensors


def hand_written(workload: Workload, network: nn.Module, folder: Path, fd: int) -> None:
    """The loop that one would write: one indexing operation per batch, nothing logged."""
    turns = Turns(fd)
    images, target = tensors(workload)  # (N, 3, H, W) float32, (N,) int64
    optimizer = torch.optim.SGD(network.parameters(), foreach=True, **SGD_ARGUMENTS)
    for epoch in range(workload.epochs):
        order = epoch_order(workload, epoch)
        turns.wait(network if epoch == 0 else None)
        for rows in order.split(workload.batch_size):
            loss = F.cross_entropy(network(images[rows]), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        turns.lap()
    turns.wait(network)


def lightning_defaults(workload: Workload, network: nn.Module, folder: Path, fd: int) -> None:
    """A Trainer with its defaults: TensorBoard, checkpoints, and a progress bar that shows the loss."""
    _fit(workload, LoggedClassifier(network), folder, fd)


def lightning_barebones(workload: Workload, network: nn.Module, folder: Path, fd: int) -> None:
    """The same module and loader with ``barebones=True``: no logging, no progress bar, no checkpoints."""
    _fit(workload, Classifier(network), folder, fd, barebones=True)


ARMS = {arm.__name__: arm for arm in (hand_written, lightning_defaults, lightning_barebones)}


class Classifier(LightningModule):
    """A module as in Lightning's tutorials."""

    def __init__(self, network: nn.Module) -> None:
        """Stores the network, from images to logits."""
        super().__init__()
        self.network = network

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Returns the loss."""
        images, target = batch
        return F.cross_entropy(self.network(images), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns SGD over all parameters."""
        return torch.optim.SGD(self.parameters(), **SGD_ARGUMENTS)


class LoggedClassifier(Classifier):
    """Logs its loss of each step and of each epoch, as tlkit does; barebones does not allow that."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Returns the loss."""
        loss = super().training_step(batch, batch_idx)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        return loss


class Replay(Sampler[int]):
    """Gives tlkit's order of each epoch, sample by sample, as a random sampler does."""

    def __init__(self, workload: Workload) -> None:
        """Draws the orders."""
        self._samples = workload.samples
        self._orders = iter([epoch_order(workload, epoch) for epoch in range(workload.epochs)])

    def __len__(self) -> int:
        """Returns the number of samples per epoch."""
        return self._samples

    def __iter__(self) -> Iterator[int]:
        """Returns the next epoch's order."""
        return iter(next(self._orders).tolist())


def _fit(workload: Workload, module: LightningModule, folder: Path, fd: int, **arguments: Any) -> None:
    data = TensorDataset(*tensors(workload))
    trainer = Trainer(
        max_epochs=workload.epochs,
        accelerator="cpu",
        callbacks=[Stopwatch(fd)],
        default_root_dir=str(folder / "lightning"),
        **arguments,
    )
    trainer.fit(module, DataLoader(data, batch_size=workload.batch_size, sampler=Replay(workload)))


def _network(workload: Workload, folder: Path) -> nn.Module:
    """Returns the network with the parameters that tlkit begins with."""
    network = plain_network(workload)
    initial = pickle.loads((folder / "initial.pkl").read_bytes())
    for parameter, value in zip(network.parameters(), initial, strict=True):
        parameter.data = torch.from_numpy(value)
    return network


if __name__ == "__main__":
    arm, folder, fd = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    workload = Workload.read(folder)
    ARMS[arm](workload, _network(workload, folder), folder, fd)
