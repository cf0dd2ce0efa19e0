"""Which accelerator each worker of a pool gets. Imports no torch."""

import os
import re
from collections.abc import Sequence
from itertools import takewhile

VARIABLE = "CUDA_VISIBLE_DEVICES"
ASSIGNED = "TLKIT_DEVICES"
"""Environment variable in which a pool tells its workers which device each gets."""


def visible() -> list[str]:
    """Returns the NVIDIA devices that this process may use, each as it is named in ``CUDA_VISIBLE_DEVICES``."""
    given = os.environ.get(VARIABLE)
    if given is None:
        return [str(number) for number in range(_count())]
    # CUDA stops at the first name that is none; -1 hides all devices
    return list(takewhile(re.compile(r"\d+$|GPU-|MIG-").match, map(str.strip, given.split(","))))


def assign(names: Sequence[str]) -> None:
    """Leaves in the environment which device each worker gets that this process will start, in their order.

    Args:
        names: one for each worker: a number counts the devices that this process may use, beginning again after the
            last; anything else is the name of a device.
    """
    devices = visible()
    chosen = [devices[int(name) % len(devices)] if name.isdigit() and devices else name for name in names]
    if chosen:
        os.environ[ASSIGNED] = ",".join(chosen)


def take() -> None:
    """Lets this worker see its device and no other; before torch is imported.

    Parsl's own choice divides numbers by those of workers and of all cards in the machine: it misses where a job may
    use only some of them, or has room for fewer workers than names.
    """
    if devices := os.environ.get(ASSIGNED):
        os.environ[VARIABLE] = devices.split(",")[int(os.environ["PARSL_WORKER_RANK"])]


def _count() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
