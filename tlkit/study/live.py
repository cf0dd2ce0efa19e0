"""How far a study is, on one line."""

import math
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

_TERMINAL_SECONDS, _FILE_SECONDS = 0.5, 20.0


class Live:
    """Counts stages and draws one line: on a terminal in place, elsewhere a new one every 20 s.

    Args:
        total: stages of the study.
        done: those that were finished before.
        clock: returns seconds; a test's own.
        stream: where the line goes.
    """

    def __init__(
        self,
        total: int,
        done: int,
        clock: Callable[[], float] = time.monotonic,
        stream: TextIO | None = None,
    ) -> None:
        """Stores the arguments and starts the clock."""
        self.total, self.done, self.failed, self.running = total, done, 0, 0
        self.best: dict[str, Any] = {}
        self._before, self._clock = done, clock
        self._stream = stream or sys.stdout
        self._start = self._drawn = clock()
        self._terminal = self._stream.isatty()

    def take(self, metric: dict[str, Any], id_: str) -> None:
        """Keeps a transfer's metric, if it is the best so far; what another one was selected by does not compare."""
        value, best = metric.get("best"), self.best.get("best")
        sign = 1 if metric.get("mode") == "max" else -1
        if metric.get("name") != self.best.get("name", metric.get("name")):
            return
        if value is not None and not math.isnan(value) and (best is None or sign * value > sign * best):
            self.best = metric | {"id": id_}

    def draw(self, running: Callable[[], int], last: bool = False) -> None:
        """Draws the line, if it is time; only then asks how many are running."""
        if not last and self._clock() - self._drawn < (_TERMINAL_SECONDS if self._terminal else _FILE_SECONDS):
            return
        self._drawn, self.running = self._clock(), running()
        if self._terminal:
            shown = self.line()[: shutil.get_terminal_size().columns - 1]  # one that wraps cannot be drawn over
            print(f"\r\x1b[K{shown}", end="\n" if last else "", file=self._stream, flush=True)
        else:
            print(self.line(), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Writes a message above the line."""
        print(f"\r\x1b[K{text}" if self._terminal else text, file=self._stream, flush=True)

    def line(self) -> str:
        """Returns the line: counts, stages per minute, time to the end, the best so far."""
        parts = [f"{self.done}/{self.total} done, {self.running} running, {self.failed} failed"]
        now = self.done + self.failed - self._before
        if now:
            rate = now / max(self._clock() - self._start, 1e-9)  # 1/s
            parts.append(f"{60 * rate:.3g}/min")
            parts.append(f"ETA {_spelled((self.total - self.done - self.failed) / rate)}")
        if self.best:
            parts.append(f"best {self.best['name']} {self.best['best']:.4g} ({self.best['id'][:8]})")
        return " · ".join(parts)


def _spelled(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
