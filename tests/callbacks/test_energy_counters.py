"""Counters of energy and power on a scripted clock: what they count, and what they say they do not know."""

import threading
from collections.abc import Callable

import pytest
from fake_machine import Clock
from tlkit_callbacks.energy.counter import Counter, PowerIntegral, Sampler, Unreadable, update_period
from tlkit_callbacks.energy.meter import Meter
from tlkit_callbacks.energy.rows import Row, Total, Use, figures


class Device:
    """A reading that is set by hand; None: it gives no answer."""

    def __init__(self, value: float) -> None:
        self.value: float | None = value

    def __call__(self) -> float:
        if self.value is None:
            raise Unreadable("busy")
        return self.value


def counter(device: Callable[[], float], clock: Clock, kind: type[Counter] = Counter) -> Counter:
    """A counter that was seen to renew itself every 0.1 s."""
    ticks = iter(range(1_000_000))
    moving = kind("device", "scripted", lambda: next(ticks), clock, interval=0.1)
    moving._read, moving._last, moving._time, moving.period = device, device(), clock.now, 0.1
    return moving


def test_a_window_is_the_difference_of_the_counter_at_its_edges() -> None:
    clock, device = Clock(), Device(700)
    meter = Meter(counter(device, clock), Total())
    device.value = 1000
    assert (meter.edge(train=True).joules, meter.total()) == (300, Total(300))
    device.value = 1050
    window = meter.edge(train=False)
    assert (window.joules, window.train_joules, meter.total()) == (50, 0, Total(350))


def test_a_counter_that_went_backwards_makes_its_window_invalid_and_says_so() -> None:
    clock, device = Clock(), Device(5000)
    meter = Meter(counter(device, clock), Total())
    device.value = 1
    window = meter.edge(train=True)
    assert (window.joules, window.train_joules, window.fault) == (None, None, "the counter went backwards")
    device.value = 11
    assert (meter.edge(train=True).joules, meter.edge(train=True).fault) == (10, "")
    assert meter.total() == Total(10, "the counter went backwards")


def test_an_edge_that_cannot_be_read_spoils_the_windows_on_both_sides_but_not_the_total() -> None:
    clock, device = Clock(), Device(0)
    meter = Meter(counter(device, clock), Total(1000))
    device.value = None
    assert (meter.edge(True).joules, meter.total().fault) == (None, "could not be read: busy")
    device.value = 70
    after = meter.edge(True)
    assert (after.joules, after.fault) == (None, "could not be read: busy")
    device.value = 100
    assert (meter.edge(True).joules, meter.total()) == (30, Total(1100))


def test_constant_power_counts_however_often_it_is_repeated() -> None:
    for readings in (1, 2, 20):
        clock = Clock()
        meter = Meter(counter(Device(300), clock, PowerIntegral), Total())
        for _ in range(readings):
            clock.advance(2 / readings)
            meter.counter.update()
        assert meter.edge(True).joules == pytest.approx(600)


def test_a_reading_of_power_holds_until_the_next_one_and_edges_are_readings() -> None:
    clock, device = Clock(), Device(100)
    meter = Meter(counter(device, clock, PowerIntegral), Total())
    clock.advance(0.5)
    device.value = 300
    meter.counter.update()
    clock.advance(0.25)
    device.value = 50
    assert meter.edge(True).joules == pytest.approx(100 * 0.5 + 300 * 0.25)
    clock.advance(1)
    assert meter.edge(True).joules == pytest.approx(50)


def test_power_that_nobody_read_for_long_is_lost() -> None:
    clock = Clock()
    meter = Meter(counter(Device(100), clock, PowerIntegral), Total())
    clock.advance(60)
    window = meter.edge(True)
    assert (window.joules, window.fault) == (None, "no reading of power for 60.0 s")


@pytest.mark.parametrize("period", [0.02, 0.1])
def test_the_period_is_measured_from_the_changes(period: float) -> None:
    clock = Clock()
    found = update_period(lambda: clock.now // period, clock)
    assert found == pytest.approx(period, abs=0.0005)
    assert clock.now - 1000 < 7 * period


def test_a_counter_that_never_changes_is_none_but_power_may_be_constant() -> None:
    clock = Clock()
    with pytest.raises(Unreadable, match="does not change"):
        Counter("device", "scripted", lambda: 0, clock)
    assert PowerIntegral("device", "scripted", lambda: 60, clock, interval=0.1).period == 0.1


def row(seconds: float, joules: float | None, period_ms: float, fault: str = "") -> Row:
    use = Use("scripted", joules, joules, 1, fault, period_ms)
    return Row("fit", 0, None, 1, "32-true", None, samples=30, seconds={"train": seconds}, uses={"a": use})


@pytest.mark.parametrize(
    ("measured", "joules", "why"),
    [
        (row(1.01, 5.0, 100), 5.0, ""),
        (row(0.99, 5.0, 100), 5.0, "shorter than 10 periods of the counter (1 s)"),
        (row(2.0, 0.0, 100), None, "the counter did not change"),
        (row(2.0, None, 100, "busy"), None, "a: busy"),
    ],
)
def test_a_row_is_invalid_if_it_is_too_short_or_unknown_and_never_0(measured: Row, joules: object, why: str) -> None:
    measured.seconds |= {"validate": 0, "checkpoint": 0}
    found = figures(measured)
    assert (found["joules"], found["valid"], found["why"]) == (joules, why == "", why)
    per_joule = found["samples_per_joule"]
    assert per_joule == (6.0 if not why else None)


def test_nothing_to_measure_with_is_null_with_method_none() -> None:
    empty = Row("fit", 0, None, 1, "32-true", None, seconds=dict.fromkeys(("train", "validate", "checkpoint"), 1.0))
    found = figures(empty)
    assert (found["joules"], found["watts"], found["method"]) == (None, None, "none")
    assert (found["valid"], found["why"], found["seconds"]) == (False, "nothing to measure with", 3)


def test_the_sampler_reads_what_must_be_read_often_until_it_is_stopped() -> None:
    clock, read = Clock(), threading.Event()

    def power() -> float:
        if threading.current_thread() is not threading.main_thread():
            read.set()
        return 100

    often = PowerIntegral("often", "scripted", power, clock, interval=0.001)
    before = threading.active_count()
    sampler = Sampler([clock.counter(), often])
    assert read.wait(10)
    sampler.stop()
    assert threading.active_count() == before


def test_no_thread_runs_for_counters_that_count_by_themselves() -> None:
    before = threading.active_count()
    sampler = Sampler([Clock().counter()])
    assert threading.active_count() == before
    sampler.stop()
