"""What a worker does with a stage, and when; a module of its own, so that workers can import it."""

import os
import sys
import time
from dataclasses import dataclass

from tlkit.study.worker import Done, Task, work_in_pool

WORKERS = 2
"""That all arms have, of one thread each."""


@dataclass(frozen=True)
class Lap(Done):
    """What became of a stage, and when a worker was at it.

    Attributes:
        begin: when the worker took it, seconds of the machine's monotonic clock.
        end: when it was done with it.
        worker: process that did it.
        imported: whether torch was imported for it.
    """

    begin: float = 0.0
    end: float = 0.0
    worker: int = 0
    imported: bool = False


def clocked(task: Task) -> Done:
    """Carries a stage out as the engine's workers do."""
    had = "torch" in sys.modules
    begin = time.monotonic()
    done = work_in_pool(task)
    return Lap(**vars(done), begin=begin, end=time.monotonic(), worker=os.getpid(), imported=not had)
