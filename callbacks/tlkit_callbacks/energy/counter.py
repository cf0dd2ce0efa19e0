"""Joules since a device was opened, from whatever it says: energy, or power."""

import math
import threading
from collections.abc import Callable
from statistics import median
from typing import Protocol

POWER_INTERVAL = 0.1
"""Seconds between two readings of power: about how often NVML renews it."""
LONGEST_HOLD = 5.0
"""Seconds for which a reading of power may stand for what followed; then the process was stopped, or reading failed."""
CHANGES = 6
"""Of a reading, for the median of five intervals."""
PATIENCE = 1.0
"""Seconds in which they must come."""


class Clock(Protocol):
    """What the module ``time`` offers."""

    def perf_counter(self) -> float:
        """Returns seconds from any origin; they never go backwards."""

    def sleep(self, seconds: float, /) -> None:
        """Waits."""


class Unreadable(Exception):
    """A device gives no answer now; the message is its reason."""


class Lost(Exception):
    """Energy that can never be known; the message says why."""


class Counter:
    """The energy of one device since it was opened; this one reads a counter of energy that never wraps.

    Args:
        device: its name, unique among all processes of a run.
        method: how it is measured.
        read: returns what the device says: joules since any origin.
        clock: for the time between two readings.
        labels: returns what else the device says: ``celsius`` and ``cap_watts``.
        interval: the most seconds between two readings; infinite: any number.

    Attributes:
        joules: since it was opened.
        losses: why some of the energy since then is not in them.
        period: seconds in which the device renews what it says.

    Raises:
        Unreadable: it cannot be read at all, or always says the same.
    """

    def __init__(
        self,
        device: str,
        method: str,
        read: Callable[[], float],
        clock: Clock,
        labels: Callable[[], dict[str, float | None]] = dict,
        interval: float = math.inf,
    ) -> None:
        self.device = device
        self.method = method
        self.labels = labels
        self.interval = interval
        self.joules = 0.0
        self.losses: list[str] = []
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self.period = self._resolution(update_period(read, clock))
        self._last, self._time = read(), clock.perf_counter()

    def update(self) -> str:
        """Adds what was used since the last update; returns why the device could not be read, or ''.

        What is used while it cannot be read is added when it can be read again.
        """
        with self._lock:
            try:
                value = self._read()
            except Unreadable as error:
                return f"could not be read: {error}"
            now = self._clock.perf_counter()
            try:
                self.joules += self.between(self._last, value, now - self._time)
            except Lost as lost:
                self.losses.append(str(lost))
            self._last, self._time = value, now
            return ""

    def between(self, before: float, after: float, seconds: float) -> float:
        """Returns the joules used between two readings.

        Raises:
            Lost: they do not tell.
        """
        if after < before:
            raise Lost("the counter went backwards")
        return after - before

    def _resolution(self, period: float | None) -> float:
        """Returns the seconds by which the end of a window may be off."""
        if period is None:  # a card, or a virtual machine, without the counter that it shows
            raise Unreadable("its counter does not change")
        return period


class PowerIntegral(Counter):
    """The energy of a device that says only its power (watts): each reading holds until the next one.

    Readings that repeat count like any other: 300 W read twice, 2 s apart, are 600 J.
    """

    def between(self, before: float, after: float, seconds: float) -> float:
        """Returns joules; see the class."""
        if seconds > LONGEST_HOLD:
            raise Lost(f"no reading of power for {seconds:.1f} s")
        return before * seconds

    def _resolution(self, period: float | None) -> float:
        return max(period or 0, self.interval)  # power may well be constant


def update_period(read: Callable[[], float], clock: Clock) -> float | None:
    """Measures how often a device renews what it says; takes six of its periods, at most a second.

    Returns:
        The median of the seconds between two changes; None: it changed less than twice.

    Raises:
        Unreadable: it gives no answer.
    """
    start, last = clock.perf_counter(), read()
    changes: list[float] = []
    while len(changes) < CHANGES and clock.perf_counter() - start < PATIENCE:
        clock.sleep(0.0002)
        value = read()
        if value != last:
            changes.append(clock.perf_counter())
            last = value
    gaps = [after - before for before, after in zip(changes, changes[1:], strict=False)]
    return median(gaps) if gaps else None


class Sampler:
    """A thread that reads those counters that must be read more often than windows end."""

    def __init__(self, counters: list[Counter]) -> None:
        """Starts it, if one of the counters needs it.

        Args:
            counters: all of them.
        """
        self._counters = [counter for counter in counters if counter.interval < math.inf]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="EnergyMonitor", daemon=True)
        if self._counters:
            self._thread.start()

    def stop(self) -> None:
        """Ends it; returns when it has ended."""
        self._stopped.set()
        if self._counters:
            self._thread.join()

    def _run(self) -> None:
        interval = min(counter.interval for counter in self._counters)
        while not self._stopped.wait(interval):
            for counter in self._counters:
                counter.update()
