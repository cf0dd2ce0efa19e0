"""The mean loss of an epoch, without waiting for the device at each step."""

from math import isfinite
from typing import NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from tlkit.data.batch import Batch


class Entry(NamedTuple):
    """One step.

    Attributes:
        loss: scalar, on the device.
        step: completed optimizer steps before it.
        sample: ``(B,)`` rows of the store.
        sums: ``(B,)`` each input's sum, finite exactly if the input is; None on CPU, where the batch is still at hand.
    """

    loss: Tensor
    step: int
    sample: Tensor
    sums: Tensor | None


class LossMeter:
    """Mean over samples of the loss, and the first step at which it was not finite.

    Entries wait on the device until `flush`, the only place that waits for the device.

    Attributes:
        total: sum over flushed samples of the loss.
        samples: number of flushed samples.
        latest: loss of the last flushed step.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self.total = 0.0
        self.samples = 0
        self.latest = 0.0
        self._waiting: list[Entry] = []

    def add(self, loss: Tensor, batch: Batch, step: int) -> None:
        """Notes the loss (a scalar, mean over the batch) of one step, after ``step`` completed optimizer steps."""
        # A bad input is gone by the time of a late check; its sum tells, and costs one reduction on the device.
        sums = None if loss.device.type == "cpu" else batch.input.flatten(1).sum(1)
        self._waiting.append(Entry(loss.detach(), step, batch.sample, sums))

    def flush(self) -> Entry | None:
        """Adds up what waits; returns the first step whose loss is not finite, if any."""
        if not self._waiting:
            return None
        values = torch.stack([entry.loss for entry in self._waiting]).tolist()
        for value, entry in zip(values, self._waiting, strict=True):
            self.latest = value
            if not isfinite(value):
                return entry
            self.total += value * len(entry.sample)
            self.samples += len(entry.sample)
        self._waiting.clear()
        return None

    def mean(self, strategy: Strategy) -> float | None:
        """Returns the mean over the flushed samples of all processes; None if there are none."""
        sums = torch.tensor([self.total, self.samples], dtype=torch.float64)
        if dist.is_initialized():
            sums = strategy.reduce(sums.to(strategy.root_device), reduce_op="sum")
        total, samples = sums.tolist()
        return total / samples if samples else None
