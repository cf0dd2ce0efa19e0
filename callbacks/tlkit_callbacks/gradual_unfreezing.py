"""Thaw a network in phases."""

import logging
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn
from typing_extensions import override

from tlkit.errors import UserError
from tlkit.layers import NormMode, layers_of, network_of
from tlkit.protocol import head_down
from tlkit_callbacks.best_checkpoint import check_best, restore_best
from tlkit_callbacks.freezing import Freezing, chart_step
from tlkit_callbacks.phase import START, Begin, Phase, in_turn, layers_in, plateaus, segment_in
from tlkit_callbacks.phase_checks import (
    check_others,
    check_phases,
    check_plateaus,
    check_single,
    check_updates,
    check_values,
)
from tlkit_callbacks.phase_rates import group_key, rates_of_phases, transition
from tlkit_callbacks.plateau import PlateauWatch, check_sanity, fresh_value
from tlkit_callbacks.schedule import Schedule, Segment
from tlkit_callbacks.updates import completed_updates

log = logging.getLogger("tlkit")


class GradualUnfreezing(Freezing, Schedule):
    """Thaws a network in phases, each adding its layers to those that train; by default from the head down.

    A layer in no phase stays frozen for the whole run. A phase begins before a window of accumulated batches, never
    within it, and lasts at least one update: of several that are due at once, one begins with each update. The rate of
    a layer is its initial rate times all schedules times the multipliers of its phases. Rates that differ between
    layers need named parameter groups (`tlkit.optim.build_optimizer`); without them the default rate of later phases is
    1, with a warning. Source: Howard & Ruder 2018 (ULMFiT).

    Args:
        phases: what is thawed when and at which rate, a list of `Phase`, as ``tlkit protocol starter`` writes it; null:
            ``layers_per_phase`` layers every ``epochs_per_phase`` epochs, from the last layer to the first.
        layers_per_phase: layers that each generated phase thaws.
        epochs_per_phase: epochs from one generated phase to the next.
        norm: normalisation in frozen layers: ``eval``, ``affine`` or ``train``, as in `LayerFreezing`.

    Raises:
        UserError: at the start of a run: a layer that does not exist or is in two phases, a phase that thaws nothing or
            cannot begin, moments that do not increase, a metric that nobody logs, rates that one parameter group cannot
            have, a layer that another callback freezes for the whole run, no checkpoint that could be restored.
    """

    overlap: bool = False
    """Whether a layer may be in several phases; then the last that has begun gives its rate."""

    def __init__(
        self,
        phases: list[Phase] | None = None,
        layers_per_phase: int = 1,
        epochs_per_phase: int = 1,
        norm: NormMode = "eval",
    ) -> None:
        who, generated = type(self).__name__, (layers_per_phase, epochs_per_phase)
        if min(generated) < 1:
            raise UserError(f"{who}: expected at least 1 layer and 1 epoch per phase, got {generated}")
        if phases is not None and generated != (1, 1):
            raise UserError(f"{who}: expected phases, or layers_per_phase and epochs_per_phase to make them, got both")
        if norm == "statistics":
            raise UserError(f"{who}: expected norm eval, affine or train, got statistics, which freezes no weights")
        check_values(phases or (), f"{who}:")
        self.phases = phases
        self.layers_per_phase = layers_per_phase
        self.epochs_per_phase = epochs_per_phase
        self.norm: NormMode = norm

    _phases: Sequence[Phase] = ()
    """Like all below, of the current run; set when one starts."""
    _layers: Sequence[Sequence[str]] = ()
    """What each phase thaws."""
    _begins: Sequence[Begin] = (START,)
    """Of each phase that has begun."""
    _restored: Mapping[str, Any] = {}
    """What a checkpoint says of the next phase."""
    _watch: PlateauWatch | None = None
    """Of the plateau that the next phase waits for."""
    _frozen: list[str]
    _segment: Segment | None = None
    _rates: Sequence[Mapping[str, float]] = ()
    """In each phase: layer -> multiplier of its rate."""
    _group_rates: Sequence[Mapping[int, float]] = ()
    """In each phase: `group_key` -> multiplier of the group's rate."""

    @property
    def phase(self) -> int:
        """Index of the phase that the run is in, from 0."""
        return len(self._begins) - 1

    def phases_for(self, network: nn.Module) -> list[Phase]:
        """Returns the phases for a network; a subclass may make its own."""
        if self.phases is not None:
            return self.phases
        layers = head_down(list(layers_of(network)), self.layers_per_phase)
        return in_turn(layers, None if self._own_trigger else self.epochs_per_phase)

    @property
    def _own_trigger(self) -> bool:
        return type(self).due is not GradualUnfreezing.due

    def trained(self, index: int, layers: Sequence[Sequence[str]]) -> Sequence[str]:
        """Returns the layers that train in a phase; a subclass may train others than all that are thawed so far.

        Args:
            index: of the phase.
            layers: what each phase thaws.
        """
        return [name for names in layers[: index + 1] for name in names]

    def due(self, trainer: Trainer, pl_module: LightningModule, phase: Phase) -> str | None:
        """Says why the next phase begins with the batch that comes next; None while it does not.

        A subclass may have a trigger of its own; then a phase needs none. It is asked before each window of batches,
        and when a checkpoint is written: what metrics have decided by then holds after a resume.
        """
        return phase.due(trainer, self._watch)

    @override
    def frozen(self, pl_module: LightningModule) -> list[str]:
        network = network_of(pl_module)
        trained = self.trained(0, layers_in(network, self.phases_for(network)))
        return [name for name in layers_of(network) if name not in trained]

    @override
    def frozen_now(self, trainer: Trainer, pl_module: LightningModule) -> list[str]:
        return self._frozen

    @override
    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = network_of(pl_module)
        phases = self.phases_for(network)
        layers = layers_in(network, phases)
        check_phases(trainer, phases, layers, overlap=self.overlap, own_trigger=self._own_trigger)
        check_single([c for c in trainer.callbacks if isinstance(c, GradualUnfreezing)])  # type: ignore[attr-defined]
        check_others(trainer, pl_module, {name for names in layers for name in names})
        check_plateaus(pl_module, phases, type(self).__name__)
        Freezing.check(self, trainer, pl_module)
        Schedule.check(self, trainer, pl_module)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is loaded
            self._begins, self._restored = (START,), {}
        super().setup(trainer, pl_module, stage)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)
        network = network_of(pl_module)
        self._phases = self.phases_for(network)
        self._layers = layers_in(network, self._phases)
        if self.phase >= len(self._phases):
            raise UserError(
                f"phases: expected those of the checkpoint, at least {self.phase + 1}, got {len(self._phases)}"
            )
        if any(phase.restore_best for phase in self._phases):
            check_best(trainer, type(self).__name__)
        self._rates, self._group_rates = rates_of_phases(trainer, network, self._phases, self._layers, self.trained)
        restarts = any(phase.restart for phase in self._phases)
        self.sets_rate = restarts or any(rate != 1 for rates in self._rates for rate in rates.values())
        super().on_fit_start(trainer, pl_module)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        check_updates(trainer, self._phases, type(self).__name__)
        self._settle(trainer, pl_module)
        if self._watch is not None and self._restored.get("watch"):
            self._watch.load_state_dict(self._restored["watch"])
        chart_step(trainer, {}, {"phase": float(self.phase)})

    @override
    def advance(self, trainer: Trainer, pl_module: LightningModule) -> None:
        window_begins = trainer.fit_loop.epoch_loop.batch_idx % trainer.accumulate_grad_batches == 0
        if window_begins and (reason := self._due(trainer, pl_module)) is not None:
            self._begin_next(trainer, pl_module, reason)

    def _due(self, trainer: Trainer, pl_module: LightningModule) -> str | None:
        """Returns why the next phase is due; None if it is not, there is none, or this one has had no update yet."""
        if self.phase + 1 >= len(self._phases) or self._begins[-1].update == completed_updates(trainer):
            return None
        return self._restored.get("due") or self.due(trainer, pl_module, self._phases[self.phase + 1])

    def _begin_next(self, trainer: Trainer, pl_module: LightningModule, reason: str) -> None:
        before = self.trained(self.phase, self._layers)
        begin = Begin(trainer.current_epoch, completed_updates(trainer), reason)
        self._begins, self._restored = (*self._begins, begin), {}
        self._settle(trainer, pl_module)
        if self._phases[self.phase].restore_best:
            restore_best(trainer, pl_module, type(self).__name__)
        chart_step(trainer, {"phase": self.phase - 1.0}, {"phase": float(self.phase)})
        if trainer.is_global_zero:
            said = transition(self._rates[self.phase], before, self.trained(self.phase, self._layers))
            log.info("epoch %d, step %d: phase %d begins (%s); %s", *begin[:2], self.phase, reason, said)

    def _settle(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Derives what follows from the phase that the run is in."""
        trained = self.trained(self.phase, self._layers)
        self._frozen = [name for name in layers_of(network_of(pl_module)) if name not in trained]
        following = self._phases[self.phase + 1].plateau if self.phase + 1 < len(self._phases) else None
        self._watch = PlateauWatch(following) if following else None
        self._segment = segment_in(trainer, self._phases, self._begins)

    @override
    def segment(self, trainer: Trainer) -> Segment | None:
        return self._segment

    @override
    def factor_of(self, group: Mapping[str, Any], trainer: Trainer) -> float:
        return self._group_rates[self.phase][group_key(group)]

    @override
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for plateau in plateaus(self._phases):
            check_sanity(trainer, plateau.metric, type(self).__name__)
        super().on_sanity_check_end(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for metric in sorted({plateau.metric for plateau in plateaus(self._phases)}):  # all: one may not be logged
            value = fresh_value(trainer, metric, type(self).__name__)
            if self._watch is not None and self._watch.plateau.metric == metric and value is not None:
                self._watch.update(value)
        super().on_train_epoch_end(trainer, pl_module)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        chart_step(trainer, {"phase": float(self.phase)}, {})
        super().on_train_end(trainer, pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        watch = self._watch.state_dict() if self._watch is not None else None
        return {"begins": [list(begin) for begin in self._begins], "watch": watch}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored, self._begins = state_dict, tuple(Begin(*begin) for begin in state_dict["begins"])

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["callbacks"][self.state_key]["due"] = self._due(trainer, pl_module)

    def summary(self) -> dict[str, Any]:
        """Returns of each phase its layers, the epochs and updates before it and why it began; null: it did not."""
        begins = zip_longest(self._layers, self._begins[: len(self._layers)], fillvalue=(None, None, None))
        return {"phases": [{"layers": [*names], "epoch": e, "step": u, "why": why} for names, (e, u, why) in begins]}
