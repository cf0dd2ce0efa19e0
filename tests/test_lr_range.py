"""The range test in-process: nothing of the caller's changes, every update has its rate, and the rate is a good one."""

import copy
import math
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from tlkit_callbacks import LayerFreezing
from tlkit_callbacks.moment import Moment
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset
from toy import ToyData, ToyNet

from tlkit.errors import NonFinite, UserError
from tlkit.lr_range import LRRange, lr_range_test
from tlkit.tasks import Classification
from tlkit.tasks.normalisation import Normalisation

sys.path.append(str(Path(__file__).parent / "callbacks"))
from foreign_module import ForeignModule, loader, trainer


def sweep(module: LightningModule, data: Any = None, *more: Any, **arguments: Any) -> LRRange:
    return lr_range_test(module, data, *more, **{"accelerator": "cpu", "updates": 20} | arguments)


class Watched(ForeignModule):
    """Notes, for all its copies together, the rates of each update, weights of its first layer, and what is asked."""

    seen: list[Any] = []

    def configure_optimizers(self) -> Any:
        configured = super().configure_optimizers()
        optimizer = configured if isinstance(configured, torch.optim.Optimizer) else configured[0][0]
        optimizer.register_step_post_hook(self.note)
        return configured

    def note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        self.seen.append((rates, self.conv1.weight.detach().clone(), self.norm1.running_mean.clone()))


@pytest.fixture(autouse=True)
def fresh() -> None:
    Watched.seen = []


def rates_seen() -> list[list[float]]:
    return [rates for rates, *_ in Watched.seen]


# What is left behind


class Order(Sampler[int]):
    """Shuffles with a generator of its own, and counts how often it was asked."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)
        self.rounds = 0

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Iterator[int]:
        self.rounds += 1
        return iter(torch.randperm(12, generator=self.generator).tolist())


class Noisy(Dataset[tuple[Tensor, int]]):
    """Draws from generators of its own and from all global ones."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.numpy = [np.random.default_rng(2), {"old": np.random.RandomState(3)}]

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        new, old = self.numpy[0], self.numpy[1]["old"]  # type: ignore[index]
        drawn = [self.random.random(), new.random(), old.rand(), random.random(), np.random.rand()]  # type: ignore[union-attr]
        return torch.randn(1, 6, 6) + sum(drawn), index % 2


class Data(LightningDataModule):
    """Keeps its loader, as many do."""

    def __init__(self) -> None:
        super().__init__()
        self.loader = DataLoader(Noisy(), 4, sampler=Order(), generator=torch.Generator().manual_seed(4))

    def train_dataloader(self) -> Any:
        return self.loader

    def val_dataloader(self) -> Any:
        return loader()


def state_of(module: ForeignModule, optimizer: torch.optim.Optimizer, data: Data) -> list[Any]:
    """Everything that must not change, as plain values."""
    noisy: Any = data.loader.dataset
    order: Any = data.loader.sampler
    return [
        {key: value.tolist() for key, value in module.state_dict().items()},
        [None if p.grad is None else p.grad.tolist() for p in module.parameters()],
        [(p.requires_grad, id(p)) for p in module.parameters()],
        [part.training for part in module.modules()],
        [list(part._forward_hooks) for part in module.modules()],
        (id(module.__dict__["_trainer"]), id(data.trainer), sorted(vars(module)), sorted(vars(data)), module.rates),
        repr(optimizer.state_dict()),
        (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()),
        [data.loader.generator.get_state().tolist(), order.generator.get_state().tolist(), order.rounds],
        (noisy.random.getstate(), noisy.numpy[0].bit_generator.state, repr(noisy.numpy[1]["old"].get_state())),
        (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), torch.is_grad_enabled()),
    ]


class Breaks(Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 7:
            raise self.error


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()], ids=["ends", "fails", "Ctrl-C"])
def test_nothing_of_the_callers_changes_however_it_ends(error: BaseException | None, tmp_path: Path) -> None:
    module, data = ForeignModule("SGD", momentum=0.9, scheduler=True), Data()
    used = trainer(tmp_path, epochs=1)
    used.fit(module, datamodule=data)
    optimizer = used.optimizers[0]
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    module.conv1.weight.requires_grad_(False)
    module.norm2.eval()
    module.fc.register_forward_hook(lambda *_: None)
    before = state_of(module, optimizer, data)
    iteration = data.loader._iterator = iter(data.loader)  # as one with workers that are kept
    before = state_of(module, optimizer, data)
    callbacks = [LayerFreezing("fc"), *([Breaks(error)] if error else [])]
    own = [copy.copy(vars(callback)) for callback in callbacks]
    with torch.no_grad():
        before[-1] = (*before[-1][:2], False)
        if error:
            with pytest.raises(type(error)):
                sweep(module, data, callbacks=callbacks)
        else:
            assert len(sweep(module, data, callbacks=callbacks).values) == 20
        assert state_of(module, optimizer, data) == before
    assert data.loader._iterator is iteration
    assert [vars(callback) for callback in callbacks] == own


