"""A foreign classification, its data, and equation 10.7 with NumPy."""

from typing import Any

import numpy as np
import pytest
import torch
from foreign_module import ForeignModule, snapshot
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Watch(Callback):
    """Keeps the weights after each update."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, Tensor]] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: LightningModule, *_: Any) -> None:
        self.after.setdefault(trainer.global_step, snapshot(pl_module))


class Foreign(ForeignModule):
    """Has four classes, a test, and data that are augmented in training alone."""

    def __init__(self, classes: int = 4, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.fc = nn.Linear(3, classes)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self(batch[0])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 3, *batch[1:]] if self.trainer.training and len(batch) > 1 else batch


def data(seed: int = 1, n: int = 12) -> DataLoader[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 1, 6, 6, generator=generator) + 3
    return DataLoader(TensorDataset(images, torch.randint(4, (n,), generator=generator)), batch_size=4)


def by_hand(states: list[dict[str, Tensor]], batches: Any, module: LightningModule | None = None) -> dict[str, Any]:
    """Equation 10.7 in float64 with NumPy."""
    module = module or Foreign()
    images, labels = (torch.cat(parts) for parts in list(zip(*batches, strict=True))[:2])
    rows, p = np.arange(len(labels)), []
    for state in states:
        module.load_state_dict(state)
        with torch.no_grad():
            logits = module.eval()(images).double().numpy()
        e = np.exp(logits - logits.max(1, keepdims=True))
        p.append(e / e.sum(1, keepdims=True))
    every = [*p, np.mean(p, 0)]
    accuracy = [float((q.argmax(1) == labels.numpy()).mean()) for q in every]
    entropy = [float(-np.log(q[rows, labels.numpy()]).mean()) for q in every]
    return {
        "accuracy": accuracy[-1],
        "cross_entropy": pytest.approx(entropy[-1], rel=1e-5),
        "member_accuracy": accuracy[:-1],
        "member_cross_entropy": pytest.approx(entropy[:-1], rel=1e-5),
    }


class Reseed(Callback):
    """Dropout as a function of the step, as tlkit's own runs have it."""

    def on_train_batch_start(self, running: Any, *_: Any) -> None:
        torch.manual_seed(running.global_step)
