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
ENOUGH = 10
"""Measurements before a layer is judged: the first few updates of fresh weights are often above `TOO_HIGH`."""
PREFIX = "update_ratio/"
ADVICE = {
    "too high": f"above {TOO_HIGH:g} learning may be unstable: lower the rate, 10 to 20 % at a time",
    "too low": f"below {TOO_LOW:g} learning may be too slow: raise the rate",
}


class WeightUpdateRatio(Callback):
    """Measures how large the updates of each layer are relative to its weights; about 1e-3 is healthy.

    The ratio is ``‖ΔW‖ / ‖W‖`` (Euclidean norms, no unit): W are all parameters of a layer before the update, as one
    vector; ΔW is what the optimizer's step has changed in them, with its momentum, decay and clipping. A frozen layer
    reads exactly 0. Not measured: a step that a gradient scaler skips, and a layer that is all zero before its update.

    At the end of each epoch, from ten measurements on, a layer is judged by the median of what was measured in the run
    so far while it trained, so that neither first steps nor the end of a schedule decide. Above 1e-2 it is too high,
    below 1e-5 too low; either is warned about once per layer.

    Of several optimizers, a layer is measured at the steps of the first that holds one of its parameters.

    Source: Stanford CS231n, "Neural Networks Part 3", section "Ratio of weights:updates".

    Args:
        every: updates (of the first optimizer) from one measurement to the next; the first update is measured.

    Raises:
        UserError: ``every`` is less than 1; at the start of a run: a network without layers.
    """

    def __init__(self, every: int = 50) -> None:
        if every < 1:
            raise UserError(f"WeightUpdateRatio: expected `every` to be at least 1 update, got {every}")
        self.every = every

    _ratios: dict[str, list[float]] = {}
    """Layer -> what was measured while it trained; like the next two, of the current run."""
    _last: dict[str, float] = {}
    """Layer -> what was measured last, whether it trained or not."""
    _warned: dict[str, list[str]] = {}
    """Flag -> the layers that were warned about."""
    _layers: dict[Optimizer, dict[str, list[nn.Parameter]]]
    """Optimizer -> its layers and their parameters."""
    _before: dict[Optimizer, list[Tensor]]
    """Optimizer -> the weights of its layers before a step that is to be measured; empty between batches."""
    _hooks: Sequence[RemovableHandle] = ()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._ratios, self._last, self._warned = {}, {}, {}

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses a network without layers."""
        layers_of(network_of(pl_module))

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_updates(trainer)
        network = network_of(pl_module)
        held = {o: {p for group in o.param_groups for p in group["params"]} for o in trainer.optimizers}
        self._layers = {optimizer: {} for optimizer in trainer.optimizers}
        for name, layer in layers_of(network).items():
            parameters = [network.get_parameter(key) for key in layer.parameters]
            owner = next((o for o in held if not held[o].isdisjoint(parameters)), trainer.optimizers[0])
            self._layers[owner][name] = parameters
            self._ratios.setdefault(name, [])
        self._before = {}
        self._hooks = [o.register_step_post_hook(partial(self._measure, trainer)) for o in trainer.optimizers]
        add_chart(trainer, "update ratio", [PREFIX])

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        # after the backward pass, so that the copy does not come on top of the activations; of the calls that LBFGS
        # makes in one step the first comes before its update
        if optimizer not in self._before and completed_updates(trainer) % self.every == 0:
            parameters = [p for members in self._layers[optimizer].values() for p in members]
            self._before[optimizer] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def _measure(self, trainer: Trainer, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        before = self._before.pop(optimizer, None)
        found_inf = getattr(optimizer, "found_inf", None)  # a fused optimizer skips a step by itself
        if not before or (found_inf is not None and found_inf.item()):
            return
        layers = self._layers[optimizer]
        weights = torch._foreach_norm(before)
        torch._foreach_sub_(before, [p for members in layers.values() for p in members])
        norms = torch.stack([*weights, *torch._foreach_norm(before)]).tolist()  # the one transfer
        weight, change = iter(norms[: len(before)]), iter(norms[len(before) :])
        rates = {p: float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        values = {}
        for name, members in layers.items():
            ratio = _ratio(math.hypot(*(next(change) for _ in members)), math.hypot(*(next(weight) for _ in members)))
            if math.isfinite(ratio):
                values[PREFIX + name] = self._last[name] = ratio
                if any(p.requires_grad and rates.get(p) for p in members):
                    self._ratios[name].append(ratio)
        for logger in trainer.loggers:
            guide = {f"{PREFIX}{HEALTHY:g}": HEALTHY} if isinstance(logger, TensorBoardLogger) else {}
            logger.log_metrics(values | guide, step=trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._before.clear()  # of a step that was skipped

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for flag, advice in ADVICE.items():
            warned = self._warned.setdefault(flag, [])
            found = [n for n, ratios in self._ratios.items() if _flag(ratios) == flag and n not in warned]
            warned += found
            if found and trainer.is_global_zero:
                medians = ", ".join(f"{name} ({median(self._ratios[name]):.1e})" for name in found)
                log.warning(
                    "WeightUpdateRatio: the updates of these layers are %s: %s; %s (lr; lr_scale for these alone)",
                    *(flag, medians, advice),
                )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._unhook()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._unhook()

    def _unhook(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._before = (), {}

    @override
    def state_dict(self) -> dict[str, Any]:
        ratios = {name: [*values] for name, values in self._ratios.items()}
        return {"ratios": ratios, "last": dict(self._last), "warned": {k: [*v] for k, v in self._warned.items()}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._ratios, self._last, self._warned = state_dict["ratios"], state_dict["last"], state_dict["warned"]

    def summary(self) -> dict[str, dict[str, Any]]:
        """Returns per layer the median, least, greatest and last ratio, and what is wrong: too high, too low, or None.

        Of a layer that never trained they are what was measured last: 0 if it was frozen, None if it was all zero.
        """
        rows = {}
        for name, trained in self._ratios.items():
            ratios = trained or ([self._last[name]] if name in self._last else [])
            rows[name] = {
                "median": median(ratios) if ratios else None,
                "min": min(ratios, default=None),
                "max": max(ratios, default=None),
                "last": self._last.get(name),
                "flag": _flag(trained),
            }
        return rows


def _ratio(change: float, weight: float) -> float:
    if change == 0:
        return 0.0  # also of a frozen layer that is all zero
    return change / weight if weight else math.inf


def _flag(ratios: list[float]) -> str | None:
    """Returns what is wrong with the updates of a layer, if anything."""
    if len(ratios) < ENOUGH:
        return None
    middle = median(ratios)
    return "too high" if middle > TOO_HIGH else "too low" if middle < TOO_LOW else None