def test_it_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep(ForeignModule(), loader())
    assert not list(tmp_path.iterdir())


def test_the_same_sweep_again_and_one_after_a_long_training_give_the_same_curve(tmp_path: Path) -> None:
    module = ForeignModule()
    used = trainer(tmp_path, epochs=40)
    used.fit(module, loader(), loader())
    assert used.global_step == 120
    fresh = ForeignModule()
    fresh.load_state_dict(module.state_dict())
    torch.manual_seed(3)
    assert sweep(module, loader()) == sweep(module, loader()) == sweep(fresh, loader())


def test_a_loader_in_the_midst_of_an_iteration_goes_on_with_its_own_workers() -> None:
    kept = DataLoader(loader().dataset, 4, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    batches = iter(kept)
    seen = [next(batches)]
    assert len(sweep(ForeignModule(), kept).values) == 20
    seen += batches
    assert all(torch.equal(one[0], other[0]) for one, other in zip(seen, loader(), strict=True))


# Which rate each update has


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, np.geomspace(1e-7, 10, 20)),
        ({"sweep": "linear", "min_lr": 0.1, "max_lr": 2.0}, np.linspace(0.1, 2, 20)),
        ({"accumulate_grad_batches": 2}, np.geomspace(1e-7, 10, 20)),  # a window of 2 and one of 1 in each epoch
        ({"precision": "bf16-mixed"}, np.geomspace(1e-7, 10, 20)),
    ],
    ids=["exponential", "linear", "accumulating", "bf16"],
)
def test_every_update_has_the_next_rate_round_the_data_as_often_as_needed(arguments: Any, expected: Any) -> None:
    result = sweep(Watched(), loader(), **arguments)
    assert np.array(rates_seen())[:, 0] == pytest.approx(expected, rel=1e-12)
    assert result.rates == pytest.approx(expected)


@pytest.mark.parametrize("scheduler", ["StepLR", "OneCycleLR", "ReduceLROnPlateau"])
def test_the_modules_own_scheduler_does_nothing(scheduler: str) -> None:
    class Scheduled(Watched):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            arguments: Any = {
                "StepLR": {"step_size": 1},
                "OneCycleLR": {"max_lr": 3, "total_steps": 5},
                "ReduceLROnPlateau": {},
            }[scheduler]
            torch_scheduler: Any = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **arguments)
            settings = {"scheduler": torch_scheduler, "interval": "step", "monitor": "val/loss", "strict": True}
            return {"optimizer": optimizer, "lr_scheduler": settings}

    sweep(Scheduled(), loader())
    assert np.array(rates_seen())[:, 0] == pytest.approx(np.geomspace(1e-7, 10, 20), rel=1e-12)


def test_a_module_that_sets_its_rate_itself_is_overruled_at_the_update() -> None:
    class WarmsUp(Watched):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
            optimizer.param_groups[0]["lr"] = 123.0
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)

    sweep(WarmsUp(), loader())
    assert np.array(rates_seen())[:, 0] == pytest.approx(np.geomspace(1e-7, 10, 20), rel=1e-12)


def test_every_group_keeps_its_ratio() -> None:
    class Grouped(Watched):
        def configure_optimizers(self) -> Any:
            body = [*self.conv1.parameters(), *self.norm1.parameters(), *self.conv2.parameters()]
            groups = [{"params": body, "lr": 0.001}, {"params": self.norm2.parameters(), "lr": 0.0}]
            optimizer = torch.optim.SGD([*groups, {"params": self.fc.parameters()}], lr=0.01)
            optimizer.register_step_post_hook(self.note)
            return optimizer

    sweep(Grouped(), loader())
    expected = np.geomspace(1e-7, 10, 20)[:, None] * [[0.1, 0, 1]]
    assert np.array(rates_seen()) == pytest.approx(expected, rel=1e-12)


def test_the_scales_of_a_tasks_layers_are_kept(tmp_path: Path) -> None:
    class Task(Classification):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            optimizer.register_step_post_hook(lambda o, *_: seen.append([group["lr"] for group in o.param_groups]))
            return optimizer

    seen: list[list[float]] = []
    task = Task(ToyNet(4, 1), lr_scale={"fc": 10.0, "conv1": 0.1})
    task.run_dir = tmp_path / "run"  # where it would draw
    sweep(task, ToyData(cache_dir=str(tmp_path / "cache")), metric="val/loss", every=2)
    assert np.array(seen) == pytest.approx(np.geomspace(1e-7, 10, 20)[:, None] * [[0.1, 1, 10]], rel=1e-12)
    assert not task.run_dir.exists()


