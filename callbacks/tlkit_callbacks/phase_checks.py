"""What can be wrong with the phases of gradual unfreezing."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer

from tlkit.errors import UserError
from tlkit_callbacks.freezing import Freezing
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.phase import UNITS, Phase, plateaus
from tlkit_callbacks.plateau import check_metric, check_validates
from tlkit_callbacks.updates import check_length, total_updates


def check_phases(
    trainer: Trainer, phases: Sequence[Phase], layers: Sequence[Sequence[str]], *, overlap: bool, own_trigger: bool
) -> None:
    """Refuses phases that can be known to be wrong before a run has its data.

    Args:
        trainer: that is built.
        phases: all of them.
        layers: what each thaws.
        overlap: whether a layer may be in several phases.
        own_trigger: whether a subclass decides when they begin.

    Raises:
        UserError: a value out of range, no phase, a first one with a trigger, a later one without, moments that do not
            increase or that lie after the end of the run, a fraction of a run whose length is not known, a layer in two
            phases.
    """
    check_values(phases)
    _check_order(phases, own_trigger)
    if not overlap:
        _check_overlap(layers)
    _check_end(trainer, phases)


def check_values(phases: Sequence[Phase], who: str = "") -> None:
    """Refuses values that a phase cannot have.

    Args:
        phases: all of them.
        who: has them, for the message: ``GradualUnfreezing:``.

    Raises:
        UserError: see above.
    """
    for number, phase in enumerate(phases):
        where = f"{who} phases[{number}]".strip()
        for name in ("rate", "rate_before", "depth_factor"):
            value = getattr(phase, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"{where}: expected {name} to be larger than 0, got {value}")
        if phase.when not in ("any", "all"):
            raise UserError(f"{where}: expected when: any or all, got {phase.when}")
        try:
            _ = phase.moments  # each checks itself
        except UserError as error:
            raise UserError(f"{where}: {error}") from error


def check_updates(trainer: Trainer, phases: Sequence[Phase], who: str) -> None:
    """Refuses, once a run has its data, phases that begin after its end, before the phase before them, or never.

    Args:
        trainer: in a fit.
        phases: all of them.
        who: has them, for the message.

    Raises:
        UserError: see above.
    """
    for plateau in plateaus(phases):
        check_validates(trainer, plateau.metric, who)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    try:
        total: float = total_updates(trainer, who)
    except UserError:  # max_time may end it anywhere
        total = math.inf
    last = 0
    for number, phase in enumerate(phases):
        _refuse_never(trainer, number, phase, lambda moment: (moment.update(trainer) or 0) >= total)
        begins = phase.known_update(trainer)
        if begins is not None and begins <= last:
            raise UserError(
                f"phases[{number}]: expected a moment after update {last}, when an earlier phase begins, got "
                f"{' and '.join(map(str, phase.moments))}, which is update {begins}"
            )
        last = begins or last


def check_plateaus(pl_module: LightningModule, phases: Sequence[Phase], who: str) -> None:
    """Refuses a plateau on a metric that is known not to be logged.

    Raises:
        UserError: see above.
    """
    for plateau in plateaus(phases):
        check_metric(pl_module, plateau.metric, who, plateau.mode)


def check_single(callbacks: Sequence[Freezing]) -> None:
    """Refuses several callbacks with phases: their layers and their rates would mix.

    Raises:
        UserError: see above.
    """
    if len(callbacks) > 1:
        names = " and ".join(type(callback).__name__ for callback in callbacks)
        raise UserError(f"expected one callback with phases, got {names}; put their phases into one")


def check_others(trainer: Trainer, pl_module: LightningModule, thawed: Collection[str]) -> None:
    """Refuses layers that another callback freezes for the whole run, and a phase would thaw.

    Raises:
        UserError: see above.
    """
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(other, Freezing) and not other.changes:
            lost = [name for name in other.frozen(pl_module) if name in thawed]
            if lost:
                raise UserError(
                    f"phases: expected layers that may train, got {', '.join(lost)}, which {type(other).__name__} "
                    "freezes for the whole run; what no phase has thawed yet is frozen anyway"
                )


def _check_order(phases: Sequence[Phase], own_trigger: bool) -> None:
    if not phases:
        raise UserError("phases: expected at least one, got none")
    if phases[0].has_trigger or phases[0].restart or phases[0].restore_best:
        raise UserError(
            "phases[0]: expected no trigger, restart or restore_best, as the first phase begins with the run; give the "
            "later ones theirs"
        )
    last: dict[str, float] = dict.fromkeys(UNITS, 0)
    for number, phase in enumerate(phases[1:], 1):
        if not phase.has_trigger and not own_trigger:
            raise UserError(f"phases[{number}]: expected epoch, step, fraction or plateau, got none of them")
        for moment in phase.moments:
            if moment.value <= last[moment.unit]:
                raise UserError(
                    f"phases[{number}]: expected {moment.unit} to be larger than {last[moment.unit]:g}, where an "
                    f"earlier phase begins, got {moment.value:g}"
                )
            last[moment.unit] = moment.value


def _check_overlap(layers: Sequence[Sequence[str]]) -> None:
    first: dict[str, int] = {}
    for number, names in enumerate(layers):
        for name in names:
            if first.setdefault(name, number) != number:
                raise UserError(
                    f"phases[{number}]: expected layers that no phase before it thaws, got {name}, which is in "
                    f"phases[{first[name]}]"
                )


def _check_end(trainer: Trainer, phases: Sequence[Phase]) -> None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    limits: Mapping[str, float | None] = {"epoch": trainer.max_epochs, "step": trainer.max_steps, "fraction": 1}

    def beyond(moment: Moment) -> bool:
        limit = limits[moment.unit]
        return limit not in (None, -1) and moment.value >= limit

    for number, phase in enumerate(phases):
        for moment in phase.moments:
            if moment.fraction is not None:
                check_length(trainer, f"phases[{number}], {moment}")
        _refuse_never(trainer, number, phase, beyond)


def _refuse_never(trainer: Trainer, number: int, phase: Phase, beyond: Callable[[Moment], bool]) -> None:
    if phase.never(beyond):
        raise UserError(
            f"phases[{number}]: expected a moment before the end of the run, got "
            f"{' and '.join(map(str, phase.moments))}; trainer.max_epochs is {trainer.max_epochs}, "
            f"trainer.max_steps {trainer.max_steps}"
        )
