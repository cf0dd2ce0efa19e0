"""OneCycle: rate and momentum of every update, in every way a run can be long, cut short, resumed or extended."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, snapshot, trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from recorded import Recorded, data, endless, fit, scaler, whole_and_resumed
from tlkit_callbacks.one_cycle import OneCycle
from torch.utils.data import DataLoader
from toy import ToyNet
from two_processes import gloo

from tlkit.errors import UserError
from tlkit.tasks import Classification

PEAK, P, DIV, FINAL, LOW, HIGH = 0.1, 0.3, 10.0, 1e4, 0.85, 0.95


def equations(updates: int, peak: float = PEAK) -> tuple[list[float], list[float]]:
    """Equations 10.5 and 10.6 as they stand, with T = updates - 1."""
    eta_min, eta_final, last = peak / DIV, peak / FINAL, updates - 1
    rates, momenta = [], []
    for t in range(updates):
        if t <= P * last:
            cosine = math.cos(math.pi * t / (P * last))
            rates.append(eta_min + (peak - eta_min) * (1 - cosine) / 2)
            momenta.append(HIGH - (HIGH - LOW) * (1 - cosine) / 2)
        else:
            cosine = math.cos(math.pi * (t - P * last) / ((1 - P) * last))
            rates.append(eta_final + (peak - eta_final) * (1 + cosine) / 2)
            momenta.append(LOW + (HIGH - LOW) * (1 - cosine) / 2)
    return rates, momenta


def same(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-12)


def check(module: Recorded, updates: int) -> None:
    rates, momenta = equations(updates)
    assert module.of_first == same(rates)
    assert [momentum for momentum, *_ in module.momenta] == same(momenta)
    assert module.of_first[-1] == pytest.approx(PEAK / FINAL, rel=1e-12)


LENGTHS: dict[str, tuple[int, dict[str, Any], DataLoader[Any]]] = {
    "epochs": (9, {"epochs": 3}, data()),
    "accumulation": (9, {"epochs": 3, "accumulate_grad_batches": 3}, data(7)),
    "accumulation over more than an epoch": (3, {"epochs": 3, "accumulate_grad_batches": 9}, data(7)),
    "max_steps": (10, {"epochs": -1, "max_steps": 10}, data()),
    "max_steps before max_epochs": (10, {"epochs": 9, "max_steps": 10}, data()),
    "max_epochs before max_steps": (6, {"epochs": 2, "max_steps": 10}, data()),
    "max_steps with accumulation": (5, {"epochs": 9, "max_steps": 5, "accumulate_grad_batches": 2}, data()),
    "a number of batches": (6, {"epochs": 3, "limit_train_batches": 2}, data(5)),
    "a part of the batches": (9, {"epochs": 3, "limit_train_batches": 0.5}, data(6)),
    "the last batch is partial": (9, {"epochs": 3}, data(3, last=1)),
    "the last batch is dropped": (6, {"epochs": 3}, data(3, last=1, drop_last=True)),
    "data without a length and max_steps": (7, {"epochs": -1, "max_steps": 7}, endless()),
    "data without a length and a limit": (8, {"epochs": 2, "limit_train_batches": 4}, endless()),
    "bf16": (6, {"precision": "bf16-mixed"}, data()),
    "two updates": (2, {"epochs": 1}, data(2)),
    "three updates": (3, {"epochs": 1}, data(3)),
}


@pytest.mark.parametrize(("updates", "arguments", "batches"), LENGTHS.values(), ids=LENGTHS)
def test_rate_and_momentum_follow_the_equations_and_the_last_update_is_at_the_end(
    updates: int, arguments: dict[str, Any], batches: DataLoader[Any], tmp_path: Path
) -> None:
    module = Recorded(lr=PEAK)
    fit(module, batches, tmp_path, OneCycle(), **arguments)
    check(module, updates)


def test_accumulation_that_changes_with_the_epoch(tmp_path: Path) -> None:
    module = Recorded(lr=PEAK)
    accumulation = GradientAccumulationScheduler({0: 1, 1: 2, 2: 4})
    fit(module, data(5), tmp_path, OneCycle(), accumulation, epochs=4)
    check(module, 5 + 3 + 2 + 2)


def test_a_run_of_one_update_is_at_the_first_rate(tmp_path: Path) -> None:
    module = Recorded(lr=PEAK)
    fit(module, data(1), tmp_path, OneCycle(), epochs=1)
    assert (module.of_first, module.momenta) == ([pytest.approx(PEAK / DIV)], [[HIGH]])


@pytest.mark.parametrize(("optimizer", "arguments"), [("AdamW", {}), ("RMSprop", {"momentum": 0.9}), ("NAdam", {})])
def test_the_momentum_of_other_optimizers_is_coupled(optimizer: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    module = Recorded(optimizer, lr=PEAK, **arguments)
    fit(module, data(), tmp_path, OneCycle(), epochs=2)
    check(module, 6)


def test_without_coupling_momentum_stays_as_it_is(tmp_path: Path) -> None:
    for module, momentum in (Recorded("SGD", momentum=0.8), 0.8), (Recorded("Adagrad"), 0):
        fit(module, data(), tmp_path, OneCycle(momentum_min=None, momentum_max=None), epochs=2)
        assert module.momenta == [[momentum]] * 6
        assert module.of_first == same(equations(6)[0])


def test_peak_lr_takes_the_place_of_lr_and_keeps_the_ratios_of_the_groups(tmp_path: Path) -> None:
    module = Recorded(lr=PEAK, scales={"conv1": 0.1, "conv2": 0.0})
    fit(module, data(), tmp_path, OneCycle(peak_lr=0.5), epochs=2)
    rates, momenta = equations(6, peak=0.5)
    assert module.by_update == [same([0.1 * rate, 0.0, rate]) for rate in rates]
    assert module.momenta == [same([momentum] * 3) for momentum in momenta]


def test_a_warm_up_comes_before_the_cycle(tmp_path: Path) -> None:
    module = Recorded(lr=PEAK)
    fit(module, data(), tmp_path, OneCycle(warmup=2), epochs=3)
    rates, momenta = equations(7)
    assert module.of_first == same([rates[0] / 2, rates[0], *rates])
    assert [momentum for momentum, *_ in module.momenta] == same([HIGH, HIGH, *momenta])


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_the_scaler_skips_does_not_advance_it(fused: bool, tmp_path: Path) -> None:
    module = Recorded("AdamW", overflow=(1, 2, 5), lr=PEAK, fused=fused)
    assert fit(module, data(), tmp_path, OneCycle(), epochs=3, plugins=[scaler()]).global_step == 9
    assert module.of_first == same(equations(9)[0][:6])


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_that_is_resumed_and_made_longer_goes_to_the_new_end(stop: int, tmp_path: Path) -> None:
    checkpoint = tmp_path / "last.ckpt"
    fit(Recorded(lr=PEAK), data(), tmp_path, OneCycle(), epochs=stop).save_checkpoint(checkpoint)
    resumed = Recorded(lr=PEAK)
    fit(resumed, data(3), tmp_path, OneCycle(), epochs=5, checkpoint=checkpoint)
    rates, momenta = equations(15)
    assert resumed.of_first == same(rates[3 * stop :])
    assert [momentum for momentum, *_ in resumed.momenta] == same(momenta[3 * stop :])


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_of_a_task_ends_as_the_uninterrupted_one_bit_for_bit(stop: int, tmp_path: Path) -> None:
    whole, resumed = whole_and_resumed(lambda: [OneCycle()], stop, tmp_path)
    assert not changed(resumed, snapshot(whole))


def rates_of(rank: int, directory: str) -> list[float]:
    module = Recorded(lr=PEAK)
    parallel: dict[str, Any] = {"strategy": "ddp", "devices": 2, "accumulate_grad_batches": 2}
    fit(module, data(9), directory, OneCycle(), epochs=2, **parallel)
    return module.of_first


def test_two_processes_share_the_data_and_have_the_same_rates(tmp_path: Path) -> None:
    for rates in gloo(rates_of, str(tmp_path)):
        assert rates == same(equations(6)[0])  # 5 of the 9 batches each, in windows of 2, 2 and 1


@pytest.mark.parametrize(
    ("arguments", "batches", "message"),
    [
        ({"max_time": "00:01:00:00"}, data(), "OneCycle: .* got max_time, which ends it at no known update"),
        ({"epochs": -1}, data(), "OneCycle: .* got neither max_epochs nor max_steps"),
        ({"epochs": 2}, endless(), "OneCycle: .* got data without a length; give trainer.max_steps"),
        ({"epochs": 2, "max_steps": 9}, endless(), "got data without a length; give trainer.max_steps and no max_epo"),
    ],
)
def test_a_run_of_unknown_length_is_refused(
    arguments: dict[str, Any], batches: DataLoader[Any], message: str, tmp_path: Path
) -> None:
    module = Recorded()
    with pytest.raises(UserError, match=message):
        fit(module, batches, tmp_path, OneCycle(), **arguments)
    assert not module.by_update


def test_a_warm_up_as_long_as_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a warm-up shorter than the run, got 6 of its 6 updates"):
        fit(Recorded(), data(), tmp_path, OneCycle(warmup=6))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (ForeignModule("SGD"), "got SGD without, give it momentum: 0.9; set momentum_min and momentum_max to null"),
        (ForeignModule("Adagrad"), "got Adagrad without; set momentum_min and momentum_max to null"),
        (ForeignModule("Adam", betas=(0.0, 0.999)), "got Adam without; set"),
    ],
)
def test_an_optimizer_without_momentum_is_refused(module: ForeignModule, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fit(module, data(), tmp_path, OneCycle())


def test_the_optimizer_of_a_task_is_checked_before_there_is_a_run(tmp_path: Path) -> None:
    one_cycle = OneCycle(peak_lr=0.5)
    built = trainer(tmp_path, one_cycle)
    one_cycle.check(built, Classification(ToyNet()))
    with pytest.raises(UserError, match="got SGD without, give it momentum"):
        one_cycle.check(built, Classification(ToyNet(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1)))
    with pytest.raises(UserError, match="expected SGD with an lr above 0, which peak_lr can replace"):
        one_cycle.check(
            built, Classification(ToyNet(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0, momentum=0.9))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"peak_lr": 0.0}, "peak_lr above 0, got 0.0"),
        ({"pct_start": 0.0}, "pct_start above 0 and below 1, got 0.0"),
        ({"pct_start": 30}, "pct_start above 0 and below 1, got 30"),
        ({"div_factor": 0.5}, "at least 1, got 0.5 and 10000.0"),
        ({"momentum_min": None}, "or null for both, got one"),
        ({"momentum_min": 0.96}, "got momentum_min 0.96 and momentum_max 0.95"),
        ({"warmup": -1}, "OneCycle: expected warmup to be at least 0 updates, got -1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OneCycle(**arguments)
