"""What the tests of thawing share: a module with a group per layer, and a look at what each batch trains and moves."""

from pathlib import Path
from typing import Any

import torch
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule

from tlkit.optim import build_optimizer

LR, BATCHES = 0.1, 3
LAYERS = ("conv1", "conv2", "fc")


class Named(ForeignModule):
    """One named group per layer; logs what its validation says: ``losses`` in turn."""

    def __init__(self, losses: list[float] | None = None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.losses = losses

    def configure_optimizers(self) -> Any:
        kind = getattr(torch.optim, self.optimizer)
        return build_optimizer(self, lambda groups: kind(groups, **self.arguments))

    def on_validation_epoch_end(self) -> None:
        if self.losses is not None:
            self.log("val/loss", torch.tensor(self.losses[self.current_epoch]))


class Watch(Callback):
    """Notes before each batch which layers train, and after it which have moved."""

    def __init__(self) -> None:
        self.trains: list[str] = []
        self.moved: list[str] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = snapshot(pl_module)
        moved = {key.partition(".")[0] for key in changed(pl_module, self.before)} if hasattr(self, "before") else set()
        names = {"norm1": "conv1", "norm2": "conv2"}
        self.moved.append(" ".join(sorted({names.get(name, name) for name in moved})))
        self.before = now
        weights = {"conv1": pl_module.conv1, "conv2": pl_module.conv2, "fc": pl_module.fc}
        self.trains.append(" ".join(name for name, part in weights.items() if part.weight.requires_grad))


def run(module: LightningModule, tmp_path: Path, *callbacks: Any, **arguments: Any) -> Watch:
    watch = Watch()
    trainer(tmp_path, *callbacks, watch, **arguments).fit(module, loader(), loader())
    return watch


def rates(module: ForeignModule, tmp_path: Path, *callbacks: Any, epochs: int) -> list[dict[str, float]]:
    """The rate of each layer in the first batch of each epoch."""
    trainer(tmp_path, *callbacks, epochs=epochs).fit(module, loader(), loader())
    return [dict(zip(LAYERS, found, strict=True)) for found in module.rates[::BATCHES]]
