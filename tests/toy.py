"""A tiny two-stage classification problem: which quarter of an 8×8 image is bright."""

from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from tlkit.data.batch import Batch
from tlkit.data.packed import Store, build
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.identity import canonical_hash

CLASSES, PER_CLASS = 4, 24


class ToyData(TwoStageData):
    """Images ``(1, 8, 8)`` of four classes; the two stages differ in brightness and noise."""

    def __init__(
        self,
        stage: Literal["pretrain", "transfer"] = "transfer",
        batch_size: int = 8,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/tlkit",
        validation: bool = True,
        bad_row: int | None = None,
    ) -> None:
        super().__init__(stage, batch_size, None, num_workers, cache_dir)
        self.validation = validation
        self.bad_row = bad_row

    def open(self) -> Store:
        n = CLASSES * PER_CLASS
        spec = {"input": (np.float32, (n, 1, 8, 8)), "target": (np.int64, (n,))}
        return build(self.cache_dir, self.fingerprint(), spec, self._fill, name="toy")

    def _fill(self, arrays: dict[str, np.memmap]) -> None:
        generator = np.random.default_rng(1 if self.stage == "pretrain" else 2)
        n = CLASSES * PER_CLASS
        target = np.arange(n) % CLASSES
        image = generator.normal(0, 2.0, (n, 1, 8, 8)).astype(np.float32)
        for row, label in enumerate(target):
            y, x = divmod(int(label), 2)
            image[row, 0, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4] += 1
        if self.bad_row is not None:
            image[self.bad_row] = np.nan
        arrays["input"][:], arrays["target"][:] = image, target

    def rows(self, part: Part) -> dict[str, np.ndarray]:
        bounds = {"train": (0, 48), "val": (48, 72), "test": (72, 96)}[part]
        rows = np.arange(*bounds) if part != "val" or self.validation else np.arange(0)
        return {"": rows}

    def convert(self, batch: Batch) -> Batch:
        return batch

    def network_arguments(self) -> dict[str, int]:
        return {"num_classes": CLASSES, "in_channels": 1}

    def describe(self) -> dict[str, Any]:
        return {part: len(self.rows(part)[""]) for part in ("train", "val", "test")}  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        return canonical_hash(["toy", self.stage, self.bad_row])


class ToyNet(nn.Module):
    """Layers conv1, conv2 and fc, with batch norm and dropout."""

    def __init__(self, num_classes: int = 10, in_channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(width * 16, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        out: torch.Tensor = self.fc(self.drop(x.flatten(1)))
        return out
