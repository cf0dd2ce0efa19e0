"""StepDecay: the rate of each group in each epoch, as it trains."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, trainer
from tlkit_callbacks import CosineDecay, InitialDecay, LayerFreezing, Schedule, StepDecay

from tlkit.errors import UserError
from tlkit.optim import build_optimizer

LR = 0.1
BATCHES = 3


class NamedGroups(ForeignModule):
    """A foreign module that uses tlkit's groups: fc at ten times the rate of the others."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self, lambda groups: torch.optim.SGD(groups, lr=LR), {"fc": 10.0})


def rates(module: ForeignModule, tmp_path: Path, *callbacks: Any, epochs: int) -> list[list[float]]:
    """Returns the rate of each group in each epoch; it must be the same in all batches of an epoch."""
    trainer(tmp_path, *callbacks, epochs=epochs).fit(module, loader(), loader())
    assert len(module.rates) == epochs * BATCHES
    by_epoch = [module.rates[BATCHES * epoch : BATCHES * (epoch + 1)] for epoch in range(epochs)]
    assert all(batches == batches[:1] * BATCHES for batches in by_epoch)
    return [batches[0] for batches in by_epoch]


def test_the_rate_of_one_unnamed_group_falls_every_so_many_epochs(tmp_path: Path) -> None:
    found = rates(ForeignModule(lr=LR), tmp_path, StepDecay(every=2, factor=0.5), epochs=6)
    assert [rate for (rate,) in found] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_the_first_drop_may_come_at_another_epoch_than_the_others(tmp_path: Path) -> None:
    found = rates(ForeignModule(lr=LR), tmp_path, StepDecay(every=3, start=1), epochs=6)
    assert [rate for (rate,) in found] == pytest.approx([0.1, 0.01, 0.01, 0.01, 0.001, 0.001])


def test_start_zero_applies_to_the_first_update(tmp_path: Path) -> None:
    found = rates(ForeignModule(lr=LR), tmp_path, StepDecay(every=None, start=0), epochs=2)
    assert [rate for (rate,) in found] == pytest.approx([0.01, 0.01])


def test_initial_decay_epochs_of_one_layer_beside_the_usual_drop_of_all(tmp_path: Path) -> None:
    callbacks = [StepDecay(every=None, start=2, layers="fc"), StepDecay(every=3)]
    found = rates(NamedGroups(), tmp_path, *callbacks, epochs=7)
    for epoch, (conv1, conv2, fc) in enumerate(found):
        usual = 0.1 if epoch < 3 else 0.01 if epoch < 6 else 0.001
        assert (conv1, conv2) == pytest.approx((usual, usual))
        assert fc == pytest.approx(10 * usual * (1.0 if epoch < 2 else 0.1))


def test_a_layer_that_falls_by_itself_leaves_the_others_alone(tmp_path: Path) -> None:
    found = rates(NamedGroups(), tmp_path, StepDecay(every=1, layers=["conv1", "fc"]), epochs=3)
    assert found == [pytest.approx([0.1 * 0.1**e, 0.1, 1.0 * 0.1**e]) for e in range(3)]


def test_freezing_changes_no_rate(tmp_path: Path) -> None:
    found = rates(NamedGroups(), tmp_path, LayerFreezing("conv1"), StepDecay(every=1), epochs=2)
    assert found == [pytest.approx([0.1, 0.1, 1.0]), pytest.approx([0.01, 0.01, 0.1])]


def test_a_scheduler_of_torch_beside_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="StepDecay and the scheduler of ForeignModule.configure_optimizers"):
        rates(ForeignModule(scheduler=True), tmp_path, StepDecay(), epochs=1)


def test_layers_of_unnamed_groups_are_refused_with_the_helper_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tlkit.optim.build_optimizer"):
        rates(ForeignModule(), tmp_path, StepDecay(layers="fc"), epochs=1)


