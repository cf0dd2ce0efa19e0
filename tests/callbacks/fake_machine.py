"""A machine for `EnergyMonitor`: a clock set by hand, processors in a sysfs tree, NVIDIA cards in a C library."""

import atexit
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pynvml
import pytest
from lightning.pytorch import Trainer
from tlkit_callbacks.energy.counter import Counter
from tlkit_callbacks.energy_monitor import EnergyMonitor

NO_ENERGY, NO_POWER, NO_RIGHTS, STUBBORN, DIVIDED, LOST = (1 << bit for bit in range(6))
"""What a card of the C library cannot do, or is; see fake_nvml.c."""


class Clock:
    """Seconds, and the energy of one device: 10 W, and more where `advance` says so."""

    def __init__(self) -> None:
        self.now, self.joules = 1000.0, 5000.0
        self.listeners: list[Callable[[float], None]] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float, watts: float = 10) -> None:
        self.now += seconds
        self.joules += seconds * watts
        for listener in self.listeners:
            listener(seconds)

    def counter(self, device: str = "meter", factor: float = 1) -> Counter:
        """A counter of that energy, which renews itself whenever the clock moves."""
        return Counter(device, "scripted", lambda: self.joules * factor, self)


class Scripted(EnergyMonitor):
    """Measures with given counters on a given clock."""

    def __init__(self, clock: Clock, *factors: float) -> None:
        super().__init__()
        self.clock = clock
        self.factors = factors

    def counters(self, trainer: Trainer, card: Any) -> list[Counter]:
        return [self.clock.counter(f"meter {n}", factor) for n, factor in enumerate(self.factors)]


class Powercap:
    """A tree like /sys/class/powercap; zones use their watts as the clock moves."""

    def __init__(self, root: Path, clock: Clock) -> None:
        self.root = root
        self.watts: dict[str, float] = {}
        self.joules: dict[str, float] = {}
        self.range: dict[str, float] = {}
        clock.listeners.append(self.advance)

    def zone(self, path: str, name: str, watts: float, joules: float = 1.0, wraps_at: float = 262144.0) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True)
        (folder / "name").write_text(name + "\n")
        (folder / "max_energy_range_uj").write_text(f"{round(wraps_at * 1e6)}\n")
        self.watts[path], self.joules[path], self.range[path] = watts, joules, wraps_at
        self.advance(0)
        return folder

    def advance(self, seconds: float) -> None:
        for path, watts in self.watts.items():
            self.joules[path] = (self.joules[path] + seconds * watts) % self.range[path]
            file = self.root / path / "energy_uj"
            if not file.exists() or (watts and not file.is_dir()):  # a folder is unreadable even for root
                file.write_text(f"{round(self.joules[path] * 1e6)}\n")


@dataclass(frozen=True)
class FakeCard:
    """A line of the state file; energy in mJ (below 0: by the clock), power and limits in mW."""

    uuid: str
    energy: int = -1
    power: int = 150_000
    limit: int = 300_000
    least: int = 100_000
    greatest: int = 400_000
    celsius: int = 41
    flags: int = 0


class Cards:
    """The state of the C library, in a file."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def set(self, *cards: FakeCard) -> None:
        self.state.write_text("".join(" ".join(map(str, astuple(card))) + "\n" for card in cards))

    def get(self, number: int = 0) -> FakeCard:
        uuid, *numbers = self.state.read_text().splitlines()[number].split()
        return FakeCard(uuid, *map(int, numbers))

    def change(self, **values: int) -> None:
        """Changes the only card."""
        self.set(replace(self.get(), **values))

    def environment(self) -> dict[str, str]:
        return {"FAKE_NVML_STATE": str(self.state)}


@cache
def library(old: bool = False) -> Path:
    """Compiles the C library; skips the test where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    folder = tempfile.mkdtemp(prefix="fake_nvml")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    target = Path(folder) / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("fake_nvml.c")
    subprocess.run([compiler, "-shared", "-fPIC", *(["-DOLD"] if old else []), "-o", target, source], check=True)
    return target


def install(path: Path, set_attribute: Callable[[Any, str, Any], None] = setattr) -> ctypes.CDLL:
    """Lets pynvml use the library instead of the driver's."""
    loaded = ctypes.CDLL(str(path))
    set_attribute(pynvml, "nvmlLib", loaded)
    set_attribute(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return loaded


UUID = "GPU-8f3cd2ab-0000-1111-2222-333344445555"


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One card, in the C library; no user's notes on capped cards. Whoever opens NVML must close it."""
    yield from _cards(tmp_path, monkeypatch, old=False)


@pytest.fixture
def old_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same with an old driver."""
    yield from _cards(tmp_path, monkeypatch, old=True)


def _cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> Any:
    found = Cards(tmp_path / "cards.txt")
    found.set(FakeCard(UUID))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for key, value in found.environment().items():
        monkeypatch.setenv(key, value)
    loaded = install(library(old), monkeypatch.setattr)
    yield found
    assert loaded.fake_opened() == 0
    assert os.environ["FAKE_NVML_STATE"] == str(found.state)
