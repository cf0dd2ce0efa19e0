"""NVIDIA cards through NVML (module ``pynvml`` of nvidia-ml-py). Nothing is loaded before `opened`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pynvml

from tlkit_callbacks.energy.counter import POWER_INTERVAL, Clock, Counter, PowerIntegral, Unreadable


class Denied(Unreadable):
    """The driver does not let this user do it."""


@contextmanager
def opened() -> Iterator[None]:
    """Opens NVML (``nvmlInit``) for as long as the context lasts.

    Raises:
        Unreadable: there is no NVIDIA driver.
    """
    call(pynvml.nvmlInit)
    try:
        yield
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


@dataclass(frozen=True)
class Card:
    """A physical card.

    Attributes:
        handle: of NVML.
        uuid: ``GPU-…``.
        name: of the product.
        shared: whether the run has a part of it (MIG); what is measured is the whole.
    """

    handle: Any
    uuid: str
    name: str
    shared: bool

    @property
    def label(self) -> str:
        """What it is called in tables and messages."""
        return f"{self.name} {self.uuid}{' (whole card)' if self.shared else ''}"

    def joules(self) -> float:
        """Returns energy since the driver was loaded (``nvmlDeviceGetTotalEnergyConsumption``, Volta or newer)."""
        return float(call(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle)) / 1000

    def watts(self) -> float:
        """Returns the present power (``nvmlDeviceGetPowerUsage``)."""
        return float(call(pynvml.nvmlDeviceGetPowerUsage, self.handle)) / 1000

    def limit(self) -> int:
        """Returns the power limit that was set, in milliwatts (``nvmlDeviceGetPowerManagementLimit``)."""
        return int(call(pynvml.nvmlDeviceGetPowerManagementLimit, self.handle))

    def set_limit(self, milliwatts: int) -> None:
        """Sets the power limit. Not with ``…_v2``: nvidia-ml-py 13 throws its return code away."""
        call(pynvml.nvmlDeviceSetPowerManagementLimit, self.handle, milliwatts)

    def limits(self) -> tuple[int, int]:
        """Returns the least and the greatest power limit, in milliwatts."""
        least, greatest = call(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, self.handle)
        return least, greatest

    def labels(self) -> dict[str, float | None]:
        """Returns temperature in °C and the power limit in force in watts; None where the card does not say."""
        cap = _or_none(pynvml.nvmlDeviceGetEnforcedPowerLimit, self.handle)
        celsius = _or_none(pynvml.nvmlDeviceGetTemperature, self.handle, pynvml.NVML_TEMPERATURE_GPU)
        return {"celsius": celsius, "cap_watts": None if cap is None else cap / 1000}


def counter_of(card: Card, clock: Clock) -> Counter:
    """Returns a counter of a card's energy: its own, else its power over time.

    Raises:
        Unreadable: it says neither.
    """
    try:
        return Counter(card.label, "nvml energy counter", card.joules, clock, card.labels)
    except Unreadable:
        return PowerIntegral(card.label, "nvml power", card.watts, clock, card.labels, POWER_INTERVAL)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of pynvml.

    Raises:
        Denied: the user may not.
        Unreadable: any other error of NVML; also a function that an old driver does not have.
    """
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        kind = Denied if error.value == pynvml.NVML_ERROR_NO_PERMISSION else Unreadable
        raise kind(f"{function.__name__}: {error}") from error


def _or_none(function: Callable[..., Any], *arguments: Any) -> float | None:
    try:
        return float(call(function, *arguments))
    except Unreadable:
        return None
