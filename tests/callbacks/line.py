"""A module whose weight falls by 1 in each update, so that every average of it is known."""

from pathlib import Path
from typing import Any

import torch
from foreign_module import trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCHES = 4


class Line(LightningModule):
    """One weight; a buffer and a counter that rise by 1 in each training step; validation logs all three.

    Attributes:
        history: the weight at the start and after each update.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.register_buffer("seen", torch.zeros((), dtype=dtype))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.history = [0.0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += 1
        self.count += 1
        return self.w.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_dict({"val/w": self.w.sum(), "val/seen": self.seen, "val/count": self.count.double()})

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
        optimizer.register_step_post_hook(lambda *_: self.history.append(self.w.item()))
        return optimizer


class Metrics(Callback):
    """Keeps the metrics after each epoch, as what monitors them finds them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, running: Trainer, pl_module: LightningModule) -> None:
        self.rows.append({key: value.item() for key, value in running.callback_metrics.items()})


def data(batches: int = BATCHES) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(batches)))


def fit(module: LightningModule, tmp_path: Path, *callbacks: Any, **arguments: Any) -> list[dict[str, float]]:
    """Fits with validation; returns the metrics after each epoch."""
    metrics = Metrics()
    trainer(tmp_path, *callbacks, metrics, **arguments).fit(module, data(), data())
    return metrics.rows


def ema(values: list[float], decay: float) -> float:
    """Equation 10.8, term by term."""
    average = values[0]
    for value in values[1:]:
        average = decay * average + (1 - decay) * value
    return average


def falling(updates: int) -> list[float]:
    """The weight at the start and after each update."""
    return [-float(n) for n in range(updates + 1)]


def read(path: Path) -> dict[str, Any]:
    """A checkpoint."""
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content
