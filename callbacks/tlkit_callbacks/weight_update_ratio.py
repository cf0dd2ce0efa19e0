"""Measure how much an update changes each layer."""

import logging
import math
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import layers_of, network_of
from tlkit_callbacks.charts import add_chart
from tlkit_callbacks.updates import completed_updates, count_updates

log = logging.getLogger("tlkit")

HEALTHY = 1e-3
TOO_HIGH, TOO_LOW = 1e-2, 1e-5
ENOUGH = 3
"""Measurements before a layer is judged: the least number whose median leaves a noisy first one out."""
PREFIX = "update_ratio/"
ADVICE = {
    "too high": f"above {TOO_HIGH:g} learning may be unstable; lower their rate, its peak by 10 to 20 % at a time",
    "too low": f"below {TOO_LOW:g} learning may be too slow; raise their rate, or freeze them",
}


class WeightUpdateRatio(Callback):
    """Measures how large updates are relative to the weights, per layer; about 1e-3 is healthy.

    The ratio is ``‖ΔW‖ / ‖W‖`` (Euclidean norms, no unit): W are all parameters of a layer before the update, as one
    vector, and ΔW is what the optimizer's step has changed in them, with momentum, decay and clipping in it. A step
    that a gradient scaler skips is not measured, nor is a layer that is all zero before its update. A frozen layer
    reads exactly 0.

    A layer is judged by the median over all measurements of the run in which it trained, at the end of each epoch and
    from three measurements on, so that neither the first steps nor the ends of a schedule count for much. A warning
    comes once per layer: above 1e-2 its updates are too high, below 1e-5 too low.

    With several optimizers a layer belongs to the first that holds one of its parameters.

    Source: the seed document's rule "want this to be somewhere around 0.001" (Stanford CS231n 2022, lecture 10).

    Args:
        every: updates of the (first) optimizer from one measurement to the next; the first update is measured.

    Raises:
        UserError: `every` is less than 1; at the start of a run: a network without layers.
    """

    def __init__(self, every: int = 50) -> None:
        if every < 1:
            raise UserError(f"WeightUpdateRatio: expected `every` to be at least 1 update, got {every}")
        self.every = every

    _ratios: dict[str, list[float]]
    """Layer -> what was measured while it trained."""
    _last: dict[str, float]
    """Layer -> its last ratio, whether it trained or not."""
    _warned: dict[str, list[str]]
    """Fault -> layers that were warned about."""
    _layers: dict[Optimizer, dict[str, list[nn.Parameter]]]
    """Optimizer -> its layers and their parameters."""
    _before: dict[Optimizer, list[Tensor]]
    """Optimizer -> weights of its layers before the step that it is about to make; empty most of the time."""
    _hooks: Sequence[RemovableHandle] = ()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is restored
            self._ratios, self._last, self._warned = {}, {}, {}

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a network without layers."""
        layers_of(network_of(pl_module))