@pytest.mark.parametrize("every", [1, 2])
def test_the_losses_are_those_of_a_plain_training_loop_at_rising_rates(every: int) -> None:
    module = ForeignModule(momentum=0.9)
    module.drop = nn.Identity()  # type: ignore[assignment]
    result = sweep(module, loader(), max_lr=1.0, accumulate_grad_batches=every)
    plain = copy.deepcopy(module)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    batches, expected = list(loader()), []
    windows = [batches[i : i + every] for i in range(0, 3, every)] * 20
    for rate, window in zip(np.geomspace(1e-7, 1, 20), windows, strict=False):
        losses = [nn.functional.cross_entropy(plain(x), y) for x, y in window]
        optimizer.zero_grad()
        (torch.stack(losses).sum() / every).backward()  # Lightning divides a short window by the full number too
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        expected.append(torch.stack(losses).mean().item())
    assert result.values == pytest.approx(expected, rel=1e-5)


def test_layers_that_a_callback_freezes_stand_still() -> None:
    sweep(Watched(), loader(), callbacks=[LayerFreezing("conv1")])
    assert len(Watched.seen) == 20
    for _, weight, mean in Watched.seen:
        assert torch.equal(weight, Watched.seen[0][1]) and torch.equal(mean, Watched.seen[0][2])
    Watched.seen.clear()
    sweep(Watched(), loader())
    assert not torch.equal(Watched.seen[0][1], Watched.seen[-1][1])


def test_a_callback_that_thaws_in_the_course_of_a_run_freezes_what_it_does_at_its_start() -> None:
    sweep(Watched(), loader(), callbacks=[LayerFreezing("conv1", end=Moment(step=2))])
    assert len(Watched.seen) == 20
    assert all(torch.equal(weight, Watched.seen[0][1]) for _, weight, _ in Watched.seen)


def test_what_an_earlier_fit_left_frozen_is_as_in_another_fit(tmp_path: Path) -> None:
    module = Watched()
    trainer(tmp_path, LayerFreezing("conv1")).fit(module, loader(), loader())
    assert not module.conv1.weight.requires_grad
    Watched.seen.clear()
    sweep(module, loader(), callbacks=[LayerFreezing("fc")])  # a fit with it would thaw conv1
    assert not torch.equal(Watched.seen[0][1], Watched.seen[-1][1])


@pytest.mark.parametrize(("optimizer", "has"), [("SGD", False), ("AdamW", True)])
def test_a_one_cycle_for_an_optimizer_without_momentum_couples_none(optimizer: str, has: bool) -> None:
    x = torch.linspace(-1, 1, 64)[:, None]

    class Line(Regression):
        def configure_optimizers(self) -> Any:
            return getattr(torch.optim, optimizer)(self.parameters(), lr=0.1)

    data = DataLoader(TensorDataset(x.repeat(1, 8), x), batch_size=64)
    found = sweep(Line(), data, updates=50).one_cycle
    assert found is not None
    assert ("momentum_min" in found) is not has and found.get("momentum_max") is None


def test_callbacks_that_the_module_brings_do_nothing() -> None:
    class Brings(ForeignModule):
        def configure_callbacks(self) -> Any:
            return [EarlyStopping("val/loss")]

    assert len(sweep(Brings(), loader()).values) == 20


def test_a_module_may_bring_its_data_and_use_its_logger() -> None:
    class Complete(ForeignModule):
        def train_dataloader(self) -> Any:
            return loader()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.logger.experiment.add_scalar("x", 1.0, self.global_step)  # type: ignore[union-attr]
            return {"loss": super().training_step(batch, batch_idx), "more": 1}

    assert len(sweep(Complete()).values) == 20


# A validation metric


class Validated(Watched):
    """Its accuracy is a known function of how many updates it has had."""

    monitor, monitor_mode = "val/accuracy", "max"

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/accuracy", 0.5 - 0.01 * abs(len(self.seen) - 12))
        self.log("val/loss", 2.0 + len(self.seen))


def test_a_validation_metric_is_measured_every_few_updates() -> None:
    result = sweep(Validated(), loader(), loader(), metric="val/accuracy", every=2, accumulate_grad_batches=3)
    rates = np.geomspace(1e-7, 10, 20)
    assert result.rates == pytest.approx(rates[1::2])  # after updates 2, 4, …
    assert result.values == pytest.approx([0.5 - 0.01 * abs(n - 12) for n in range(2, 21, 2)])
    assert result.mode == "max"  # as the module says of its monitor
    assert result.suggestions["minimum/10"] == pytest.approx(rates[11] / 10)  # the best is after update 12
    loss = sweep(Validated(), loader(), loader(), metric="val/loss", every=2)
    assert loss.mode == "min" and loss.band is None  # more of it after every update


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        UserError, match="got 'val/acuracy'; did you mean 'val/accuracy'.*logged: val/accuracy, val/los"
    ):
        sweep(Validated(), loader(), loader(), metric="val/acuracy", every=2)


