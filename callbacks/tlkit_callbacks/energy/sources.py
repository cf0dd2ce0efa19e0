"""What there is to measure with in a run, and one line on what there is not."""

import logging
from contextlib import ExitStack
from functools import cache

from tlkit_callbacks.energy import rapl
from tlkit_callbacks.energy.counter import Clock, Counter, Unreadable
from tlkit_callbacks.energy.devices import card_of
from tlkit_callbacks.energy.nvml import Card, counter_of, opened

log = logging.getLogger("tlkit")


def open_card(index: int, undo: ExitStack) -> Card | None:
    """Opens NVML and returns the card behind ``cuda:<index>``; None, with a warning, if there is none.

    Args:
        index: of the device, as CUDA counts.
        undo: closes NVML.
    """
    try:
        undo.enter_context(opened())
        card = card_of(index)
    except Unreadable as error:
        say(logging.WARNING, f"the energy of cuda:{index} is not measured: {error}")
        return None
    if card.shared:
        say(logging.WARNING, f"cuda:{index} is a part (MIG) of {card.label}: what its other parts use is counted too")
    return card


def open_counters(card: Card | None, processors: bool, clock: Clock) -> list[Counter]:
    """Opens a counter for each device that can be measured.

    Args:
        card: of this process; None: it has none.
        processors: whether this process measures those of the machine; one does so for all.
        clock: for the counters.
    """
    counters: list[Counter] = []
    faults = []
    if card is not None:
        try:
            counters.append(counter_of(card, clock))
        except Unreadable as error:
            faults.append(f"{card.label}: {error}")
    if processors:
        zones, unreadable = rapl.zones(clock, rapl.ROOT)
        counters, faults = counters + zones, faults + unreadable
        if not zones and not unreadable:
            say(logging.INFO, f"the energy of the processor is not measured: no counter of it in {rapl.ROOT}")
    if faults:
        say(logging.WARNING, f"energy that is not measured: {'; '.join(faults)}")
    return counters


@cache
def say(level: int, message: str) -> None:
    """Logs a message, once per process: stages follow each other."""
    log.log(level, "EnergyMonitor: %s", message)
