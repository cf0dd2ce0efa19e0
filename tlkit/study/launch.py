"""Starts Parsl's processes so that none outlives its parent: ``python -m tlkit.study.launch interchange PID|pool …``.

Parsl's own commands leave, after a SIGKILL of the driver, the interchange and with it everything else running.
"""

import os
import runpy
import signal
import sys
import threading
import uuid
from multiprocessing.managers import SyncManager
from typing import Any

import zmq
from parsl import curvezmq

from tlkit.study import accelerators
from tlkit.study.survival import SocketQueue, die_with_parent

_PARSL = "parsl.executors.high_throughput"
_ACCELERATORS = "--available-accelerators"  # the last of the pool's options
_THRESHOLD = "--hb_threshold="  # seconds without a word from the interchange after which a pool ends


class _ImpatientContext(curvezmq.ClientContext):
    """A pool's: an interchange that was killed while the pool started would be waited for without end."""

    limit = 0.0  # s

    def socket(self, *args: Any, **kwargs: Any) -> zmq.Socket[bytes]:
        opened = super().socket(*args, **kwargs)
        opened.setsockopt(zmq.RCVTIMEO, round(1000 * self.limit))
        return opened


def _end(failure: threading.ExceptHookArgs) -> None:
    """Ends a pool that has lost a thread: it would hold its cores, do nothing, and be missed by nobody."""
    threading.__excepthook__(failure)
    os._exit(1)


def _pool() -> None:
    from parsl.multiprocessing import SpawnContext

    accelerators.assign(sys.argv[sys.argv.index(_ACCELERATORS) + 1 :] if _ACCELERATORS in sys.argv else [])

    def manager() -> SyncManager:
        # a name without a file: killed as it is with its pool, it would leave a directory in /tmp each time
        started = SyncManager(address=f"\0tlkit-{uuid.uuid4()}", ctx=SpawnContext)
        started.start(initializer=die_with_parent, initargs=(os.getpid(),))
        return started

    substitutes = (SpawnContext, "Queue", SocketQueue), (SpawnContext, "Manager", manager)
    (threshold,) = [word for word in sys.argv if word.startswith(_THRESHOLD)]
    _ImpatientContext.limit = float(threshold.removeprefix(_THRESHOLD))
    for target, name, substitute in (*substitutes, (curvezmq, "ClientContext", _ImpatientContext)):
        setattr(target, name, substitute)
    threading.excepthook = _end
    runpy.run_module(f"{_PARSL}.process_worker_pool", run_name="__main__", alter_sys=True)


def _interchange() -> None:
    die_with_parent(int(sys.argv.pop(1)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then ends this process in order
    runpy.run_module(f"{_PARSL}.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    {"pool": _pool, "interchange": _interchange}[sys.argv.pop(1)]()
