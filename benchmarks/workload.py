"""What is trained: a network, its settings, and images as tlkit stores them and as tensors in memory."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tlkit.data.batch import Batch
from tlkit.data.packed import Store, build
from tlkit.data.random import key
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.identity import canonical_hash
from tlkit.models.alexnet import AlexNet

CLASSES = 10
MEAN, STD = 0.5, 0.25  # of the noise, roughly
SGD_ARGUMENTS = {"lr": 0.01, "momentum": 0.9}


@dataclass(frozen=True)
class Workload:
    """A network and its data.

    Attributes:
        name: what it is called in the table.
        network: class path of the network.
        arguments: of its constructor. No dropout: each arm would draw other numbers.
        channels: of the images.
        image_size: height and width in pixels.
        batch_size: samples per step.
        steps: steps per epoch.
        rounds: epochs that count; one more comes first, to warm up.
    """

    name: str
    network: str
    arguments: dict[str, Any]
    channels: int
    image_size: int
    batch_size: int
    steps: int
    rounds: int

    @property
    def epochs(self) -> int:
        """Number of epochs."""
        return self.rounds + 1

    @property
    def samples(self) -> int:
        """Number of training images; no batch is partial."""
        return self.steps * self.batch_size

    def write(self, folder: Path) -> None:
        """Leaves itself for the arms' processes."""
        (folder / "workload.json").write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(folder: Path) -> "Workload":
        """Returns what `write` left."""
        return Workload(**json.loads((folder / "workload.json").read_text()))


class LeNet(nn.Sequential):
    """LeNet-5 (LeCun et al. 1998) for images of 28 x 28 pixels, with ReLU and max pooling."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        """Builds the network with fresh weights.

        Args:
            num_classes: number of outputs.
            in_channels: channels of the images.
        """
        super().__init__(
            *(nn.Conv2d(in_channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, num_classes)),
        )


def plain_network(workload: Workload) -> nn.Module:
    """Returns the workload's network as a plain sequence of modules, its parameters in the same order."""
    if workload.network == "AlexNet":
        alexnet = AlexNet(num_classes=CLASSES, in_channels=workload.channels, **workload.arguments)
        return nn.Sequential(alexnet.features, alexnet.avgpool, nn.Flatten(), alexnet.classifier)
    return LeNet(CLASSES, workload.channels)


def epoch_order(workload: Workload, epoch: int) -> torch.Tensor:
    """Returns the ``(N,)`` samples in the order in which tlkit takes them at seed 0; equal final weights prove it."""
    generator = torch.Generator().manual_seed(key("order", 0, epoch) >> 1)
    return torch.randperm(workload.samples, generator=generator)


def stored(samples: int, channels: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images ``(N, C, H, W)`` uint8 and classes ``(N,)`` int64: noise, brighter with the class."""
    generator = np.random.default_rng(0)
    target = np.arange(samples) % CLASSES
    image = generator.integers(0, 160, (samples, channels, image_size, image_size), dtype=np.uint8)
    image += (target * 10).astype(np.uint8)[:, None, None, None]
    return image, target


def tensors(workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the same images normalised, ``(N, C, H, W)`` float32, and their classes ``(N,)`` int64."""
    image, target = stored(workload.samples, workload.channels, workload.image_size)
    return (torch.from_numpy(image).float().div_(255) - MEAN) / STD, torch.from_numpy(target)


class NoiseImages(TwoStageData):
    """The workload's images in tlkit's packed store; nothing is validated, the test is one batch."""

    def __init__(self, samples: int, channels: int, image_size: int, batch_size: int, cache_dir: str) -> None:
        """Stores the arguments.

        Args:
            samples: number of training images.
            channels: of the images.
            image_size: height and width in pixels.
            batch_size: samples per step.
            cache_dir: where the store is built.
        """
        super().__init__(batch_size=batch_size, cache_dir=cache_dir)
        self.samples = samples
        self.channels = channels
        self.image_size = image_size

    def open(self) -> Store:
        """Returns the packed images."""
        shape = (self.samples, self.channels, self.image_size, self.image_size)
        spec = {"input": (np.uint8, shape), "target": (np.int64, shape[:1])}
        return build(self.cache_dir, self.fingerprint(), spec, self._fill, name="noise")

    def _fill(self, arrays: dict[str, np.memmap]) -> None:
        arrays["input"][:], arrays["target"][:] = stored(self.samples, self.channels, self.image_size)

    def rows(self, part: Part) -> dict[str, np.ndarray]:
        """Returns all rows for training, none for validation, one batch for the test."""
        return {"": np.arange({"train": self.samples, "val": 0, "test": self.batch_size}[part])}

    def convert(self, batch: Batch) -> Batch:
        """Returns images in [0, 1]."""
        return batch._replace(input=batch.input.float().div_(255))

    def network_arguments(self) -> dict[str, int]:
        """Returns classes and channels."""
        return {"num_classes": CLASSES, "in_channels": self.channels}

    def describe(self) -> dict[str, Any]:
        """Returns the number of images."""
        return {"samples": self.samples}

    def fingerprint(self) -> str:
        """Returns a digest of the sizes; the noise has one seed."""
        return canonical_hash(["noise", self.samples, self.channels, self.image_size])
