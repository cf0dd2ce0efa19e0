"""What counts as a plateau, and where the values of a metric come from."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from recorded import Keeps, Recorded, data, fit
from tlkit_callbacks.plateau import (
    Plateau,
    PlateauWatch,
    check_metric,
    check_sanity,
    check_validates,
    fresh_value,
)
from toy import ToyData, ToyNet
from two_processes import gloo

from tlkit.errors import UserError
from tlkit.tasks import Classification


def waits(plateau: Plateau, values: list[float]) -> list[bool]:
    watch = PlateauWatch(plateau)
    return [watch.update(value) for value in values]


@pytest.mark.parametrize(
    ("plateau", "values", "expected"),
    [
        (Plateau("m", patience=2), [3, 2, 2, 2, 2, 1], [False, False, False, True, True, False]),
        (Plateau("m", mode="max", patience=1), [1, 2, 2, 3], [False, False, True, False]),
        (Plateau("m", patience=1, min_delta=0.5), [3, 2.5, 2.4], [False, True, False]),  # 2.5 is not better than 3
        (Plateau("m", patience=2), [math.nan, math.nan, 9, math.nan], [False, True, False, False]),
        (Plateau("m", mode="max", patience=1), [-math.inf, 0, math.nan], [True, False, True]),
    ],
)
def test_it_is_so_many_values_in_a_row_that_are_no_better(
    plateau: Plateau, values: list[float], expected: list[bool]
) -> None:
    assert waits(plateau, values) == expected


def test_a_watch_goes_on_from_its_state_and_forgets_it() -> None:
    first, second = (PlateauWatch(Plateau("m", patience=2)) for _ in range(2))
    assert not any(first.update(value) for value in (1, 2))
    second.load_state_dict(first.state_dict())
    assert (second.best, second.wait) == (1, 1) and second.update(1)
    second.reset()
    assert not second.update(5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "less"}, "mode min or max, got less"),
        ({"patience": 0}, "at least 1 epoch, got 0"),
        ({"min_delta": -1.0}, "at least 0, got -1.0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plateau("m", **arguments)


class Scripted(Recorded):
    """Logs, in validation, one value after the other; and one in training."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = list(values)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_loss", self.values.pop(0))
        else:
            self.log("val_loss", 99.0)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("loss", float(batch_idx), on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.log("late", 1.0)


class Reads(Callback):
    """Reads a metric as a schedule does."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.read: list[float | None] = []

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_metric(pl_module, self.metric, "Reads")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.check(trainer, pl_module)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_sanity(trainer, self.metric, "Reads")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        check_validates(trainer, self.metric, "Reads")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.read.append(fresh_value(trainer, self.metric, "Reads"))


@pytest.mark.parametrize(
    ("metric", "arguments", "expected"),
    [
        ("val_loss", {}, [5, 4, 3, 2]),
        ("val_loss", {"check_val_every_n_epoch": 2}, [None, 5, None, 4]),
        ("val_loss", {"val_check_interval": 1}, [3, 0, 0, 0]),  # the last of the three in an epoch
        ("val_loss", {"val_check_interval": 4, "check_val_every_n_epoch": None}, [None, 5, 4, 3]),
        ("loss", {}, [1, 1, 1, 1]),
        ("loss", {"check_val_every_n_epoch": 2}, [1, 1, 1, 1]),
    ],
)
def test_a_value_is_that_of_the_epoch_or_there_is_none(
    metric: str, arguments: dict[str, Any], expected: list[float | None], tmp_path: Path
) -> None:
    reads = Reads(metric)
    fit(Scripted(5, 4, 3, 2, *[0] * 8), data(), tmp_path, reads, epochs=4, **arguments)
    assert reads.read == expected


def test_a_checkpoint_written_after_the_validation_of_an_epoch_has_no_value_of_it(tmp_path: Path) -> None:
    class KeepsEarly(Keeps):
        on_validation_end = Keeps.on_train_epoch_end

        def on_train_epoch_end(self, *_: Any) -> None: ...

    quiet: dict[str, Any] = {"epochs": 2, "enable_checkpointing": True, "num_sanity_val_steps": 0}
    fit(Scripted(5, 4), data(), tmp_path, Reads("val_loss"), KeepsEarly(tmp_path), **quiet)
    reads = Reads("val_loss")
    fit(Scripted(4), data(), tmp_path, reads, KeepsEarly(tmp_path), checkpoint=tmp_path / "0.ckpt", **quiet)
    assert reads.read == [None, 4]


@pytest.mark.parametrize(
    ("metric", "arguments", "trained", "message"),
    [
        (
            "val_los",
            {},
            0,
            "Reads: .* got 'val_los'; did you mean 'val_loss'.*logged: val_loss$",
        ),
        ("val_los", {"num_sanity_val_steps": 0}, 3, "got 'val_los'; did you mean 'val_loss'"),
        ("val_los", {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}, 6, "got 'val_los'; did you mean"),
        ("accuracy", {}, 3, "got 'accuracy'; logged: loss, val_loss$"),
        ("late", {}, 3, "got 'late'; logged: loss, val_loss$"),  # the module logs it after the callbacks
        ("val_loss", {"limit_val_batches": 0}, 0, "a validation, which 'val_loss' is of, got no data to validate on"),
    ],
)
def test_a_metric_that_nobody_logs_is_refused_as_soon_as_it_can_be_known(
    metric: str, arguments: dict[str, Any], trained: int, message: str, tmp_path: Path
) -> None:
    module = Scripted(5, 4)
    with pytest.raises(UserError, match=message):
        fit(module, data(), tmp_path, Reads(metric), **arguments)
    assert module.batches == trained


def test_a_task_tells_before_there_is_a_run(tmp_path: Path) -> None:
    task = Classification(ToyNet(num_classes=4, in_channels=1))
    task.adapt(ToyData(cache_dir=str(tmp_path)))
    with pytest.raises(UserError, match="got 'val/acuracy'; did you mean 'val/accuracy'.*logged: train/loss, val"):
        check_metric(task, "val/acuracy", "Reads")
    with pytest.raises(UserError, match="Reads: expected mode max for val/accuracy, got min"):
        check_metric(task, "val/accuracy", "Reads", "min")
    check_metric(task, "val/loss", "Reads", "min")
    check_metric(Scripted(), "anything", "Reads", "min")


@pytest.mark.parametrize("metric", ["val/loss", "train/loss"])
def test_the_values_of_a_task_are_those_it_logs(metric: str, tmp_path: Path) -> None:
    logged: list[float] = []

    class Logs(Classification):
        def _log(self, values: Any) -> None:
            logged.extend(float(value) for name, value in values.items() if name == metric)
            super()._log(values)

    reads = Reads(metric)
    torch.manual_seed(0)
    task = Logs(ToyNet(num_classes=4, in_channels=1))
    trainer(tmp_path, reads, epochs=3, num_sanity_val_steps=0).fit(task, ToyData(cache_dir=str(tmp_path)))
    assert reads.read == pytest.approx(logged, rel=1e-6) and len(set(logged)) == 3


def test_a_task_without_validation_images_is_refused_its_metrics_of_validation(tmp_path: Path) -> None:
    from foreign_module import trainer

    task, toys = (
        Classification(ToyNet(num_classes=4, in_channels=1)),
        ToyData(cache_dir=str(tmp_path), validation=False),
    )
    with pytest.raises(UserError, match="'val/loss' is of, got no data to validate on"):
        trainer(tmp_path, Reads("val/loss")).fit(task, toys)


def values_of(rank: int, directory: str) -> list[float | None]:
    reads = Reads("val_loss")
    module = Scripted(*([1.0, 1.0] if rank == 0 else [2.0, 4.0]))  # logged without sync_dist
    fit(module, data(4), directory, reads, strategy="ddp", devices=2)
    return reads.read


def test_two_processes_read_the_same_value(tmp_path: Path) -> None:
    assert gloo(values_of, str(tmp_path)) == [[1.5, 2.5]] * 2
