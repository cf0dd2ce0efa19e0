"""EnergyMonitor on a real NVIDIA GPU. ``pytest -m gpu -s`` prints what the card says of itself."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, trainer
from tlkit_callbacks.energy.devices import card_by_uuid, card_of
from tlkit_callbacks.energy.nvml import Card, counter_of, opened
from tlkit_callbacks.energy.power_cap import check_cap
from tlkit_callbacks.energy_monitor import EnergyMonitor
from torch import Tensor

from tlkit.errors import UserError

pytestmark = pytest.mark.gpu


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with ExitStack() as stack:
        stack.enter_context(opened())
        torch.cuda.init()
        yield card_of(0)


class Busy(ForeignModule):
    """Keeps the card busy for about a tenth of a second per step."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        square = torch.ones(4096, 4096, device=self.device)
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            square = (square @ square) * 0
            torch.cuda.synchronize()
        return super().training_step(batch, batch_idx)


def fit(tmp_path: Path, monitor: EnergyMonitor, **arguments: Any) -> dict[str, Any]:
    trainer(tmp_path, monitor, accelerator="gpu", devices=1, **arguments).fit(Busy(), loader(), loader())
    return monitor.summary()


def test_cuda_and_nvml_mean_the_same_card(card: Card) -> None:
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    assert card_by_uuid(uuid) is not None and (card.uuid == uuid or card.shared)
    assert card.name == torch.cuda.get_device_name(0).partition(" MIG")[0]


def test_the_counter_renews_itself_and_runs_as_power_does(card: Card) -> None:
    counter = counter_of(card, time)
    square, watts, start = torch.ones(4096, 4096, device="cuda"), [], time.perf_counter()
    counter.update()
    before = counter.joules
    while time.perf_counter() - start < 3:
        square = (square @ square) * 0
        torch.cuda.synchronize()
        watts.append(card.watts())
    assert counter.update() == ""
    mean = (counter.joules - before) / (time.perf_counter() - start)
    print(f"\n{card.label}: {counter.method}, period {counter.period * 1000:.1f} ms, {card.labels()}, {mean:.0f} W")
    assert 0.005 < counter.period < 1
    assert mean == pytest.approx(sum(watts) / len(watts), rel=0.35)


def test_a_fit_on_it_has_joules_temperature_and_its_peak_of_memory(card: Card, tmp_path: Path) -> None:
    summary = fit(tmp_path, EnergyMonitor(), epochs=6)
    gpu = summary["devices"][card.label]
    print(f"\n{gpu}")
    assert gpu["valid"] and 10 < gpu["watts"] < 1.2 * card.limits()[1] / 1000
    assert 10 < gpu["celsius"] < 110 and gpu["cap_enforced_watts"] > 0
    assert 4096 * 4096 * 4 < summary["peak_bytes"] < 8e9


def test_a_cap_slows_it_down_and_comes_back_or_says_who_may_set_it(card: Card, tmp_path: Path) -> None:
    least, prior = card.limits()[0], card.limit()
    try:
        check_cap(card, least / 1000)
    except UserError as refused:
        assert "nvidia-smi" in str(refused) or "MIG" in str(refused)
        pytest.skip(f"no permission: {refused}")
    free, capped = fit(tmp_path, EnergyMonitor(), epochs=6), fit(tmp_path, EnergyMonitor(least / 1000), epochs=6)
    print(f"\nfree {free['watts']:.0f} W, capped {capped['watts']:.0f} W at {least / 1000:.0f} W")
    assert card.limit() == prior
    assert capped["devices"][card.label]["cap_enforced_watts"] == pytest.approx(least / 1000)
    assert capped["devices"][card.label]["watts"] < 1.1 * least / 1000


def test_reading_the_counter_takes_milliseconds(card: Card) -> None:
    counter, times = counter_of(card, time), []
    for _ in range(50):
        start = time.perf_counter()
        counter.update()
        counter.labels()
        times.append(time.perf_counter() - start)
    print(f"\nan edge costs {sorted(times)[25] * 1000:.2f} ms")
    assert sorted(times)[25] < 0.1
