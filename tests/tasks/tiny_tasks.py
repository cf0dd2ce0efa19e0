"""Tiny data and networks for the tests of tasks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tlkit.data.batch import Batch

# What Lightning says about data loaders, absent or in the main process, and to torch; none of it is about the task.
QUIET = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
]


class Batches(Dataset[Batch]):
    """Whole batches by index, so that a loader needs no collation."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch_size: int) -> None:
        rows = torch.arange(len(inputs))
        self.batches = [
            Batch(*part) for part in zip(*(t.split(batch_size) for t in (inputs, targets, rows)), strict=True)
        ]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        return self.batches[index]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class TinyData(LightningDataModule):
    """Fixed tensors: ``train``, ``val`` and ``test`` are (inputs, targets); ``test`` may be a dict by domain."""

    def __init__(self, train: Any = None, val: Any = None, test: Any = None, batch_size: int = 8) -> None:
        super().__init__()
        self.parts = {"train": train, "val": val, "test": test}
        self.batch_size = batch_size
        self.asked = 0
        self.arguments: dict[str, int] = {"num_classes": 3, "in_channels": 1}

    def network_arguments(self) -> dict[str, int]:
        return self.arguments

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        self.asked += 1
        inputs = self.parts["train"][0]
        return tuple(inputs.mean((0, 2, 3)).tolist()), tuple(inputs.std((0, 2, 3)).tolist())

    def loader(self, part: Any) -> Any:
        if part is None:
            return []
        if isinstance(part, dict):
            return {name: self.loader(value) for name, value in part.items()}
        return DataLoader(Batches(*part, self.batch_size), batch_size=None)

    def train_dataloader(self) -> Any:
        return self.loader(self.parts["train"])

    def val_dataloader(self) -> Any:
        return self.loader(self.parts["val"])

    def test_dataloader(self) -> Any:
        return self.loader(self.parts["test"])

    def predict_dataloader(self) -> Any:
        return self.loader(self.parts["test"])


class ImageData(TinyData):
    """Images as targets."""

    data_range = 2.0
    target = "phase"


class MaskData(TinyData):
    """Masks as targets."""

    target = "mask"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.arguments = {"in_channels": 1, "out_channels": 2}


def classifier(classes: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
    )


def image_network(channels: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, channels, 3, padding=1))


def labelled(n: int = 16, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.rand(n, 1, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1), labels


def image_pairs(n: int = 8, size: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(n, 1, size, size, generator=generator)
    return clean + 0.3 * torch.randn(clean.shape, generator=generator), clean


def trainer(**kwargs: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 2,
    }
    return Trainer(**{**defaults, **kwargs})