def test_an_unknown_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got 'fc8'; did you mean 'fc'"):
        rates(NamedGroups(), tmp_path, StepDecay(layers="fc8"), epochs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": None}, "`every`, `start` or both, got neither"),
        ({"every": 0}, "at least 1 epoch, got 0"),
        ({"start": -1}, "epoch 0 or later, got -1"),
        ({"factor": 0.0}, "larger than 0, got 0.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        StepDecay(**arguments)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_goes_on_at_the_right_rate(stop: int, tmp_path: Path) -> None:
    def callbacks() -> list[Schedule]:
        return [StepDecay(every=None, start=2, layers="fc"), StepDecay(every=1, factor=0.5)]

    whole = rates(NamedGroups(), tmp_path, *callbacks(), epochs=4)
    first, checkpoint = trainer(tmp_path, *callbacks(), epochs=stop), tmp_path / "last.ckpt"
    first.fit(NamedGroups(), loader(), loader())
    first.save_checkpoint(checkpoint)
    resumed, second = NamedGroups(), trainer(tmp_path, *callbacks(), epochs=4)
    second.fit(resumed, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
    assert resumed.rates[::BATCHES] == whole[stop:]


def test_it_can_be_added_to_a_run_that_was_begun_without_it(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, epochs=1), tmp_path / "last.ckpt"
    first.fit(ForeignModule(lr=LR), loader(), loader())
    first.save_checkpoint(checkpoint)
    resumed, second = ForeignModule(lr=LR), trainer(tmp_path, StepDecay(every=2), epochs=4)
    second.fit(resumed, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
    assert [rate for (rate,) in resumed.rates[::BATCHES]] == pytest.approx([0.1, 0.01, 0.01])


def test_a_second_fit_starts_from_the_rate_of_the_first(tmp_path: Path) -> None:
    module = ForeignModule(lr=LR)
    for _ in range(2):
        module.rates = []
        assert rates(module, tmp_path, StepDecay(every=1), epochs=2) == [[LR], [pytest.approx(LR / 10)]]


def test_the_initial_decay_of_the_last_layer_is_one_drop(tmp_path: Path) -> None:
    named = rates(NamedGroups(), tmp_path, InitialDecay(epochs=2), StepDecay(every=3), epochs=5)
    spelled = rates(NamedGroups(), tmp_path, StepDecay(every=None, start=2, layers="fc"), StepDecay(every=3), epochs=5)
    assert named == spelled
    none = rates(NamedGroups(), tmp_path, InitialDecay(epochs=0, factor=0.5), epochs=3)
    assert [fc for *_, fc in none] == pytest.approx([0.5] * 3)


def test_it_stands_beside_a_schedule_of_the_whole_run(tmp_path: Path) -> None:
    module = NamedGroups()
    trainer(tmp_path, CosineDecay(), InitialDecay(epochs=1), epochs=2).fit(module, loader(), loader())
    assert [fc / conv for conv, _, fc in module.rates[:-1]] == pytest.approx([10.0] * 3 + [1.0] * 2)


def test_an_epoch_may_be_so_many_updates_of_a_larger_data_set(tmp_path: Path) -> None:
    module = NamedGroups()
    callbacks = [InitialDecay(epochs=1, updates_per_epoch=4), StepDecay(every=2, updates_per_epoch=4)]
    trainer(tmp_path, *callbacks, epochs=3).fit(module, loader(), loader())
    assert [conv for conv, _, _ in module.rates] == pytest.approx([0.1] * 8 + [0.01])
    assert [fc for *_, fc in module.rates] == pytest.approx([1.0] * 4 + [0.1] * 4 + [0.01])


def test_an_initial_decay_that_cannot_be_is_refused_under_its_own_name() -> None:
    with pytest.raises(UserError, match="InitialDecay: expected `epochs` to be at least 0, got -1"):
        InitialDecay(epochs=-1)
    with pytest.raises(UserError, match="InitialDecay: expected `updates_per_epoch` to be at least 1, got 0"):
        InitialDecay(epochs=1, updates_per_epoch=0)
