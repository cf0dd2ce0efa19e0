"""ReduceOnPlateau: the rate of every epoch, against torch's, and its state across a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import changed, snapshot
from recorded import Keeps, data, fit, whole_and_resumed
from test_plateau import Scripted
from tlkit_callbacks.cosine_decay import CosineDecay
from tlkit_callbacks.reduce_on_plateau import ReduceOnPlateau
from tlkit_callbacks.schedule import Schedule, Segment
from toy import ToyData, ToyNet

from tlkit.errors import UserError
from tlkit.tasks import Classification

VALUES = [5.0, 4.0, 4.5, 3.9, 4.0, 4.0, 4.0, 3.8, float("nan"), 3.9, 3.0, 3.1]
PER_EPOCH = 3


def by_epoch(module: Scripted) -> list[float]:
    rates = module.of_first
    assert all(rates[i] == rates[i - i % PER_EPOCH] for i in range(len(rates)))
    return rates[::PER_EPOCH]


def torchs(mode: str, patience: int, min_delta: float, values: list[float]) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode, factor=0.5, patience=patience, threshold=min_delta, threshold_mode="abs", eps=0
    )
    rates = []
    for value in values:
        rates.append(optimizer.param_groups[0]["lr"])
        reference.step(value)
    return rates


def reduce(patience: int = 2, **arguments: Any) -> ReduceOnPlateau:
    return ReduceOnPlateau("val_loss", factor=0.5, patience=patience, **arguments)


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.5])
def test_the_rates_are_torchs_whose_patience_is_one_less(
    mode: Any, patience: int, min_delta: float, tmp_path: Path
) -> None:
    module = Scripted(*VALUES)
    fit(module, data(), tmp_path, reduce(patience, mode=mode, min_delta=min_delta), epochs=len(VALUES))
    assert by_epoch(module) == pytest.approx(torchs(mode, patience - 1, min_delta, VALUES), rel=1e-12)


def test_the_rate_falls_after_as_many_epochs_as_patience_says(tmp_path: Path) -> None:
    module = Scripted(3, 2, 2, 2, 2, 2, 1)
    fit(module, data(), tmp_path, reduce(), epochs=7)
    assert by_epoch(module) == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.025])


def test_epochs_without_a_validation_do_not_count(tmp_path: Path) -> None:
    module = Scripted(2, 2, 2)
    fit(module, data(), tmp_path, reduce(), epochs=7, check_val_every_n_epoch=2)
    assert by_epoch(module) == pytest.approx([0.1] * 6 + [0.05])


@pytest.mark.parametrize("stop", range(1, 7))
def test_a_resumed_run_goes_on_with_the_same_patience(stop: int, tmp_path: Path) -> None:
    values = [3, 2, 2, 2, 2, 2, 1]
    whole, resumed = Scripted(*values), Scripted(*values[stop:])
    arguments: dict[str, Any] = {"epochs": 7, "enable_checkpointing": True}
    fit(whole, data(), tmp_path, reduce(), Keeps(tmp_path), **arguments)
    fit(resumed, data(), tmp_path, reduce(), Keeps(tmp_path), checkpoint=tmp_path / f"{stop - 1}.ckpt", **arguments)
    assert by_epoch(resumed) == by_epoch(whole)[stop:]


@pytest.mark.parametrize("stop", [2, 4])
@pytest.mark.parametrize("metric", ["val/accuracy", "train/loss"])
def test_a_resumed_task_ends_as_the_uninterrupted_one_bit_for_bit(metric: str, stop: int, tmp_path: Path) -> None:
    made: list[ReduceOnPlateau] = []

    def callbacks() -> list[Any]:
        mode: Any = "max" if metric == "val/accuracy" else "min"
        made.append(ReduceOnPlateau(metric, mode, patience=2, min_delta=10))  # nothing is ever so much better
        return [made[-1]]

    whole, resumed = whole_and_resumed(callbacks, stop, tmp_path, epochs=6)
    assert not changed(resumed, snapshot(whole))
    assert [callback.state_dict()["drops"] for callback in made] == [2, 2]


def test_a_second_run_begins_anew(tmp_path: Path) -> None:
    callback = reduce(1)
    for _ in range(2):
        module = Scripted(1, 1, 1)
        fit(module, data(), tmp_path, callback, epochs=3)
        assert by_epoch(module) == pytest.approx([0.1, 0.1, 0.05])


def test_a_restart_of_the_schedules_begins_anew(tmp_path: Path) -> None:
    class Restarts(Schedule):
        def factor_of(self, group: Any, trainer: Any) -> float:
            return 1.0

        def segment(self, trainer: Any) -> Segment:
            return Segment(9, 3) if trainer.current_epoch >= 3 else Segment()

    module = Scripted(1, 1, 1, 9, 8, 8)
    fit(module, data(), tmp_path, reduce(1), Restarts(), epochs=6)
    assert by_epoch(module) == pytest.approx([0.1, 0.1, 0.05, 0.1, 0.1, 0.1])


def test_a_warm_up_rises_to_the_rate(tmp_path: Path) -> None:
    module = Scripted(1, 1)
    fit(module, data(), tmp_path, reduce(warmup=4))
    assert module.of_first == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_beside_another_schedule_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got CosineDecay and ReduceOnPlateau"):
        fit(Scripted(), data(), tmp_path, reduce(), CosineDecay())


def test_a_metric_that_nobody_logs_is_refused_before_the_first_update(tmp_path: Path) -> None:
    module = Scripted()
    with pytest.raises(UserError, match="ReduceOnPlateau: .* got 'val/loss'; did you mean 'val_loss'"):
        fit(module, data(), tmp_path, ReduceOnPlateau())
    assert not module.by_update


def test_the_metric_of_a_task_is_refused_before_there_is_a_run(tmp_path: Path) -> None:
    task, callback = Classification(ToyNet(num_classes=4)), ReduceOnPlateau("val/psnr", "max")
    task.adapt(ToyData(cache_dir=str(tmp_path)))
    with pytest.raises(UserError, match="ReduceOnPlateau: .* got 'val/psnr'.*logged: train/loss, val/acc"):
        callback.check(fit(Scripted(1), data(), tmp_path, epochs=1), task)


def test_a_checkpoint_can_be_tested_by_a_trainer_that_never_trained(tmp_path: Path) -> None:
    module = Scripted(1, 1)
    run = fit(module, data(), tmp_path, reduce(1))
    run.save_checkpoint(tmp_path / "last.ckpt")
    run.validate(Scripted(1), data(1), ckpt_path=tmp_path / "last.ckpt", weights_only=True, verbose=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 1.0}, "factor above 0 and below 1, got 1.0"),
        ({"patience": 0}, "patience of at least 1 epoch, got 0"),
        ({"mode": "up"}, "mode min or max, got up"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ReduceOnPlateau(**arguments)
