"""A LightningModule that knows nothing of tlkit, and its data."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LAYERS = ("conv1", "conv2", "fc")


class ForeignModule(LightningModule):
    """Its own layers, one unnamed parameter group, its own optimizer: conv1 with norm1, conv2 with norm2, fc."""

    def __init__(self, optimizer: str = "SGD", scheduler: bool = False, **arguments: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)  # the norm would take its gradient away
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(3, 2)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.arguments = {"lr": 0.1} | arguments
        self.rates: list[list[float]] = []

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(x)))
        out: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return out

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.rates.append([group["lr"] for group in self.trainer.optimizers[0].param_groups])
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self(batch[0])

    def configure_optimizers(self) -> Any:
        optimizer = getattr(torch.optim, self.optimizer)(self.parameters(), **self.arguments)
        return ([optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]) if self.scheduler else optimizer


class SwitchesEverythingOn(ForeignModule):
    """Its own hook undoes evaluation mode after each validation, as `self.train()` does in many modules."""

    def on_validation_model_train(self) -> None:
        self.train()

    def on_train_epoch_start(self) -> None:
        self.train()


def loader() -> DataLoader[tuple[Tensor, ...]]:
    """Twelve images in three batches; their mean is far from 0, so that running statistics must drift."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 1, 6, 6, generator=generator) + 3
    return DataLoader(TensorDataset(images, torch.arange(12) % 2), batch_size=4)


def trainer(tmp_path: Any, *callbacks: Any, epochs: int = 2, **arguments: Any) -> Trainer:
    """Lightning's own trainer."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(default_root_dir=str(tmp_path), max_epochs=epochs, callbacks=list(callbacks), **defaults | arguments)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {key: value.clone() for key, value in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The names of what differs from before by at least one bit."""
    return {key for key, value in module.state_dict().items() if not torch.equal(value, before[key])}