def test_a_metric_without_a_validation_is_refused() -> None:
    with pytest.raises(UserError, match="expected val/loss at each rate, got nothing: .*validation"):
        sweep(Watched(), loader(), metric="val/loss", every=2)


# Where it goes wrong


class Explodes(ForeignModule):
    """Its loss is what a function says of the number of the batch."""

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.fc.bias.sum() * 0 + self.loss(self.global_step)


def test_a_sweep_stops_where_the_loss_diverges() -> None:
    result = sweep(Explodes(lambda n: 2 - n / 10 if n < 11 else 1.5**n), loader(), max_lr=1e12)
    assert len(result.values) == 12
    assert result.stopped == "the training loss diverged at rate 1e+04 (update 12 of 20)"  # 1e-7 · 10^(11)
    assert result.band is not None


def test_a_sweep_stops_at_a_loss_that_is_not_finite() -> None:
    result = sweep(Explodes(lambda n: math.nan if n == 11 else 2 - n / 10), loader(), max_lr=1e12)
    assert len(result.values) == 11
    assert result.stopped == "the training loss was not finite at rate 1e+04 (update 12 of 20)"


def test_divergence_from_the_first_step_says_so_and_what_to_do() -> None:
    result = sweep(Explodes(lambda n: 10.0**n), loader())
    assert result.band is None and len(result.values) == 2
    assert result.remark and "diverged from the start; lower min_lr" in result.remark


def test_a_loss_that_is_not_finite_before_any_update_is_no_matter_of_the_rate() -> None:
    with pytest.raises(NonFinite, match="training loss of nan"):
        sweep(Explodes(lambda n: math.nan), loader())


def test_an_image_that_is_not_finite_is_named_and_a_task_that_diverges_is_not_an_error(tmp_path: Path) -> None:
    data = ToyData(cache_dir=str(tmp_path / "cache"), bad_row=30)
    with pytest.raises(NonFinite, match="the input is not finite in sample 30"):
        sweep(Classification(ToyNet(4, 1), normalisation=Normalisation([0.0], [1.0])), data)
    task = Classification(ToyNet(4, 1), normalisation=Normalisation([0.0], [1.0]))
    result = sweep(task, ToyData(cache_dir=str(tmp_path / "cache")), min_lr=0.01, max_lr=1e38, updates=100)
    assert result.stopped and len(result.values) < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_lr": 0.1, "max_lr": 0.1}, "min_lr < max_lr, got min_lr 0.1 and max_lr 0.1"),
        ({"min_lr": 0.0}, "0 < min_lr"),
        ({"max_lr": math.inf}, "got min_lr 1e-07 and max_lr inf"),
        ({"updates": 9}, "at least 10 updates, got 9"),
        ({"metric": "val/loss"}, r"at least 50 updates \(10 validations, one every 5\), got 20"),
        ({"metric": "val/loss", "every": 0}, "every to be at least 1"),
    ],
)
def test_nonsense_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        sweep(ForeignModule(), loader(), **arguments)


def test_modules_that_cannot_be_swept_are_refused() -> None:
    manual, detached, without = ForeignModule(), ForeignModule(), ForeignModule()
    manual.automatic_optimization = False
    with pytest.raises(UserError, match="optimizes automatically, got ForeignModule"):
        sweep(manual, loader())
    detached.configure_optimizers = lambda: torch.optim.SGD(detached.parameters(), lr=0.1)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="parameters of `self`"):
        sweep(detached, loader())
    without.configure_optimizers = lambda: None  # type: ignore[method-assign]
    with (
        pytest.warns(UserWarning, match="no optimizer"),
        pytest.raises(UserError, match="optimizer with a learning rate"),
    ):
        sweep(without, loader())
    graph = ForeignModule()
    graph.kept = graph.fc.weight * 2  # type: ignore[assignment]
    with pytest.raises(UserError, match="copy.deepcopy can copy, got ForeignModule"):
        sweep(graph, loader())


# Whether it is any good


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self.lr = 0.1

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def test_the_suggested_rate_trains_better_than_a_hundredth_and_a_hundred_times_of_it(tmp_path: Path) -> None:
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    y = torch.sin(x[:, :3].sum(1, keepdim=True))
    data = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(1))
    found = sweep(Regression(), data, updates=100).one_cycle
    assert found is not None
    losses = []
    for factor in (0.01, 1, 100):
        module = Regression()
        module.lr = found["peak_lr"] * factor
        trainer(tmp_path, epochs=40).fit(module, data)
        losses.append(nn.functional.mse_loss(module.net(x), y).item())
    assert losses[1] < 0.75 * losses[0]
    assert not losses[2] < 2 * losses[1]  # or it is not a number
