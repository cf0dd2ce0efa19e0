"""Energy of processors: RAPL counters, as Linux shows them below ``/sys/class/powercap``.

Source: Linux, ``Documentation/power/powercap/powercap.rst`` and ``Documentation/ABI/testing/sysfs-class-powercap``;
which domain contains which: Intel, Software Developer's Manual, volume 3, section "RAPL Domains".
"""

import math
import re
from pathlib import Path

from tlkit_callbacks.energy.counter import Clock, Counter, Lost, Unreadable

ROOT = Path("/sys/class/powercap")
COUNTED = re.compile(r"package-\S+|(package-\S+ )?dram")
MOST_WATTS = 1000.0
"""No package or memory of one socket draws more: the largest sockets of 2025 draw 500 W."""
SLACK = 0.1
"""Seconds by which a counter may lag behind the clock; they renew themselves every millisecond."""
READABLE = f"sudo chmod a+r {ROOT}/intel-rapl:*/energy_uj"


class Zone(Counter):
    """A counter that starts again at 0 when it has reached its range.

    Args:
        device: name of the zone.
        path: of its folder.
        clock: for the time between two readings.
    """

    def __init__(self, device: str, path: Path, clock: Clock) -> None:
        try:
            self._range: float | None = _joules(path / "max_energy_range_uj")
        except Unreadable:
            self._range = None
        # twice in the time in which it may wrap once
        interval = math.inf if self._range is None else self._range / MOST_WATTS / 2
        super().__init__(device, "rapl", lambda: _joules(path / "energy_uj"), clock, interval=interval)

    def between(self, before: float, after: float, seconds: float) -> float:
        """Returns joules; see the base class."""
        joules = after - before
        if joules < 0 and self._range is None:
            raise Lost("the counter went backwards, and the range at which it wraps cannot be read")
        if self._range is not None and seconds * MOST_WATTS > self._range:
            raise Lost(f"not read for {seconds:.0f} s, in which the counter may have wrapped more than once")
        joules += self._range if joules < 0 and self._range is not None else 0
        if joules > MOST_WATTS * (seconds + SLACK):  # set back, as by sleep, and not wrapped
            raise Lost(f"the counter jumped by {joules:.0f} J in {seconds:.3f} s")
        return joules


def zones(clock: Clock, root: Path = ROOT) -> tuple[list[Counter], list[str]]:
    """Finds what adds up to the energy of all processors: packages, and memory, which is not part of a package.

    Left out: cores and graphics, which are part of a package; ``psys``, of which a package is a part; the second view
    of a package through memory-mapped registers (``intel-rapl-mmio``).

    Args:
        clock: for the counters.
        root: of the powercap tree.

    Returns:
        The counters, and why zones that exist cannot be read.
    """
    found: dict[str, Path] = {}
    for path in [*sorted(root.glob("intel-rapl:*")), *sorted(root.glob("intel-rapl-mmio:*"))]:
        found.setdefault(_name(path, root), path)  # the first view of each
    counters: list[Counter] = []
    faults: dict[str, list[str]] = {}
    for name, path in found.items():
        if COUNTED.fullmatch(name):
            try:
                counters.append(Zone(name, path, clock))
            except Unreadable as error:
                faults.setdefault(str(error), []).append(name)
    return counters, [f"{', '.join(names)}: {reason}" for reason, names in faults.items()]


def _name(path: Path, root: Path) -> str:
    """Returns a zone's name, after that of the zone it is a part of: ``package-0 dram``."""
    try:
        own = (path / "name").read_text().strip()
    except OSError:
        own = path.name
    parent, _, number = path.name.rpartition(":")
    return f"{_name(root / parent, root)} {own}" if ":" in parent and number else own


def _joules(path: Path) -> float:
    try:
        return int(path.read_text()) / 1e6
    except PermissionError as error:
        raise Unreadable(f"only root may read it; {READABLE} lets everyone, until the next start") from error
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path.name}: {error}") from error
