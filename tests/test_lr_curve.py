"""What is read off curves whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from tlkit.lr_curve import LRRange, Mode, diverged, read_curve, smooth

RATES = np.geomspace(1e-7, 10, 81)  # ten to a decade
DECADES = np.log10(RATES)


def course(decades: np.ndarray) -> np.ndarray:
    """2 up to rate 1e-5, falls to 1.75 at 1e-4, then thrice as steeply to 1 at 1e-3, stays there to 1e-1, and rises."""
    return np.interp(decades, [-5, -4, -3, -1, 0], [2, 1.75, 1, 1, 9])


def read(values: np.ndarray, rates: np.ndarray = RATES, mode: Mode = "min", planned: int = 10) -> LRRange:
    """Reads a curve; of 10 planned points a tenth is one: nothing is smoothed."""
    return read_curve(rates.tolist(), values.tolist(), planned=planned, metric="val/x", mode=mode)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_curve_without_noise_gives_the_rates_it_was_made_from(mode: Mode) -> None:
    values = course(DECADES)
    curve = read(values if mode == "min" else 5 - values, mode=mode)
    steepest, valley, tenth = (np.log10(rate) for rate in curve.suggestions.values())
    assert list(curve.suggestions) == ["steepest", "valley", "minimum/10"]
    assert -4 <= steepest <= -3
    assert valley == pytest.approx(-4)  # half way from 1e-5 to 1e-3
    assert tenth == pytest.approx(-4)
    assert curve.band is not None
    low, high = np.log10(curve.band)
    assert low == pytest.approx(-4.6)  # the first point with a tenth of the improvement, 0.1 of 0.25 per decade
    assert high == pytest.approx(-3)  # 0.95 are reached at 1.05 on the way from 1.75 to 1: between -3.1 and -3
    assert curve.one_cycle == {"peak_lr": 0.001, "div_factor": 25}  # 40, which is more than anyone uses
    assert curve.remark is None


def test_the_divisor_of_one_cycle_reaches_down_to_where_the_curve_improves() -> None:
    values = np.interp(DECADES, [-5.05, -4.05, 0], [2, 1, 1])
    assert read(values).band == pytest.approx((10**-4.9, 10**-4.1))  # 0.1 and 0.95 of the way: -4.95 and -4.1
    assert (read(values).one_cycle or {})["div_factor"] == 6  # 10 ** 0.8 = 6.3


def test_smoothing_is_a_mean_that_forgets_and_starts_without_a_bias() -> None:
    values = np.random.default_rng(0).normal(5, 1, 30)
    keep = 0.9
    for n, smoothed in enumerate(smooth(values, 10), start=1):
        weights = keep ** np.arange(n)[::-1]
        assert smoothed == pytest.approx(np.average(values[:n], weights=weights))


@pytest.mark.parametrize("seed", range(5))
def test_smoothing_neither_shifts_the_curve_nor_lets_the_noise_choose(seed: int) -> None:
    rates = np.geomspace(1e-7, 10, 100)
    noise = np.random.default_rng(seed).normal(0, 0.1, 100)
    curve = read(course(np.log10(rates)) + noise, rates, planned=100)
    assert -4.5 <= np.log10(curve.suggestions["steepest"]) <= -2.8
    assert curve.band is not None
    assert np.log10(curve.band) == pytest.approx((-4.6, -2.7), abs=0.5)


def test_no_suggestion_is_made_up_where_nothing_falls() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    noise = [np.random.default_rng(seed).normal(2, 0.3, 100) for seed in range(200)]
    read_off = [read(values, rates, planned=100) for values in noise]
    assert sum(curve.band is not None for curve in read_off) <= 20  # of 200
    for values in (np.full(100, 2.0), np.linspace(1, 3, 100), np.linspace(2, 1.99, 100)):
        curve = read(values, rates, planned=100)
        assert (curve.suggestions, curve.band, curve.one_cycle) == ({}, None, None)
        assert curve.remark and "no suggestion" in curve.remark and "raise max_lr" in curve.remark


def test_four_batches_that_come_round_in_the_same_order_hide_no_descent() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    rounds = np.tile([-2, 2, -0.5, 0.5], 25)
    assert read(4 + rounds, rates, planned=100).band is None
    falling = np.interp(np.log10(rates), [-2, 0, 1], [4, 2, 2])
    found = read(falling + rounds, rates, planned=100).band
    assert found is not None and -2.2 <= np.log10(found[0]) <= np.log10(found[1]) <= 0.3


def test_a_curve_that_ends_at_its_best_says_that_the_band_may_go_on() -> None:
    rates = np.geomspace(1e-7, 1e-4, 31)
    remark = read(course(np.log10(rates)), rates).remark
    assert remark and "lower bound" in remark and "raise max_lr" in remark


def test_divergence_from_the_start_says_what_to_do() -> None:
    curve = read_curve([1, 2, 3], [2, 9, 99], planned=100, metric="x", mode="min", stopped="diverged")
    assert curve.band is None and curve.remark and "from the start; lower min_lr" in curve.remark


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0, 3.9], False),
        ([2.0, 1.0, 4.1], True),
        ([2.0, 0.001, 0.1], False),  # multiplied, but nowhere near the start
        ([2.0, 0.001, 2.1], True),
        ([-1.0, -5.0, -1.1], False),
        ([-1.0, -5.0, 10.1], True),
    ],
)
def test_a_loss_diverges_above_4_times_its_best_and_above_its_start(losses: list[float], expected: bool) -> None:
    assert diverged(losses, planned=10) is expected


def test_the_result_is_written_as_json_and_as_a_picture(tmp_path: Path) -> None:
    values = course(DECADES)
    curve = read(values)
    curve.save(tmp_path / "x.json", id="abc")
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["rates"] == RATES.tolist() and content["values"] == values.tolist()
    assert content["one_cycle"] == curve.one_cycle and content["id"] == "abc"
    assert tuple(content["band"]) == curve.band
    for picture, drawn in (("x.png", curve), ("flat.png", read(np.full(81, 2.0)))):
        drawn.draw(tmp_path / picture)
        assert (tmp_path / picture).read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flat.png", "x.json", "x.png"]
