"""Curves against their equations and against torch's own schedulers, at every update."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler

from tlkit.schedules import (
    cosine_decay,
    cycle_ends,
    cyclic_cosine,
    inverse_sqrt_decay,
    linear_decay,
    linear_warmup,
    momentum_of,
    one_cycle,
    one_cycle_momentum,
    step_decay,
)

LENGTHS = [2, 3, 4, 7, 100]
SHAPES = [(0.3, 10.0, 1e4), (0.25, 25.0, 1e3), (0.9, 3.0, 1.0), (0.01, 10.0, 1e4)]


def same(value: float) -> object:
    return pytest.approx(value, rel=1e-12, abs=1e-15)


def torchs(scheduler: Callable[[Optimizer], lr_scheduler.LRScheduler], updates: int) -> Iterator[dict[str, float]]:
    """Yields torch's parameter group, at a rate of 1, in each update."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    reference = scheduler(optimizer)
    for update in range(updates):
        yield optimizer.param_groups[0]
        optimizer.step()
        if update < updates - 1:
            reference.step()


@pytest.mark.parametrize("every", [1, 3, 30])
def test_step_decay_equals_torchs(every: int) -> None:
    for epoch, group in enumerate(torchs(lambda o: lr_scheduler.StepLR(o, every, gamma=0.1), 100)):
        assert step_decay(epoch, every=every, factor=0.1, start=every) == same(group["lr"])


def test_a_single_drop_stays_down() -> None:
    curve = [step_decay(epoch, every=None, factor=0.1, start=2) for epoch in range(5)]
    assert curve == [1.0, 1.0, 0.1, 0.1, 0.1]


def test_start_zero_drops_before_the_first_update() -> None:
    assert step_decay(0, every=None, factor=0.1, start=0) == 0.1


@pytest.mark.parametrize("steps", LENGTHS)
def test_cosine_decay_equals_its_equation_and_torchs_and_ends_at_zero(steps: int) -> None:
    last = steps - 1
    for t, group in enumerate(torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=last), steps)):
        assert cosine_decay(t, steps) == same((1 + math.cos(t * math.pi / last)) / 2)
        assert cosine_decay(t, steps) == same(group["lr"])
    assert cosine_decay(0, steps) == 1 and cosine_decay(last, steps) == 0


def test_cosine_decay_keeps_its_digits_near_the_end_of_a_long_run() -> None:
    steps = 1_000_001  # there 1 + cos(…) of the equation as it stands has lost all but four of them
    assert cosine_decay(steps - 2, steps) == pytest.approx((math.pi / 2e6) ** 2, rel=1e-11)


@pytest.mark.parametrize("steps", LENGTHS)
def test_linear_decay_equals_its_equation_and_torchs_and_ends_at_zero(steps: int) -> None:
    last = steps - 1
    for t, group in enumerate(torchs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, total_iters=last), steps)):
        assert linear_decay(t, steps) == same(1 - t / last)
        assert linear_decay(t, steps) == same(group["lr"])
    assert linear_decay(last, steps) == 0


def test_inverse_sqrt_decay_counts_updates_from_one() -> None:
    assert [inverse_sqrt_decay(t) for t in range(4)] == [1, same(1 / math.sqrt(2)), same(1 / math.sqrt(3)), 0.5]


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize(("p", "div", "final"), SHAPES)
def test_one_cycle_equals_its_equations(steps: int, p: float, div: float, final: float) -> None:
    last, low, high = steps - 1, 0.85, 0.95
    for t in range(steps):
        if t <= p * last:
            up = (1 - math.cos(math.pi * t / (p * last))) / 2
            rate, momentum = 1 / div + (1 - 1 / div) * up, high - (high - low) * up
        else:
            angle = math.pi * (t - p * last) / ((1 - p) * last)
            rate = 1 / final + (1 - 1 / final) * (1 + math.cos(angle)) / 2
            momentum = low + (high - low) * (1 - math.cos(angle)) / 2
        assert one_cycle(t, steps, pct_start=p, div_factor=div, final_div_factor=final) == same(rate)
        assert one_cycle_momentum(t, steps, pct_start=p, low=low, high=high) == same(momentum)


@pytest.mark.parametrize("steps", LENGTHS[2:])
@pytest.mark.parametrize(("p", "div", "final"), SHAPES[:3])
def test_one_cycle_equals_torchs_with_its_parameters_mapped(steps: int, p: float, div: float, final: float) -> None:
    def scheduler(optimizer: Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=steps,
            pct_start=(p * (steps - 1) + 1) / steps,
            div_factor=div,
            final_div_factor=final / div,
        )

    for t, group in enumerate(torchs(scheduler, steps)):
        assert one_cycle(t, steps, pct_start=p, div_factor=div, final_div_factor=final) == same(group["lr"])
        assert one_cycle_momentum(t, steps, pct_start=p, low=0.85, high=0.95) == same(group["momentum"])


@pytest.mark.parametrize(("steps", "rates"), [(1, [0.1]), (2, [0.1, 1e-4])])
def test_one_cycle_of_very_few_updates_has_its_first_and_then_its_last_rate(steps: int, rates: list[float]) -> None:
    found = [one_cycle(t, steps, pct_start=0.3, div_factor=10, final_div_factor=1e4) for t in range(steps)]
    assert found == [same(rate) for rate in rates]
    assert one_cycle_momentum(steps - 1, steps, pct_start=0.3, low=0.85, high=0.95) == same(0.95)


def test_curves_of_one_update_are_at_their_start() -> None:
    assert cosine_decay(0, 1) == linear_decay(0, 1) == cyclic_cosine(0, 1, 1) == inverse_sqrt_decay(0) == 1


@pytest.mark.parametrize(("steps", "cycles"), [(12, 3), (11, 3), (100, 7), (5, 5), (9, 1)])
def test_cycles_are_whole_cosines_and_as_equally_long_as_integers_allow(steps: int, cycles: int) -> None:
    ends = cycle_ends(steps, cycles)
    lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
    assert len(lengths) == cycles and sum(lengths) == steps and max(lengths) - min(lengths) <= 1
    expected = [cosine_decay(t, length) for length in lengths for t in range(length)]
    assert [cyclic_cosine(t, steps, cycles) for t in range(steps)] == expected


def test_cycles_equal_torchs_warm_restarts_but_for_the_update_at_the_end_of_each() -> None:
    ours = [cyclic_cosine(t, 30, 3) for t in range(30)]  # torch starts anew where ours is at 0
    assert [ours.pop(end - 1) for end in (30, 20, 10)] == [0, 0, 0]
    theirs = [group["lr"] for group in torchs(lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=9), 27)]
    assert ours == [same(rate) for rate in theirs]


def test_a_warmup_rises_to_one_in_its_last_update() -> None:
    assert [linear_warmup(t, 4) for t in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert linear_warmup(0, 0) == 1


def test_momentum_is_beta_one_of_adams_kin() -> None:
    weights = [torch.zeros(1, requires_grad=True)]
    found = [momentum_of(o.param_groups[0]) for o in (SGD(weights, momentum=0.8), AdamW(weights), SGD(weights))]
    assert found == [0.8, 0.9, None]
