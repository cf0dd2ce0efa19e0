"""The learning rates of the phases of gradual unfreezing."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import layers_of
from tlkit.protocol import LATER_RATE
from tlkit_callbacks.phase import Phase

log = logging.getLogger("tlkit")

Rates = tuple[list[dict[str, float]], list[dict[int, float]]]
"""In each phase: layer -> multiplier of its rate, and `group_key` -> that of the group's."""


def rates_of_phases(
    trainer: Trainer,
    network: nn.Module,
    phases: Sequence[Phase],
    layers: Sequence[Sequence[str]],
    trained: Callable[[int, Sequence[Sequence[str]]], Sequence[str]],
) -> Rates:
    """Returns the rates of all phases; where one group holds layers of several, the default is that there is but one.

    Args:
        trainer: in a fit.
        network: whose layers are thawed.
        phases: all of them.
        layers: what each thaws.
        trained: from the index of a phase and ``layers`` to the layers that train in it.

    Raises:
        UserError: layers that train in one group are given different rates.
    """

    def rates(later: float) -> Rates:
        names = list(layers_of(network))
        by_layer = [rates_in(index, phases, layers, names, later) for index in range(len(phases))]
        by_group = [group_rates(trainer, network, trained(n, layers), found) for n, found in enumerate(by_layer)]
        return by_layer, by_group

    try:
        return rates(LATER_RATE)
    except UserError:
        if all(phase.rate is not None for phase in phases[1:]):
            raise
        found = rates(1.0)
        log.warning(
            "what is thawed later trains at its full rate, not at %g of it: that takes one parameter group per layer; "
            "build the optimizer with tlkit.optim.build_optimizer(network, optimizer) in configure_optimizers, or give "
            "rate: 1.0",
            LATER_RATE,
        )
        return found


def rates_in(
    index: int, phases: Sequence[Phase], layers: Sequence[Sequence[str]], names: Sequence[str], later: float
) -> dict[str, float]:
    """Returns layer -> multiplier of its rate in a phase; of a layer that is still frozen, that which it will have.

    Args:
        index: of the phase.
        phases: all of them.
        layers: what each thaws; a layer in several has the rate of the last that has begun.
        names: of all layers, in the network's order.
        later: multiplier where a phase after the first gives no rate.
    """
    rates: dict[str, float] = {}
    for number, (phase, thawed) in enumerate(zip(phases, layers, strict=True)):
        own = phase.rate if phase.rate is not None else 1.0 if number == 0 else later
        rates_of = {name: own * phase.depth_factor ** (len(names) - 1 - names.index(name)) for name in thawed}
        if number <= index:
            rates = {name: rate * phase.rate_before for name, rate in rates.items()} | rates_of
        else:
            rates = rates_of | rates
    return rates


def group_rates(
    trainer: Trainer, network: nn.Module, trained: Sequence[str], rates: Mapping[str, float]
) -> dict[int, float]:
    """Returns `group_key` -> multiplier of the group's rate in a phase, for each group of the trainer's optimizers.

    Args:
        trainer: in a fit.
        network: whose layers are thawed.
        trained: the layers that train in the phase.
        rates: layer -> multiplier of its rate in the phase.

    Raises:
        UserError: layers that train belong to one group, but are to have different rates.
    """
    layer_of = {
        id(network.get_parameter(key)): layer.name for layer in layers_of(network).values() for key in layer.parameters
    }
    found: dict[int, float] = {}
    for group in [group for optimizer in trainer.optimizers for group in optimizer.param_groups]:
        members = {layer_of[id(p)]: None for p in group["params"] if id(p) in layer_of}
        wanted = {rates[name]: name for name in members if name in trained}
        if wanted and not math.isclose(min(wanted), max(wanted)):
            low, high = min(wanted), max(wanted)
            raise UserError(
                f"expected one parameter group per layer, as {wanted[high]} is to train at {high:g} of its rate and "
                f"{wanted[low]} at {low:g}, got one that holds both; build the optimizer with "
                "tlkit.optim.build_optimizer(network, optimizer) in configure_optimizers, or give them the same rate"
            )
        upcoming = [rates[name] for name in members if name in rates]
        found[group_key(group)] = next(iter([*wanted, *upcoming]), 1.0)
    return found


def group_key(group: Mapping[str, Any]) -> int:
    """Returns what tells a parameter group from others, even after a checkpoint has replaced it."""
    return id(group["params"][0]) if group["params"] else 0


def transition(rates: Mapping[str, float], before: Sequence[str], now: Sequence[str]) -> str:
    """Returns in words what a phase changes.

    Args:
        rates: layer -> multiplier of its rate in the phase.
        before: the layers that trained up to it.
        now: those that train in it.
    """
    thawed, going_on = [name for name in now if name not in before], [name for name in now if name in before]
    frozen = [name for name in before if name not in now]
    parts = {"thaws": _at(rates, thawed), "goes on with": _at(rates, going_on), "freezes": ", ".join(frozen)}
    return "it " + ", ".join(f"{verb} {names}" for verb, names in parts.items() if names)


def _at(rates: Mapping[str, float], names: Sequence[str]) -> str:
    """Returns layers with the multipliers of their rates: ``fc6, fc7 (rate × 0.1)``."""
    by_rate: dict[str, list[str]] = {}
    for name in names:
        by_rate.setdefault(f"{rates[name]:.3g}", []).append(name)
    return ", ".join(f"{', '.join(group)} (rate × {rate})" for rate, group in by_rate.items())
