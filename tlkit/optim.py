"""Named parameter groups: one per layer and kind of decay, built once."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from tlkit.errors import UserError
from tlkit.layers import layers_of, select

NO_DECAY = "no_decay"


def parameter_groups(
    network: nn.Module, lr_scale: Mapping[str, float] | None = None, decay_norm_and_bias: bool = True
) -> list[dict[str, Any]]:
    """Returns one group per distinct (layer, decay or not), in the order of the layers.

    Args:
        network: any module.
        lr_scale: layer, group or glob -> rate relative to the optimizer's ``lr``; 1 where not named. Of several that
            match a layer, the last one counts.
        decay_norm_and_bias: whether weight decay also pulls parameters with fewer than two dimensions.

    Returns:
        Groups with ``params``, ``name`` (``conv1``, ``conv1/no_decay``), ``layer``, ``lr_scale``, and
        ``weight_decay`` 0 where it is excluded.
    """
    scales: dict[str, float] = {}
    for spec, scale in (lr_scale or {}).items():
        if scale < 0:
            raise UserError(f"expected lr_scale of '{spec}' to be at least 0, got {scale}; 0 keeps a layer at rate 0")
        scales |= dict.fromkeys(select(network, spec), scale)
    groups: list[dict[str, Any]] = []
    for name, layer in layers_of(network).items():
        parameters = [network.get_parameter(key) for key in layer.parameters]
        decayed = [p for p in parameters if decay_norm_and_bias or p.ndim >= 2]
        others = [p for p in parameters if not (decay_norm_and_bias or p.ndim >= 2)]
        shared = {"layer": name, "lr_scale": scales.get(name, 1.0)}
        if decayed:
            groups.append({"params": decayed, "name": name, **shared})
        if others:
            groups.append({"params": others, "name": f"{name}/{NO_DECAY}", "weight_decay": 0.0, **shared})
    return groups


def build_optimizer(
    network: nn.Module,
    optimizer: Callable[..., Optimizer],
    lr_scale: Mapping[str, float] | None = None,
    decay_norm_and_bias: bool = True,
) -> Optimizer:
    """Builds an optimizer over a network's named groups; frozen layers are included, so that thawing needs no new one.

    Each group's ``lr`` is the optimizer's own times ``lr_scale``; ``initial_lr`` keeps it for the schedules.

    Args:
        network: any module.
        optimizer: takes parameter groups, returns an optimizer.
        lr_scale: as in `parameter_groups`.
        decay_norm_and_bias: as in `parameter_groups`.
    """
    built = optimizer(parameter_groups(network, lr_scale, decay_norm_and_bias))
    for group in built.param_groups:
        group["lr"] = group["initial_lr"] = built.defaults["lr"] * group["lr_scale"]
    return built


def reference_lr(optimizer: Optimizer) -> float:
    """Returns the rate that the rates of an optimizer's groups are relative to.

    It is the optimizer's own ``lr``; where all groups bring rates of their own, the largest of them.
    """
    groups, default = optimizer.param_groups, float(optimizer.defaults.get("lr", 0.0))
    initial = [float(group.get("initial_lr", group["lr"])) for group in groups]
    relative = any("lr_scale" in group for group in groups)
    return default if relative or default in initial else max(initial, default=0.0)


def clear_state(optimizer: Optimizer, parameters: list[nn.Parameter]) -> None:
    """Forgets momentum and other state of some parameters, so that they cannot move by it."""
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def group_layers(optimizer: Optimizer) -> list[str]:
    """Returns the layer of each parameter group.

    Raises:
        UserError: the groups carry no names.
    """
    if any("layer" not in group for group in optimizer.param_groups):
        raise UserError(
            "expected one named parameter group per layer, got unnamed groups; build the optimizer with "
            "tlkit.optim.build_optimizer(network, optimizer) in configure_optimizers"
        )
    return [group["layer"] for group in optimizer.param_groups]
