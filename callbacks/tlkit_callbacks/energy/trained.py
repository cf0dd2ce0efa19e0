"""What a trainer says about the process it runs in, and about what it trains."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, distributed

from tlkit.recorder import Recorder


def cuda_index(trainer: Trainer) -> int | None:
    """Returns the number of the NVIDIA GPU that this process trains on, as CUDA counts; None: it trains elsewhere."""
    device = trainer.strategy.root_device
    return (device.index or 0) if device.type == "cuda" and torch.version.hip is None else None


def synchronize(trainer: Trainer) -> None:
    """Waits until the accelerator has done what it was given."""
    device = trainer.strategy.root_device
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def stage_of(trainer: Trainer) -> str:
    """Returns ``pretrain`` or ``transfer``; ``fit`` where tlkit runs no stage."""
    stages = (c.stage["stage"] for c in trainer.callbacks if isinstance(c, Recorder))  # type: ignore[attr-defined]
    return next(stages, "fit")


def phase_of(trainer: Trainer) -> int | None:
    """Returns the phase of the first callback that has phases."""
    phases = (getattr(callback, "phase", None) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return next((phase for phase in phases if isinstance(phase, int)), None)


def frozen_fraction(pl_module: LightningModule) -> float:
    """Returns the fraction of the parameters that do not train."""
    sizes = [(p.numel(), p.requires_grad) for p in pl_module.parameters()]
    return sum(size for size, trains in sizes if not trains) / max(1, sum(size for size, _ in sizes))


def samples_in(batch: Any) -> int:
    """Returns the first dimension of the first tensor found in a batch; 0 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 0
    if isinstance(batch, dict):
        batch = batch.values()
    elif not isinstance(batch, (list, tuple)):
        return 0
    return next(filter(None, map(samples_in, batch)), 0)


def gather(trainer: Trainer, mine: Any) -> list[Any]:
    """Returns what each rank passes in, in order; after an error, which the others may not know of, only the own."""
    if trainer.interrupted or not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, mine)
    return everyone
