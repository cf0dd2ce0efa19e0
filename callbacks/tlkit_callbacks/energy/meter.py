"""Windows of joules: from one edge to the next."""

from tlkit_callbacks.energy.counter import Counter
from tlkit_callbacks.energy.rows import Total, Use


class Meter:
    """Divides what a counter counts into windows.

    Args:
        counter: just opened.
        before: what the device used in the part of the run before a resume.
    """

    def __init__(self, counter: Counter, before: Total) -> None:
        self.counter = counter
        self._unread = counter.update()
        self._joules, self._losses = counter.joules, len(counter.losses)
        self._before = Total(before.joules - self._joules, before.fault)  # the run begins here, not where it was opened

    def edge(self, train: bool) -> Use:
        """Ends a window, begins the next one, and returns what the device used.

        Args:
            train: whether the window was of training.
        """
        counter, began = self.counter, self._unread
        self._unread = counter.update()
        fault = next(iter([*filter(None, (self._unread, began)), *counter.losses[self._losses :]]), "")
        joules = None if fault else counter.joules - self._joules
        self._joules, self._losses = counter.joules, len(counter.losses)
        return Use(
            method=counter.method,
            joules=joules,
            train_joules=joules if train else 0.0,
            windows=int(train),
            fault=fault,
            period_ms=counter.period * 1000,
            **counter.labels(),
        )

    def total(self) -> Total:
        """Returns what the device used in the run until the last edge."""
        faults = [self._before.fault, *self.counter.losses, self._unread]
        return Total(self._before.joules + self._joules, next(filter(None, faults), ""))
