"""What a worker pool needs to survive the SIGKILL of any process: a queue without locks, and children that follow."""

import ctypes
import os
import pickle
import queue
import signal
import socket
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_retired = False


def die_with_parent(parent: int | None) -> None:
    """Asks the kernel to kill this process when the one that started it ends, however it ends.

    Args:
        parent: the one that started it: if it is gone by now, this process ends at once.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)  # the kernel was asked too late


def retire() -> None:
    """Ends this worker before it takes another task; its pool then starts a fresh one in its place."""
    global _retired
    _retired = True


class SocketQueue:
    """Takes the place of `multiprocessing.Queue` between a worker pool and its workers.

    A reader of `multiprocessing.Queue` waits with a semaphore in its hands: killed in that moment, it leaves the
    others waiting for ever. Here the kernel hands each message whole to one reader, and nobody holds anything.
    A message may have some 200 kB (``net.core.wmem_default``): what a stage is described by has about 10 kB.
    """

    def __init__(self) -> None:
        """Opens both ends."""
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def put(self, item: Any) -> None:
        """Sends an object, waiting while the other side does not read."""
        self._writer.sendall(pickle.dumps(item))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Returns the next object.

        Raises:
            queue.Empty: none came within `timeout` seconds.
        """
        if _retired:
            os._exit(0)  # between two tasks: what was done is handed over, and nobody waits for this process
        self._reader.settimeout(timeout if block else 0.0)
        try:
            return pickle.loads(self._reader.recv(1 << 20))
        except (TimeoutError, BlockingIOError):
            raise queue.Empty from None

    def qsize(self) -> int:
        """A kernel's buffer does not tell its length: as on platforms whose queues do not, which Parsl knows."""
        raise NotImplementedError

    def close(self) -> None:
        """Closes both ends, in this process."""
        self._reader.close()
        self._writer.close()
