"""Starts Parsl's processes so that none outlives its parent: ``python -m tlkit.study.launch interchange|pool …``.

Parsl's own commands leave, after a SIGKILL of the driver, the interchange and with it everything else running.
"""

import runpy
import signal
import sys
import uuid
from multiprocessing.managers import SyncManager

from tlkit.study import accelerators
from tlkit.study.survival import SocketQueue, die_with_parent

_PARSL = "parsl.executors.high_throughput"
_ACCELERATORS = "--available-accelerators"  # the last of the pool's options


def _pool() -> None:
    from parsl.multiprocessing import SpawnContext

    accelerators.assign(sys.argv[sys.argv.index(_ACCELERATORS) + 1 :] if _ACCELERATORS in sys.argv else [])

    def manager() -> SyncManager:
        # a name without a file: killed as it is with its pool, it would leave a directory in /tmp each time
        started = SyncManager(address=f"\0tlkit-{uuid.uuid4()}", ctx=SpawnContext)
        started.start(initializer=die_with_parent)
        return started

    for name, substitute in (("Queue", SocketQueue), ("Manager", manager)):
        setattr(SpawnContext, name, substitute)
    runpy.run_module(f"{_PARSL}.process_worker_pool", run_name="__main__", alter_sys=True)


def _interchange() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then ends this process in order
    runpy.run_module(f"{_PARSL}.interchange", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    {"pool": _pool, "interchange": _interchange}[sys.argv.pop(1)]()
