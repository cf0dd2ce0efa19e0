"""EMAWeights: what validation evaluates, and the second pass of ``evaluate: both``, which leaves no traces."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, SwitchesEverythingOn, loader, trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from line import BATCHES, Line, data, ema, fit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import MeanMetric
from toy import ToyData, ToyNet

from tlkit.tasks import Classification

FALLING = [-float(n) for n in range(3 * BATCHES + 1)]
AVERAGES = [ema(FALLING[: BATCHES * epoch + 1], 0.5) for epoch in (1, 2, 3)]
RAW = [-4.0, -8.0, -12.0]


@pytest.mark.parametrize("evaluate", ["raw", "averaged", "both"])
def test_validation_evaluates_what_it_is_told_to(evaluate: Any, tmp_path: Path) -> None:
    rows = fit(Line(), tmp_path, EMAWeights(0.5, evaluate=evaluate), epochs=3)
    assert [row["val/w"] for row in rows] == pytest.approx(RAW if evaluate == "raw" else AVERAGES, rel=1e-12)
    assert [row.get("raw/val/w") for row in rows] == (RAW if evaluate == "both" else [None] * 3)


def test_before_the_start_both_are_the_raw_weights(tmp_path: Path) -> None:
    rows = fit(Line(), tmp_path, EMAWeights(0.5, start=Moment(epoch=1), evaluate="both"), epochs=2)
    assert (rows[0]["val/w"], rows[0]["raw/val/w"]) == (-4.0, -4.0)
    assert (rows[1]["val/w"], rows[1]["raw/val/w"]) == (ema(FALLING[BATCHES : 2 * BATCHES + 1], 0.5), -8.0)


def test_both_are_logged_at_the_same_steps(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    fit(Line(), tmp_path, EMAWeights(0.5, evaluate="both"), epochs=3, logger=logger)
    with open(Path(logger.log_dir) / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["val/w"]]
    assert [float(row["val/w"]) for row in rows] == pytest.approx(AVERAGES)
    assert [float(row["raw/val/w"]) for row in rows] == pytest.approx(RAW)
    assert [row["step"] for row in rows] == ["3", "7", "11"]


def test_tensorboard_shows_one_beside_the_other(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(Line(), tmp_path, EMAWeights(0.5, evaluate="both"), epochs=3, logger=logger)
    events = EventAccumulator(str(tmp_path)).Reload()
    for tag, values in {"val/w": AVERAGES, "raw/val/w": RAW}.items():
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values)
    layout = layout_pb2.Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for category in layout.category for chart in category.chart}
    assert charts["EMA against raw: val/w"] == [r"val/w$", r"raw/val/w$"]
    assert len(charts) == 3


@pytest.mark.parametrize("interval", [1.0, 0.5])
@pytest.mark.parametrize("first", [True, False])
def test_the_raw_metrics_can_be_monitored(first: bool, interval: float, tmp_path: Path) -> None:
    stops, average = EarlyStopping("raw/val/w", stopping_threshold=-7.5), EMAWeights(0.5, evaluate="both")
    keep = ModelCheckpoint(tmp_path, "best", monitor="raw/val/w")
    callbacks = [stops, average, keep] if first else [average, stops, keep]
    arguments: dict[str, Any] = {"enable_checkpointing": True, "val_check_interval": interval}
    fit(Line(), tmp_path, *callbacks, epochs=9, **arguments)
    assert stops.stopped_epoch == 1
    assert keep.best_model_score == -8.0


class Everything(ForeignModule):
    """Dropout in validation too, a stateful metric, and notes of all validation hooks and modes."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()
        self.notes: list[Any] = []

    def on_validation_start(self) -> None:
        self.notes.append("start")

    def on_validation_epoch_start(self) -> None:
        self.notes.append("epoch")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.notes.append((batch_idx, self.training))
        loss = torch.nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.mean(loss)
        self.log("val/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("val/mean", self.mean)
        self.log("val/random", torch.rand(()))

    def on_validation_epoch_end(self) -> None:
        self.notes.append("epoch end")

    def on_validation_end(self) -> None:
        self.notes.append("end")


class Watches(Callback):
    """Notes the validation hooks that callbacks see, and the module's mode in training."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.modes: set[bool] = set()

    def on_train_batch_start(self, running: Any, pl_module: Any, *_: Any) -> None:
        self.modes |= {module.training for module in pl_module.modules()}

    def on_validation_epoch_start(self, *_: Any) -> None:
        self.notes.append("epoch")

    def on_validation_batch_end(self, *_: Any) -> None:
        self.notes.append("batch")


def run(evaluate: Any, tmp_path: Path, module: ForeignModule, validation: Any) -> tuple[Any, ...]:
    torch.manual_seed(1)
    watches, logger = Watches(), CSVLogger(tmp_path / evaluate)
    shuffled = DataLoader(loader().dataset, batch_size=4, shuffle=True)
    running = trainer(tmp_path, watches, EMAWeights(0.5, evaluate=evaluate), epochs=3, logger=logger)
    running.fit(module, shuffled, validation)
    progress = running.fit_loop.epoch_loop.val_loop.batch_progress.state_dict()
    metrics = {key: value.item() for key, value in running.callback_metrics.items()}
    return module.state_dict(), metrics, progress, watches


def unsized() -> Any:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(loader().dataset)  # type: ignore[call-overload]

    return DataLoader(Stream(), batch_size=5)


LOADERS = {
    "plain": loader,
    "unsized": unsized,
    "workers": lambda: DataLoader(loader().dataset, 5, num_workers=1, persistent_workers=True),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_the_second_pass_changes_nothing_else(kind: str, tmp_path: Path) -> None:
    modules = {evaluate: Everything() for evaluate in ("averaged", "both")}
    once, twice = (run(evaluate, tmp_path, module, LOADERS[kind]()) for evaluate, module in modules.items())
    assert all(torch.equal(value, twice[0][key]) for key, value in once[0].items())
    raw = {key: twice[1].pop(key) for key in list(twice[1]) if key.startswith("raw/")}
    assert once[1:3] == twice[1:3]
    assert (once[3].notes, once[3].modes) == (twice[3].notes, twice[3].modes)
    assert {key.removeprefix("raw/") for key in raw} == set(once[1])
    assert raw["raw/val/loss"] == pytest.approx(raw["raw/val/mean"], rel=0.05)  # the last batch may be smaller
    assert raw["raw/val/loss"] != once[1]["val/loss"]


def test_the_module_sees_two_epochs_in_one_validation(tmp_path: Path) -> None:
    module = Everything()
    running = trainer(tmp_path, EMAWeights(0.5, evaluate="both"), epochs=1, num_sanity_val_steps=0)
    running.fit(module, loader(), loader())
    epoch = ["epoch", *((batch, False) for batch in range(3)), "epoch end"]
    assert module.notes == ["start", *epoch, *epoch, "end"]


def test_a_module_that_switches_everything_on_is_still_evaluated_in_evaluation_mode(tmp_path: Path) -> None:
    modes = []

    class Notes(SwitchesEverythingOn):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            modes.append(self.drop.training)

    trainer(tmp_path, EMAWeights(0.5, evaluate="both")).fit(Notes(), loader(), loader())
    assert set(modes) == {False}


def test_each_of_several_loaders_has_its_raw_metrics(tmp_path: Path) -> None:
    class Two(Line):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("val/w", self.w.sum() * 10**dataloader_idx)

    running = trainer(tmp_path, EMAWeights(0.5, evaluate="both"))
    running.fit(Two(), data(), [data(), data(2)])
    found = {key: value.item() for key, value in running.callback_metrics.items()}
    assert found == pytest.approx(
        {
            "val/w/dataloader_idx_0": AVERAGES[1],
            "val/w/dataloader_idx_1": AVERAGES[1] * 10,
            "raw/val/w/dataloader_idx_0": -8.0,
            "raw/val/w/dataloader_idx_1": -80.0,
        }
    )


def test_a_task_draws_its_pictures_of_what_is_evaluated(tmp_path: Path) -> None:
    module = Classification(ToyNet(num_classes=4, in_channels=1))
    running = trainer(tmp_path, EMAWeights(0.5, evaluate="both"))
    running.fit(module, ToyData(cache_dir=str(tmp_path)))
    drawn = module._meters[0].metrics["accuracy"].compute()  # what it draws the last confusion matrix from
    assert drawn == running.callback_metrics["val/accuracy"]
    assert running.callback_metrics["raw/val/loss"] != running.callback_metrics["val/loss"]


def test_a_trainer_without_logging_evaluates_as_well(tmp_path: Path) -> None:
    seen = []

    class Sees(Line):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append(self.w.item())

    running = trainer(tmp_path, EMAWeights(0.5, evaluate="both"), epochs=1, num_sanity_val_steps=0)
    running.fit(Sees(), data(), DataLoader(TensorDataset(torch.zeros(2))))
    assert seen == [-4.0, -4.0, AVERAGES[0], AVERAGES[0]]
