"""Energy of processors, on a tree like /sys/class/powercap."""

from pathlib import Path

import pytest
from fake_machine import Clock, Powercap
from tlkit_callbacks.energy.counter import Counter
from tlkit_callbacks.energy.meter import Meter
from tlkit_callbacks.energy.rapl import zones
from tlkit_callbacks.energy.rows import Total


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tree(tmp_path: Path, clock: Clock) -> Powercap:
    return Powercap(tmp_path, clock)


def only(tree: Powercap, clock: Clock) -> Counter:
    (counter,), faults = zones(clock, tree.root)
    assert not faults
    return counter


def test_packages_and_memory_count_once_and_nothing_that_is_part_of_them(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0", 100)
    tree.zone("intel-rapl:0:0", "core", 70)
    tree.zone("intel-rapl:0:1", "uncore", 5)
    tree.zone("intel-rapl:0:2", "dram", 8)
    tree.zone("intel-rapl:1", "package-1", 50)
    tree.zone("intel-rapl:1:0", "dram", 4)
    tree.zone("intel-rapl:2", "psys", 180)
    tree.zone("intel-rapl-mmio:0", "package-0", 100)
    (tree.root / "intel-rapl").mkdir()
    counters, faults = zones(clock, tree.root)
    meters = {counter.device: Meter(counter, Total()) for counter in counters}
    clock.advance(10)
    joules = {device: meter.edge(True).joules for device, meter in meters.items()}
    expected = {"package-0": 1000, "package-0 dram": 80, "package-1": 500, "package-1 dram": 40}
    assert (joules, faults) == (pytest.approx(expected), [])


def test_registers_in_memory_serve_where_they_are_the_only_view(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl-mmio:0", "package-0", 100)
    assert only(tree, clock).device == "package-0"


def test_the_dies_of_a_package_count_each(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0-die-0", 100)
    tree.zone("intel-rapl:1", "package-0-die-1", 100)
    assert [counter.device for counter in zones(clock, tree.root)[0]] == ["package-0-die-0", "package-0-die-1"]


def test_a_wrap_is_added_and_not_a_loss(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0", 200, joules=262_000)
    meter = Meter(only(tree, clock), Total())
    clock.advance(10)
    assert tree.joules["intel-rapl:0"] < 3000
    assert meter.edge(True).joules == pytest.approx(2000)


def test_an_error_of_reading_is_a_gap_and_neither_0_nor_a_wrap(tree: Powercap, clock: Clock) -> None:
    energy = tree.zone("intel-rapl:0", "package-0", 200, joules=100_000) / "energy_uj"
    meter = Meter(only(tree, clock), Total())
    energy.unlink()
    energy.mkdir()
    clock.advance(10)
    window = meter.edge(True)
    assert (window.joules, window.fault[:30]) == (None, "could not be read: energy_uj: ")
    energy.rmdir()
    clock.advance(10)
    assert meter.edge(True).joules is None
    clock.advance(10)
    assert meter.edge(True).joules == pytest.approx(2000)
    assert meter.total().joules == pytest.approx(6000) and not meter.total().fault


def test_a_counter_set_back_is_not_taken_for_a_wrap(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0", 50, joules=100_000)
    meter = Meter(only(tree, clock), Total())
    tree.joules["intel-rapl:0"] = 0
    clock.advance(2)
    window = meter.edge(True)
    assert (window.joules, window.fault) == (None, "the counter jumped by 162244 J in 2.000 s")


def test_an_unreadable_range_leaves_the_counter_usable_until_it_wraps(tree: Powercap, clock: Clock) -> None:
    folder = tree.zone("intel-rapl:0", "package-0", 200, joules=261_000)
    (folder / "max_energy_range_uj").unlink()
    meter = Meter(only(tree, clock), Total())
    clock.advance(5)
    assert meter.edge(True).joules == pytest.approx(1000)
    clock.advance(5)
    window = meter.edge(True)
    assert (window.joules, "range at which it wraps cannot be read" in window.fault) == (None, True)


def test_a_window_of_several_possible_wraps_is_invalid_unless_it_was_read_between(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0", 600)
    counter = only(tree, clock)
    meter = Meter(counter, Total())
    clock.advance(600)  # 360 kJ of a range of 262 kJ
    window = meter.edge(True)
    assert (window.joules, "more than once" in window.fault) == (None, True)
    for _ in range(int(600 / counter.interval) + 1):
        clock.advance(600 / (int(600 / counter.interval) + 1))
        counter.update()
    assert meter.edge(True).joules == pytest.approx(360_000)


def test_a_small_range_is_read_before_it_can_wrap_twice(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "dram", 5, wraps_at=65_712.999613)
    assert only(tree, clock).interval < 65_713 / 1000


def test_what_only_root_may_read_is_named_once_with_the_remedy(
    tree: Powercap, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.zone("intel-rapl:0", "package-0", 100)
    tree.zone("intel-rapl:0:0", "dram", 10)
    read = Path.read_text

    def refuse(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_text", refuse)  # tests run as root, too
    counters, (fault,) = zones(clock, tree.root)
    assert counters == []
    assert fault.startswith("package-0, package-0 dram: only root may read it; sudo chmod a+r ")


def test_a_counter_that_stands_still_as_in_a_virtual_machine_is_not_used(tree: Powercap, clock: Clock) -> None:
    tree.zone("intel-rapl:0", "package-0", 0, joules=0)
    assert zones(clock, tree.root) == ([], ["package-0: its counter does not change"])


def test_no_tree_is_no_counter_and_no_fault(clock: Clock, tmp_path: Path) -> None:
    assert zones(clock, tmp_path / "powercap") == ([], [])
