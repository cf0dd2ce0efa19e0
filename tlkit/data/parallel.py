"""Many independent pieces of work in forked processes, in order, with a progress bar."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from tqdm import tqdm

T = TypeVar("T")
_work: Callable[[int], Any] | None = None  # inherited by fork: a closure over memory maps cannot be pickled


def each(work: Callable[[int], T], count: int, description: str, processes: int | None = None) -> Iterator[T]:
    """Yields ``work(0) … work(count - 1)`` in order, computed in forked processes.

    What ``work`` writes to shared memory maps is seen by the caller; what it returns is pickled. A process that may
    have no children (a daemon) does the work itself.

    Args:
        work: a function of the index alone; it may be a closure.
        count: how many indices.
        description: shown before the progress bar.
        processes: how many to fork; None: one per usable core. 1: no fork.

    Raises:
        Exception: whatever ``work`` raised first, in the order of indices.
    """
    global _work
    processes = min(processes or usable_cores(), count)
    with tqdm(total=count, desc=description, leave=False, disable=None) as bar:
        if processes <= 1 or multiprocessing.current_process().daemon:
            for index in range(count):
                yield work(index)
                bar.update()
            return
        _work = work
        pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), torch.set_num_threads, (1,))
        try:
            # a bounded queue: results wait in memory only for the slowest of the pieces in flight
            pending: deque[Future[T]] = deque(pool.submit(_call, index) for index in range(min(4 * processes, count)))
            submitted = len(pending)
            while pending:
                result = pending.popleft().result()
                if submitted < count:
                    pending.append(pool.submit(_call, submitted))
                    submitted += 1
                bar.update()
                yield result
        finally:
            pool.shutdown(cancel_futures=True)
            _work = None


def usable_cores() -> int:
    """Returns how many cores this process may run on, where the system tells; else how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(index: int) -> Any:
    """Does one piece of work in a forked process."""
    assert _work is not None
    return _work(index)
