"""Peak memory: of the accelerator that trains, else of this process."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PEAK = "5"  # proc(5): resets the peak of the resident set


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory in use since `reset_peak`, in bytes: on the accelerator, else of this process."""
    module = torch.get_device_module(device)
    if hasattr(module, "max_memory_allocated"):
        return int(module.max_memory_allocated(device))
    if _STATUS.exists():  # Linux, where ru_maxrss keeps the peak of the process that started this one
        lines = _STATUS.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))  # kB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak(device: torch.device) -> None:
    """Starts the record anew, so that a run in a warm process does not report the largest one before it.

    Only Linux can do so for a process; elsewhere its peak counts from its beginning.
    """
    module = torch.get_device_module(device)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        with contextlib.suppress(PermissionError):  # a container may hide it
            _CLEAR.write_text(_PEAK)
