"""What is trained: the two workloads, and their images as tlkit stores them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tlkit.data.batch import Batch
from tlkit.data.packed import Store, build
from tlkit.data.random import key
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.identity import canonical_hash

CLASSES, CHANNELS = 10, 3
MEAN, STD = 0.5, 0.25  # of the noise, roughly
SGD_ARGUMENTS = {"lr": 0.01, "momentum": 0.9}


@dataclass(frozen=True)
class Workload:
    """A network and its data.

    Attributes:
        name: what it is called in the table.
        width: factor on the channels of AlexNet's convolutions.
        fc_width: outputs of its two hidden linear layers.
        image_size: height and width in pixels.
        batch_size: samples per step.
        steps: steps per epoch.
        rounds: epochs that count; one more comes first, to warm up.
    """

    name: str
    width: float
    fc_width: int
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

    @property
    def network(self) -> dict[str, Any]:
        """Arguments of the network; without dropout, since each tool draws from its generator at other times."""
        return {
            "num_classes": CLASSES,
            "in_channels": CHANNELS,
            "image_size": self.image_size,
            "width": self.width,
            "fc_width": self.fc_width,
            "dropout": 0.0,
        }

    def write(self, folder: Path) -> None:
        """Leaves itself for the arms' processes."""
        (folder / "workload.json").write_text(json.dumps(asdict(self)))

    @staticmethod
    def read(folder: Path) -> "Workload":
        """Returns what `write` left."""
        return Workload(**json.loads((folder / "workload.json").read_text()))


def epoch_order(workload: Workload, epoch: int) -> torch.Tensor:
    """Returns the ``(N,)`` samples in the order in which tlkit takes them at seed 0; equal final weights prove it."""
    generator = torch.Generator().manual_seed(key("order", 0, epoch) >> 1)
    return torch.randperm(workload.samples, generator=generator)


def stored(samples: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns images ``(N, 3, H, W)`` uint8 and classes ``(N,)`` int64: noise, brighter with the class."""
    generator = np.random.default_rng(0)
    target = np.arange(samples) % CLASSES
    image = generator.integers(0, 160, (samples, CHANNELS, image_size, image_size), dtype=np.uint8)
    image += (target * 10).astype(np.uint8)[:, None, None, None]
    return image, target


def tensors(workload: Workload) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the same images normalised, ``(N, 3, H, W)`` float32, and their classes ``(N,)`` int64."""
    image, target = stored(workload.samples, workload.image_size)
    return (torch.from_numpy(image).float().div_(255) - MEAN) / STD, torch.from_numpy(target)


class NoiseImages(TwoStageData):
    """The workload's images in tlkit's packed store; nothing is validated, the test is one batch."""

    def __init__(self, samples: int, image_size: int, batch_size: int, cache_dir: str) -> None:
        """Stores the arguments.

        Args:
            samples: number of training images.
            image_size: height and width in pixels.
            batch_size: samples per step.
            cache_dir: where the store is built.
        """
        super().__init__(batch_size=batch_size, cache_dir=cache_dir)
        self.samples = samples
        self.image_size = image_size

    def open(self) -> Store:
        """Returns the packed images."""
        shape = (self.samples, CHANNELS, self.image_size, self.image_size)
        spec = {"input": (np.uint8, shape), "target": (np.int64, shape[:1])}
        return build(self.cache_dir, self.fingerprint(), spec, self._fill, name="noise")

    def _fill(self, arrays: dict[str, np.memmap]) -> None:
        arrays["input"][:], arrays["target"][:] = stored(self.samples, self.image_size)

    def rows(self, part: Part) -> dict[str, np.ndarray]:
        """Returns all rows for training, none for validation, one batch for the test."""
        return {"": np.arange({"train": self.samples, "val": 0, "test": self.batch_size}[part])}

    def convert(self, batch: Batch) -> Batch:
        """Returns images in [0, 1]."""
        return batch._replace(input=batch.input.float().div_(255))

    def network_arguments(self) -> dict[str, int]:
        """Returns classes and channels."""
        return {"num_classes": CLASSES, "in_channels": CHANNELS}

    def describe(self) -> dict[str, Any]:
        """Returns the number of images."""
        return {"samples": self.samples}

    def fingerprint(self) -> str:
        """Returns a digest of the sizes; the noise has one seed."""
        return canonical_hash(["noise", self.samples, self.image_size])
