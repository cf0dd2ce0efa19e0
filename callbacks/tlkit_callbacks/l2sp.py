"""Pull transferred layers towards their pretrained weights."""

import logging
import math
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import LayerSpec, layers_of, network_of, select
from tlkit.tasks.base import Task

log = logging.getLogger("tlkit")


class L2SP(Callback):
    """Pulls the transferred layers towards their pretrained weights, and all other parameters towards 0.

    It takes the place of weight decay, as if the loss had two more terms: ``alpha / 2 · ‖w − w₀‖²`` over all parameters
    of the transferred layers, those of normalisation and biases too, and ``beta / 2 · ‖w‖²`` over all others. Their
    gradient is added in full once per update: to gradients that are accumulated, averaged over processes and unscaled,
    and not yet clipped. Adam and its kin scale it as they scale every gradient, AdamW too. What is frozen is not
    pulled, and the loss that is logged is without it.

    ``w₀`` are the weights at the start of the run, and part of every checkpoint: a resumed run is pulled to where the
    uninterrupted one is. How far the transferred layers have moved, ``‖w − w₀‖ / ‖w₀‖`` (Euclidean norms over all of
    them, no unit), is logged after each epoch as ``l2sp/distance``.

    Source: Li, Grandvalet, Davoine, "Explicit inductive bias for transfer learning with convolutional networks", ICML
    2018; the defaults are those of their published command for SGD at a rate of 0.01. Theirs leaves normalisation and
    biases alone.

    Args:
        alpha: strength of the pull towards the pretrained weights, at least 0.
        beta: strength of the pull of all others towards 0, at least 0: their weight decay.
        layers: what is pulled to its weights of the start: layers as in `LayerFreezing`; null: those transferred.

    Raises:
        UserError: a strength is negative; at the start of a run: a layer that does not exist, an optimizer with a
            weight decay of its own, no `layers` where the module does not say what was transferred, a checkpoint
            without the pretrained weights of these layers.
    """

    def __init__(self, alpha: float = 0.1, beta: float = 0.01, layers: LayerSpec | None = None) -> None:
        for name, value in {"alpha": alpha, "beta": beta}.items():
            if not 0 <= value < math.inf:
                raise UserError(f"L2SP: expected {name} to be at least 0, got {value}")
        self.alpha = alpha
        self.beta = beta
        self.layers = layers

    _start: dict[str, Tensor] | None = None
    """Parameter of the network -> its pretrained values."""
    _pulled: dict[nn.Parameter, Tensor]
    """The same by the parameter itself; set when training starts."""
    _distance: float | None = None
    """After the last epoch; None: no epoch is over, or nothing was transferred."""

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what can be known to be wrong before anything is trained; see the class."""
        if self.layers is not None or not hasattr(pl_module, "transferred"):  # tlkit says what it transfers later on
            self._layers(pl_module)
        optimizers = trainer.optimizers
        if not optimizers and isinstance(pl_module, Task):
            optimizers = [pl_module.configure_optimizers()]
        decays = {group.get("weight_decay", 0) for optimizer in optimizers for group in optimizer.param_groups} - {0}
        if decays:
            raise UserError(
                f"L2SP: expected an optimizer with weight_decay 0, got {max(decays):g}, which pulls pretrained weights "
                "towards 0 as well; give weight_decay: 0 to the optimizer (AdamW decays by default), and the decay of "
                "layers that were not transferred as L2SP.beta"
            )

    def _layers(self, pl_module: LightningModule) -> list[str]:
        layers: LayerSpec | None = self.layers
        if layers is None:
            layers = getattr(pl_module, "transferred", None)
        if layers is None:
            raise UserError(
                f"L2SP: expected to know which layers were transferred, {type(pl_module).__name__} does not say; name "
                f"them, as in `layers: 2`; valid layers: {', '.join(layers_of(network_of(pl_module)))}"
            )
        return select(network_of(pl_module), layers)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is restored
            self._start = self._distance = None

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)
        names, transferred = self._layers(pl_module), getattr(pl_module, "transferred", None)
        random = [name for name in names if transferred is not None and name not in transferred]
        if not names:
            log.warning("L2SP: no layer was transferred, so all of them are pulled towards 0, by beta %g", self.beta)
        if random:
            log.warning("L2SP: these layers were not transferred, their start is random: %s", ", ".join(random))
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and any(getattr(o, "_step_supports_amp_scaling", False) for o in trainer.optimizers):
            raise UserError(
                "L2SP: expected gradients that are unscaled before the optimizer's step, got a fused optimizer, which "
                "unscales them itself; give it fused: false, or trainer.precision: bf16-mixed"
            )

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = network_of(pl_module)
        members = layers_of(network)
        keys = [key for name in self._layers(pl_module) for key in members[name].parameters]
        parameters = {key: network.get_parameter(key) for key in keys}
        if self._start is None and trainer.ckpt_path is None:
            self._start = {key: parameter.detach().clone() for key, parameter in parameters.items()}
        if self._start is None or set(self._start) != set(parameters):
            raise UserError(
                "L2SP: expected a checkpoint that holds the pretrained weights of "
                f"{', '.join(self._layers(pl_module))}, got {trainer.ckpt_path}, of a run with other layers or without "
                "L2SP; resume with the callback as it was, or begin a new run from the pretrained weights"
            )
        self._start = {key: self._start[key].to(parameter.device) for key, parameter in parameters.items()}
        self._pulled = {parameter: self._start[key] for key, parameter in parameters.items()}

    @override
    @torch.no_grad()
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        trained = [p for g in optimizer.param_groups for p in g["params"] if p.requires_grad and p.grad is not None]
        pulled = [p for p in trained if p in self._pulled]
        others = [p for p in trained if p not in self._pulled]
        if pulled:
            moved = torch._foreach_sub(pulled, [self._pulled[p] for p in pulled])
            torch._foreach_add_([p.grad for p in pulled], moved, alpha=self.alpha)
        if others:
            torch._foreach_add_([p.grad for p in others], others, alpha=self.beta)

    @override
    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._pulled:
            return
        start = list(self._pulled.values())
        moved = torch._foreach_sub(list(self._pulled), start)
        norms = [torch.stack(torch._foreach_norm(tensors)).norm() for tensors in (moved, start)]
        self._distance = (norms[0] / norms[1]).item()
        for logger in trainer.loggers:
            logger.log_metrics({"l2sp/distance": self._distance}, step=trainer.global_step)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "distance": self._distance}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start, self._distance = state_dict["start"], state_dict["distance"]

    def summary(self) -> dict[str, float | None]:
        """Returns how far the transferred layers are from their pretrained weights after the last epoch."""
        return {"distance": self._distance}
