"""NVIDIA cards through the real pynvml, with a C library in the driver's place."""

import logging
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch
from fake_machine import DIVIDED, LOST, NO_ENERGY, NO_POWER, NO_RIGHTS, UUID, Cards, Clock, FakeCard, cards, old_cards
from tlkit_callbacks.energy import rapl, sources
from tlkit_callbacks.energy.counter import PowerIntegral, Unreadable
from tlkit_callbacks.energy.devices import card_of, tokens
from tlkit_callbacks.energy.nvml import Card, Denied, counter_of, opened
from tlkit_callbacks.energy.sources import open_card, open_counters

__all__ = ["cards", "old_cards"]

TWO = (FakeCard(UUID), FakeCard("GPU-8f9a0000-0000-1111-2222-333344445555"))


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Level and text of what is said, as it is said for the first time."""
    said: list[tuple[str, str]] = []
    say = lambda level, text, *arguments: said.append((logging.getLevelName(level), text % arguments))  # noqa: E731
    monkeypatch.setattr(sources.log, "log", say)
    sources.say.cache_clear()
    return lambda: said


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, 0),
        ("0,1", 0),
        ("1,0", 1),
        (" 1 , 0", 1),
        ("1,-1,0", 1),
        (UUID, 0),
        (TWO[1].uuid, 1),
        ("GPU-8f9", 1),
        ("GPU-8F3", 0),
        (f"{TWO[1].uuid},{UUID}", 1),
        ("MIG-" + TWO[1].uuid[4:], 1),
        (f"MIG-{TWO[1].uuid}/1/0", 1),
        (f"MIG-{TWO[1].uuid}/1/0,0", 1),
    ],
)
def test_every_form_of_a_visible_device_is_resolved(
    visible: str | None, found: int, cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards.set(*TWO)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with opened():
        card = card_of(0)
    assert (card.uuid, card.name) == (TWO[found].uuid, f"Fake {found}")
    assert card.shared == ("MIG" in str(visible))


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("", "CUDA_VISIBLE_DEVICES= names no device 0"),
        ("-1", "names no device 0"),
        ("-1,0", "names no device 0"),
        ("NoDevFiles", "names no device 0"),
        ("none", "names no device 0"),
        ("7", "no card for '7'"),
        ("GPU-8f", "2 cards have a UUID that begins like this"),
        ("GPU-8f3cd2ab-ffff", "0 cards"),
        ("MIG-nobody", "Not Found"),
        ("MIG-GPU-nobody/1/0", "0 cards"),
    ],
)
def test_a_visible_device_that_is_none_costs_one_warning_and_the_energy_is_unknown(
    visible: str, reason: str, cards: Cards, monkeypatch: pytest.MonkeyPatch, messages: Any
) -> None:
    cards.set(*TWO)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with ExitStack() as undo:
        assert open_card(0, undo) is None
        assert open_card(0, undo) is None
    ((level, message),) = messages()
    assert level == "WARNING" and "the energy of cuda:0 is not measured: " in message and reason in message


def test_tokens_end_at_the_first_that_is_none_and_numbers_where_their_digits_end() -> None:
    assert tokens("0,2,-1,1") == ["0", "2"]
    assert tokens("1gpu2, 2ampere") == ["1", "2"]
    assert tokens("0,,1") == ["0"]
    assert tokens("MIG-GPU-a/1/0 ,GPU-b") == ["MIG-GPU-a/1/0", "GPU-b"]


def test_once_cuda_runs_it_is_asked_itself_as_it_counts_in_another_order(
    cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards.set(*TWO)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    answer = SimpleNamespace(uuid=TWO[1].uuid.removeprefix("GPU-"))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: answer)
    with opened():
        assert card_of(0).uuid == TWO[1].uuid


def test_a_number_of_a_divided_card_means_a_part_of_it_and_that_is_said(cards: Cards, messages: Any) -> None:
    cards.change(flags=DIVIDED)
    with ExitStack() as undo:
        card = open_card(0, undo)
    assert card is not None and card.label == f"Fake 0 {UUID} (whole card)"
    assert messages() == [
        (
            "WARNING",
            f"EnergyMonitor: cuda:0 is a part (MIG) of {card.label}: what its other parts use is counted too",
        )
    ]


def test_a_card_that_has_failed_does_not_hide_the_others(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> None:
    cards.set(replace(TWO[0], flags=LOST), TWO[1])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", TWO[1].uuid)
    with opened():
        assert card_of(0).uuid == TWO[1].uuid


def test_what_a_card_says_comes_in_joules_watts_and_degrees(cards: Cards) -> None:
    cards.change(energy=2**53 + 1_001, power=250_500)
    with opened():
        card = card_of(0)
        assert card.joules() == pytest.approx((2**53 + 1_001) / 1000, abs=0.01)
        assert card.watts() == 250.5
        assert (card.limit(), card.limits()) == (300_000, (100_000, 400_000))
        assert card.labels() == {"celsius": 41, "cap_watts": 300}


def test_the_energy_counter_is_used_and_its_period_is_measured(cards: Cards) -> None:
    import time

    with opened():
        counter = counter_of(card_of(0), time)
    assert (counter.method, counter.device) == ("nvml energy counter", f"Fake 0 {UUID}")
    assert counter.period == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize("without", ["unsupported", "standing still"])
def test_without_an_energy_counter_power_is_integrated(without: str, cards: Cards) -> None:
    cards.change(**({"flags": NO_ENERGY} if without == "unsupported" else {"energy": 0}))
    clock = Clock()
    with opened():
        counter = counter_of(card_of(0), clock)
        assert isinstance(counter, PowerIntegral) and counter.method == "nvml power"
        clock.advance(2)
        assert counter.update() == ""
    assert counter.joules == pytest.approx(300)


def test_an_old_driver_without_newer_functions_still_gives_power(old_cards: Cards) -> None:
    with opened():
        card = card_of(0)
        with pytest.raises(Unreadable, match="nvmlDeviceGetTotalEnergyConsumption: Function Not Found"):
            card.joules()
        assert card.labels() == {"celsius": 41, "cap_watts": None}
        assert (card.shared, counter_of(card, Clock()).method) == (False, "nvml power")


def test_a_card_that_says_nothing_is_unknown_and_not_0(cards: Cards, messages: Any) -> None:
    cards.change(flags=NO_ENERGY | NO_POWER)
    with opened():
        assert open_counters(card_of(0), False, Clock()) == []
    ((level, message),) = messages()
    assert level == "WARNING"
    assert message.endswith(f"Fake 0 {UUID}: nvmlDeviceGetPowerUsage: Not Supported")


def test_errors_of_the_driver_are_told_apart(cards: Cards) -> None:
    with pytest.raises(Unreadable, match="Uninitialized"):
        card_of(0)
    with opened():
        card = card_of(0)
        cards.change(flags=NO_RIGHTS)
        with pytest.raises(Denied, match="nvmlDeviceSetPowerManagementLimit: Insufficient Permissions"):
            card.set_limit(200_000)
        cards.change(flags=LOST)
        with pytest.raises(Unreadable, match="nvmlDeviceGetPowerUsage: GPU is lost"):
            card.watts()


def test_a_machine_without_a_driver_costs_one_warning(monkeypatch: pytest.MonkeyPatch, messages: Any) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    with ExitStack() as undo:
        assert open_card(0, undo) is None
    assert [level for level, _ in messages()] == ["WARNING"] and "Library Not Found" in messages()[0][1]


def test_a_processor_without_a_counter_is_said_once_in_one_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, messages: Any
) -> None:
    monkeypatch.setattr(rapl, "ROOT", tmp_path)
    for _ in range(2):
        assert open_counters(None, True, Clock()) == []
    expected = f"EnergyMonitor: the energy of the processor is not measured: no counter of it in {tmp_path}"
    assert messages() == [("INFO", expected)]


def test_the_way_of_setting_a_limit_that_throws_errors_away_is_not_used(cards: Cards) -> None:
    with opened():
        card: Card = card_of(0)
        card.set_limit(250_000)
        assert (card.limit(), cards.get().limit) == (250_000, 250_000)
        assert pynvml.nvmlDeviceSetPowerManagementLimit_v2(card.handle, 0, 200_000) == pynvml.NVML_SUCCESS
        assert card.limit() == 250_000
