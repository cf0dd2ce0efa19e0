"""One phase of gradual unfreezing, as YAML gives it, and what a list of them means for a network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lightning.pytorch import Trainer
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import LayerSpec, layers_of, select
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.plateau import Plateau, PlateauWatch
from tlkit_callbacks.schedule import Segment

REST = "rest"
UNITS = ("epoch", "step", "fraction")


@dataclass(frozen=True)
class Phase:
    """A phase of `GradualUnfreezing`: ``{layers: fc7, epoch: 5}``. The first one begins with the run.

    Attributes:
        layers: what it thaws: a name, a group, a glob, the first k layers (negative: the last k), a list of names,
            groups and globs, or ``rest``: all that no phase before it thaws.
        epoch: it begins after so many epochs.
        step: it begins after so many updates; those skipped by a gradient scaler do not count.
        fraction: it begins after this share of the run's updates, between 0 and 1.
        plateau: it begins when a metric has not become better for a while since the phase before began.
        when: whether one of these suffices (``any``) or all must hold.
        rate: multiplies the rate of the layers it thaws; null: 1 in the first phase and 0.1 later.
        rate_before: multiplies, from here on, the rate of the layers that train already.
        depth_factor: multiplies the rate of a layer it thaws once for each layer of the network above it; 1/2.6 = 0.385
            gives each layer the rate of the one above it divided by 2.6 (ULMFiT, with ``rate`` 1).
        restart: whether schedules begin anew here. Their course ends where the next such phase begins if that is
            known from the start (an epoch, step or fraction), else with the run.
        restore_best: whether it begins with the weights of the best checkpoint so far, and a fresh optimizer.
    """

    layers: LayerSpec
    epoch: int | None = None
    step: int | None = None
    fraction: float | None = None
    plateau: Plateau | None = None
    when: Literal["any", "all"] = "any"
    rate: float | None = None
    rate_before: float = 1.0
    depth_factor: float = 1.0
    restart: bool = False
    restore_best: bool = False

    @property
    def moments(self) -> list[Moment]:
        """The epoch, step and fraction that are given."""
        given = {unit: getattr(self, unit) for unit in UNITS}
        return [Moment(**{unit: value}) for unit, value in given.items() if value is not None]

    @property
    def has_trigger(self) -> bool:
        """Whether anything says when it begins."""
        return bool(self.moments) or self.plateau is not None

    def due(self, trainer: Trainer, watch: PlateauWatch | None) -> str | None:
        """Says why it begins with the batch that comes next; None while it does not.

        Args:
            trainer: in a fit.
            watch: of its plateau.
        """
        holds = {str(moment): moment.reached(trainer) for moment in self.moments}
        if self.plateau is not None and watch is not None:
            name = f"{self.plateau.metric} no better for {self.plateau.patience} epochs"
            holds[name] = watch.wait >= self.plateau.patience
        met = [reason for reason, holding in holds.items() if holding]
        return " and ".join(met) if met and (self.when == "any" or len(met) == len(holds)) else None

    def never(self, beyond: Callable[[Moment], bool]) -> bool:
        """Tells whether it cannot begin, given which moments lie beyond the end of the run."""
        hopeless = [beyond(moment) for moment in self.moments] + [False] * (self.plateau is not None)
        return bool(hopeless) and (any(hopeless) if self.when == "all" else all(hopeless))

    def known_update(self, trainer: Trainer) -> int | None:
        """Returns the number of updates before it at the latest; None where the data or a plateau decide."""
        updates = [moment.update(trainer) for moment in self.moments]
        known = [update for update in updates if update is not None]
        if self.when == "any":
            return min(known, default=None)
        return max(known) if known and len(known) == len(updates) and self.plateau is None else None


def in_turn(
    layers: Sequence[LayerSpec], epochs: int | None, rate: float | None = None, plateau: Plateau | None = None
) -> list[Phase]:
    """Returns phases that thaw these layers one after the other.

    Args:
        layers: of each phase.
        epochs: that each lasts; None: something else says when the next begins.
        rate: of all phases but the first, see `Phase`.
        plateau: in place of ``epochs``; the next phase begins with the best checkpoint.
    """
    if plateau is not None:
        later = [Phase(spec, plateau=plateau, rate=rate, restore_best=True) for spec in layers[1:]]
    else:
        later = [Phase(spec, epoch=epochs and number * epochs, rate=rate) for number, spec in enumerate(layers[1:], 1)]
    return [Phase(layers[0]), *later]


def layers_in(network: nn.Module, phases: Sequence[Phase]) -> list[list[str]]:
    """Returns the names of the layers that each phase thaws, in the network's order.

    Raises:
        UserError: a layer that does not exist, or a phase without any.
    """
    found: list[list[str]] = []
    for number, phase in enumerate(phases):
        before = {name for names in found for name in names}
        rest = [name for name in layers_of(network) if name not in before]
        names = rest if phase.layers == REST else select(network, phase.layers)
        if not names:
            raise UserError(f"phases[{number}]: expected at least one layer to thaw, got none from {phase.layers!r}")
        found.append(names)
    return found


class Begin(NamedTuple):
    """When and why a phase has begun.

    Attributes:
        epoch: epochs before it.
        update: updates before it.
        reason: for people.
    """

    epoch: int
    update: int
    reason: str


START = Begin(0, 0, "start")


def segment_in(trainer: Trainer, phases: Sequence[Phase], begins: Sequence[Begin]) -> Segment | None:
    """Returns the part of the run that schedules run over; None: no phase restarts them.

    Args:
        trainer: in a fit.
        phases: all of them.
        begins: of those that have begun.
    """
    restarts = [number for number, phase in enumerate(phases) if phase.restart]
    if not restarts:
        return None
    begin = begins[max((number for number in restarts if number < len(begins)), default=0)]
    following = next((phases[number] for number in restarts if number >= len(begins)), None)
    end = following.known_update(trainer) if following else None
    return Segment(begin.update, begin.epoch, None if end is None else max(end - begin.update, 1))


def plateaus(phases: Sequence[Phase]) -> list[Plateau]:
    """Returns the plateaus that phases wait for."""
    return [phase.plateau for phase in phases if phase.plateau is not None]
