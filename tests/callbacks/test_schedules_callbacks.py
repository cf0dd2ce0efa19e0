"""The schedules beside OneCycle: the rate of every update, alone, with a warm-up, resumed, and two at once."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, snapshot, trainer
from recorded import Recorded, data, endless, fit, scaler, whole_and_resumed
from tlkit_callbacks.constant_rate import ConstantRate
from tlkit_callbacks.cosine_decay import CosineDecay
from tlkit_callbacks.cyclic_cosine import CyclicCosine
from tlkit_callbacks.exponential_decay import ExponentialDecay
from tlkit_callbacks.inverse_sqrt_decay import InverseSqrtDecay
from tlkit_callbacks.linear_decay import LinearDecay
from tlkit_callbacks.one_cycle import OneCycle
from tlkit_callbacks.schedule import Curve, Schedule
from tlkit_callbacks.step_decay import StepDecay
from tlkit_callbacks.updates import completed_updates
from torch.optim import SGD, Optimizer

from tlkit.errors import UserError

LR = 0.1
PER_EPOCH = 3


def same(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-12, abs=1e-17)


def cosine(t: int, last: int) -> float:
    return LR * (1 + math.cos(math.pi * t / last)) / 2


SCHEDULES: dict[str, tuple[Callable[..., Schedule], Callable[[int, int], float]]] = {
    "cosine": (CosineDecay, lambda t, updates: cosine(t, updates - 1)),
    "linear": (LinearDecay, lambda t, updates: LR * (1 - t / (updates - 1))),
    "inverse sqrt": (InverseSqrtDecay, lambda t, _: LR / math.sqrt(t + 1)),
    "constant": (ConstantRate, lambda *_: LR),
    "cyclic": (lambda **a: CyclicCosine(3, **a), lambda t, updates: cosine(t % (updates // 3), updates // 3 - 1)),
}
of_each = pytest.mark.parametrize(("schedule", "rate"), SCHEDULES.values(), ids=SCHEDULES)


@of_each
@pytest.mark.parametrize("named", [False, True])
def test_every_update_has_the_rate_of_the_equation(schedule: Any, rate: Any, named: bool, tmp_path: Path) -> None:
    module = Recorded(lr=LR, scales={"fc": 10.0, "conv2": 0.0} if named else None)
    fit(module, data(), tmp_path, schedule(), epochs=4)
    scales = [1.0, 0.0, 10.0] if named else [1.0]
    assert module.by_update == [same([scale * rate(t, 12) for scale in scales]) for t in range(12)]
    assert module.momenta == [[0.9] * len(scales)] * 12


@of_each
def test_a_warm_up_rises_linearly_and_the_curve_runs_over_the_rest(schedule: Any, rate: Any, tmp_path: Path) -> None:
    module = Recorded(lr=LR)
    fit(module, data(), tmp_path, schedule(warmup=3), epochs=5)
    assert module.of_first == same([LR / 3, 2 * LR / 3, LR, *(rate(t, 12) for t in range(12))])


@of_each
@pytest.mark.parametrize("updates", [1, 2, 3])
def test_a_very_short_run_has_finite_rates(schedule: Any, rate: Any, updates: int, tmp_path: Path) -> None:
    module, callback = Recorded(lr=LR), schedule()
    if isinstance(callback, CyclicCosine):
        callback.cycles = 1
        rate = SCHEDULES["cosine"][1]
    fit(module, data(updates), tmp_path, callback, epochs=1)
    assert module.of_first == same([LR] if updates == 1 else [rate(t, updates) for t in range(updates)])


@of_each
def test_what_was_cut_off_goes_on_where_it_was_and_a_longer_run_ends_at_its_end(
    schedule: Any, rate: Any, tmp_path: Path
) -> None:
    fit(Recorded(lr=LR), data(), tmp_path, schedule(), epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    module = Recorded(lr=LR)
    fit(module, data(), tmp_path, schedule(), epochs=4, checkpoint=tmp_path / "last.ckpt")
    assert module.of_first == same([rate(t, 12) for t in range(6, 12)])


@of_each
def test_updates_count_not_batches_nor_steps_that_a_scaler_skips(schedule: Any, rate: Any, tmp_path: Path) -> None:
    module = Recorded("AdamW", overflow=(4, 5, 9), lr=LR)
    arguments: dict[str, Any] = {"accumulate_grad_batches": 2, "plugins": [scaler()]}
    fit(module, data(5), tmp_path, schedule(), epochs=4, **arguments)
    assert module.of_first == same([rate(t, 12) for t in range(9)])  # overflow in three of twelve windows


@of_each
def test_two_optimizers_follow_one_schedule(schedule: Any, rate: Any, tmp_path: Path) -> None:
    class Manual(Recorded):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for optimizer in self.optimizers():
                loss = super().training_step(batch, batch_idx)
                optimizer.zero_grad()
                self.manual_backward(loss)
                optimizer.step()

        def configure_optimizers(self) -> Any:
            parts = [[*self.conv1.parameters()], [*self.fc.parameters()]]
            optimizers = [SGD(part, lr=LR * 2**number, momentum=0.9) for number, part in enumerate(parts)]
            for optimizer in optimizers:
                optimizer.register_step_pre_hook(self.note)
            return optimizers

    module = Manual()
    fit(module, data(), tmp_path, schedule(), epochs=9, max_steps=24)  # Lightning counts those of both
    assert module.by_update == [same([factor * rate(t, 12)]) for t in range(12) for factor in (1, 2)]


@pytest.mark.parametrize("schedule", [InverseSqrtDecay, ConstantRate, ExponentialDecay, StepDecay])
@pytest.mark.parametrize("limit", [{"max_time": "00:01:00:00"}, {"epochs": -1}])
def test_a_schedule_without_an_end_runs_with_any_limit(schedule: Any, limit: dict[str, Any], tmp_path: Path) -> None:
    class Stops(Recorded):
        def on_train_batch_end(self, *_: Any) -> None:
            self.trainer.should_stop = len(self.by_update) == 4

    module = Stops(lr=LR)
    fit(module, endless(), tmp_path, schedule(), **limit)
    assert len(module.by_update) == 4


@pytest.mark.parametrize("schedule", [CosineDecay, LinearDecay, lambda: CyclicCosine(2)])
def test_a_curve_with_an_end_refuses_a_run_without_one(schedule: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got neither max_epochs nor max_steps"):
        fit(Recorded(), data(), tmp_path, schedule(), epochs=-1)


def test_exponential_decay_multiplies_once_an_epoch(tmp_path: Path) -> None:
    module = Recorded(lr=LR)
    fit(module, data(), tmp_path, ExponentialDecay(), epochs=4)
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    reference = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.99)
    for epoch in range(4):
        assert module.of_first[PER_EPOCH * epoch : PER_EPOCH * (epoch + 1)] == same([LR * 0.99**epoch] * PER_EPOCH)
        assert module.of_first[PER_EPOCH * epoch] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("schedule", [lambda: ExponentialDecay(0.5, warmup=4), lambda: StepDecay(1, 0.5, warmup=4)])
def test_epochs_count_while_the_rate_warms_up(schedule: Any, tmp_path: Path) -> None:
    module = Recorded(lr=LR)
    fit(module, data(), tmp_path, schedule())
    assert module.of_first == same([LR / 4, LR / 2, 3 * LR / 4, LR / 2, LR / 2, LR / 2])


def test_cycle_ends_are_the_updates_whose_rate_is_zero(tmp_path: Path) -> None:
    ends: list[list[int]] = []
    zeros: list[int] = []

    class Notes(Recorded):
        def on_fit_start(self) -> None:
            ends.append(schedule.cycle_ends(self.trainer))

        def note(self, optimizer: Optimizer, *_: Any) -> None:
            if optimizer.param_groups[0]["lr"] == 0:
                zeros.append(completed_updates(self.trainer) + 1)

    schedule = CyclicCosine(4, warmup=2)
    fit(Notes(), data(5), tmp_path, schedule, epochs=3)
    assert ends == [[5, 8, 11, 15]] and zeros == ends[0]


def test_more_cycles_than_updates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at most a cycle per update, got 7 in 6 updates"):
        fit(Recorded(), data(), tmp_path, CyclicCosine(7))


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ([OneCycle(), CosineDecay()], "got CosineDecay and OneCycle; remove all but one"),
        ([LinearDecay(), LinearDecay()], "got LinearDecay and LinearDecay"),
        ([StepDecay(), ConstantRate()], "got ConstantRate and StepDecay"),
        ([StepDecay(), StepDecay(10), ExponentialDecay()], "got ExponentialDecay and StepDecay and StepDecay"),
    ],
)
def test_two_schedules_at_once_are_refused(schedules: list[Schedule], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        fit(Recorded(), data(), tmp_path, *schedules)


@pytest.mark.parametrize("schedule", [OneCycle(), CosineDecay(), ConstantRate(), ExponentialDecay()])
def test_a_scheduler_of_torch_beside_a_schedule_is_refused(schedule: Schedule, tmp_path: Path) -> None:
    message = f"{type(schedule).__name__} and the scheduler of ForeignModule.configure_optimizers"
    with pytest.raises(UserError, match=message):
        fit(ForeignModule(scheduler=True, momentum=0.9), data(), tmp_path, schedule)


def test_a_drop_of_some_layers_stands_beside_a_curve_of_all(tmp_path: Path) -> None:
    module = Recorded(lr=LR, scales={"fc": 10.0})
    fit(module, data(), tmp_path, StepDecay(every=None, start=1, layers="fc"), CosineDecay())
    expected = [[cosine(t, 5)] * 2 + [10 * cosine(t, 5) * (1 if t < 3 else 0.1)] for t in range(6)]
    assert module.by_update == [same(rates) for rates in expected]


class Trapezoid(Curve):
    """Rises, stays, falls: each over a share of the run."""

    def __init__(self, rise: float = 0.2, fall: float = 0.4, warmup: int = 0) -> None:
        super().__init__(warmup)
        self.rise, self.fall = rise, fall

    def curve(self, step: int, steps: int) -> float:
        progress = (step + 1) / (steps + 1)
        return min(1.0, progress / self.rise, (1 - progress) / self.fall)


def test_a_users_curve_is_a_schedule_like_any_other(tmp_path: Path) -> None:
    module = Recorded(lr=LR)
    fit(module, data(3), tmp_path, Trapezoid(), epochs=3)
    assert module.of_first == same([0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025])
    with pytest.raises(UserError, match="got CosineDecay and Trapezoid"):
        fit(Recorded(), data(), tmp_path, Trapezoid(), CosineDecay())


def test_a_curve_is_computed_once_per_batch_however_many_groups_there_are(tmp_path: Path) -> None:
    calls = []

    class Counts(Curve):
        def curve(self, step: int, steps: int) -> float:
            calls.append(step)
            return 1.0

    fit(Recorded(lr=LR, scales={}), data(4), tmp_path, Counts(), accumulate_grad_batches=2)
    assert calls == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("schedule", [CosineDecay, lambda: CyclicCosine(2), lambda: ExponentialDecay(0.5, warmup=8)])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_resumed_task_ends_as_the_uninterrupted_one_bit_for_bit(schedule: Any, stop: int, tmp_path: Path) -> None:
    whole, resumed = whole_and_resumed(lambda: [schedule()], stop, tmp_path)
    assert not changed(resumed, snapshot(whole))


def test_a_callback_can_be_used_for_a_second_run_of_another_length(tmp_path: Path) -> None:
    schedule = LinearDecay()
    for epochs in (1, 3):
        module = Recorded(lr=LR)
        trainer(tmp_path, schedule, epochs=epochs).fit(module, data(), data(1))
        assert module.of_first == same([LR * (1 - t / (3 * epochs - 1)) for t in range(3 * epochs)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CosineDecay(warmup=-1), "CosineDecay: expected warmup to be at least 0 updates, got -1"),
        (lambda: CyclicCosine(0), "cycles to be at least 1, got 0"),
        (lambda: ExponentialDecay(0.0), "factor above 0 and at most 1, got 0.0"),
        (lambda: ExponentialDecay(1.1), "factor above 0 and at most 1, got 1.1"),
        (lambda: StepDecay(layers="fc", warmup=3), "a warm-up of all layers, got one of some"),
    ],
)
def test_arguments_that_cannot_be_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
