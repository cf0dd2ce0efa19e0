"""WeightUpdateRatio: what it says about a run: flags, warnings, the summary, the chart."""

import json
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tlkit_callbacks.charts import add_chart
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.weight_update_ratio import WeightUpdateRatio
from toy import ToyData, ToyNet
from watched import MEMBERS, Watched, fit

from tlkit.tasks import Classification


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Returns what gives the warnings so far."""
    caplog.set_level(logging.WARNING, "tlkit")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "tlkit"]


class ThreeGroups(ForeignModule):
    """Its layers train at rates of 1e-7, 1e-3 and 1."""

    def configure_optimizers(self) -> Any:
        rates = {"conv1": 1e-7, "conv2": 1e-3, "fc": 1.0}
        return torch.optim.SGD(
            [{"params": [self.get_parameter(key) for key in MEMBERS[name]], "lr": lr} for name, lr in rates.items()]
        )


class Rates(Callback):
    """Sets the rate of each group by the number of the update."""

    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self.rate(trainer.global_step)


def test_layers_that_stay_out_of_range_are_named_once_with_advice(
    tmp_path: Path, warned: Callable[[], list[str]]
) -> None:
    callback = WeightUpdateRatio(every=1)
    logged = fit(ThreeGroups(), tmp_path, callback, epochs=6)
    high, low = warned()  # at the end of the fourth of six epochs
    middle = median(logged[step]["fc"] for step in range(12))
    assert f"too high: fc ({middle:.1e}); " in high and "lower the rate, 10 to 20 % at a time" in high
    assert "too low: conv1 (" in low and "raise the rate" in low
    flags = {name: row["flag"] for name, row in callback.summary().items()}
    assert flags == {"conv1": "too low", "conv2": None, "fc": "too high"}


@pytest.mark.parametrize(
    "rate",
    [
        lambda update: 1.0 if update < 4 else 0.001,
        lambda update: 0.001 if update < 8 else 1e-9,  # the end of a schedule
    ],
    ids=["noisy first steps", "end of a schedule"],
)
def test_the_first_steps_and_the_end_of_a_schedule_flag_nothing(
    rate: Any, tmp_path: Path, warned: Callable[[], list[str]]
) -> None:
    callback = WeightUpdateRatio(every=1)
    logged = fit(ForeignModule(), tmp_path, Rates(rate), callback, epochs=4)
    reached = [ratio for ratios in logged.values() for ratio in ratios.values()]
    assert max(reached) > 1e-2 or min(reached) < 1e-5
    assert not warned() and not any(row["flag"] for row in callback.summary().values())


def test_nine_measurements_are_too_few_to_judge(tmp_path: Path, warned: Callable[[], list[str]]) -> None:
    callback = WeightUpdateRatio(every=1)
    fit(ThreeGroups(), tmp_path, callback, epochs=3)
    assert not warned() and not any(row["flag"] for row in callback.summary().values())


def test_a_frozen_layer_reads_exactly_0_and_is_never_too_low(tmp_path: Path, warned: Callable[[], list[str]]) -> None:
    callback = WeightUpdateRatio(every=1)
    module = ForeignModule(momentum=0.9, weight_decay=0.1)
    logged = fit(module, tmp_path, LayerFreezing(1), callback, epochs=4)
    assert {ratios["conv1"] for ratios in logged.values()} == {0.0}
    assert callback.summary()["conv1"] == {"median": 0.0, "min": 0.0, "max": 0.0, "last": 0.0, "flag": None}
    assert not any("too low" in message for message in warned())


def test_of_a_layer_that_thaws_only_what_it_trained_is_judged(tmp_path: Path) -> None:
    class ThawsAtEpoch3(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: ForeignModule) -> None:
            pl_module.conv1.requires_grad_(trainer.current_epoch >= 3)
            pl_module.norm1.requires_grad_(trainer.current_epoch >= 3)

    callback = WeightUpdateRatio(every=1)
    logged = fit(ForeignModule(lr=0.01), tmp_path, ThawsAtEpoch3(), callback, epochs=7)
    trained = [logged[step]["conv1"] for step in range(9, 21)]
    assert not any(logged[step]["conv1"] for step in range(9)) and all(trained)
    summary = callback.summary()["conv1"]
    assert summary["median"] == median(trained) and summary["min"] == min(trained) and summary["flag"] is None


def test_a_layer_at_rate_0_or_in_no_optimizer_counts_as_frozen(tmp_path: Path, warned: Callable[[], list[str]]) -> None:
    class Partly(ForeignModule):
        def configure_optimizers(self) -> Any:
            first = [*self.conv1.parameters(), *self.norm1.parameters()]
            groups = [{"params": first, "lr": 0.0}, {"params": self.fc.parameters(), "lr": 0.01}]
            return torch.optim.SGD(groups, weight_decay=0.1)

    callback = WeightUpdateRatio(every=1)
    fit(Partly(), tmp_path, callback, epochs=4)
    assert callback.summary()["conv1"]["max"] == callback.summary()["conv2"]["max"] == 0.0
    assert not any("too low" in message for message in warned())


def test_the_summary_is_that_of_the_logged_ratios(tmp_path: Path) -> None:
    callback = WeightUpdateRatio(every=2)
    logged = fit(ForeignModule("AdamW"), tmp_path, callback, epochs=3)
    summary = json.loads(json.dumps(callback.summary(), allow_nan=False))
    assert [*summary] == [*MEMBERS]
    for name, row in summary.items():
        ratios = [values[name] for values in logged.values()]
        assert len(ratios) == 5
        assert [row[k] for k in ("median", "min", "max", "last")] == [
            *(median(ratios), min(ratios), max(ratios), ratios[-1])
        ]


class Reseeds(Callback):
    """Makes dropout a function of the batch."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        torch.manual_seed(trainer.fit_loop.epoch_loop.total_batch_idx)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize(("window", "warned_in"), [(1, 1), (2, 3)], ids=["plain", "accumulated"])
def test_a_resumed_run_ends_with_the_summary_and_warnings_of_the_uninterrupted_one(
    window: int, warned_in: int, tmp_path: Path, warned: Callable[[], list[str]]
) -> None:
    def start(**arguments: Any) -> tuple[Any, LightningModule]:
        torch.manual_seed(0)
        module = Classification(ToyNet(4, 1), optimizer=partial(torch.optim.SGD, lr=1e-3), lr_scale={"fc": 300.0})
        callback, keep = WeightUpdateRatio(every=1), ModelCheckpoint(tmp_path / "kept", "{epoch}", save_top_k=-1)
        run = {"enable_checkpointing": True, "accumulate_grad_batches": window}
        fitter = trainer(tmp_path, Reseeds(), callback, keep, epochs=5, **run)
        fitter.fit(module, ToyData(cache_dir=str(tmp_path)), **arguments)
        return callback.summary(), module

    summary, module = start()
    assert len(warned()) == 1 and summary["fc"]["flag"] == "too high"
    for epoch in range(5):  # after the last one nothing is left to do
        before = len(warned())
        resumed, again = start(ckpt_path=tmp_path / "kept" / f"epoch={epoch}.ckpt", weights_only=True)
        assert resumed == summary
        assert not changed(again, snapshot(module))
        assert len(warned()) - before == (epoch < warned_in)


def test_tensorboard_has_one_chart_of_all_layers_with_the_guide_line(tmp_path: Path) -> None:
    class Another(Callback):
        def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
            add_chart(trainer, "power", ["watts$"])

    module = Watched()
    logger = TensorBoardLogger(tmp_path, name="", version="run")
    trainer(tmp_path, WeightUpdateRatio(every=2), Another(), logger=logger).fit(module, loader(), loader())
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    layout = layout_pb2.Layout()
    layout.ParseFromString(events.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0])
    charts = {chart.title: [*chart.multiline.tag] for category in layout.category for chart in category.chart}
    assert [*charts] == ["update ratio", "power"]
    shown = {tag: curves[tag] for tag in curves if any(re.match(pattern, tag) for pattern in charts["update ratio"])}
    assert set(shown) == {"update_ratio/0.001", *(f"update_ratio/{name}" for name in MEMBERS)}
    assert shown["update_ratio/0.001"] == [(step, pytest.approx(1e-3)) for step in (0, 2, 4)]
    for name in MEMBERS:
        expected = [(step, pytest.approx(module.true[step][name], rel=1e-4)) for step in (0, 2, 4)]
        assert shown[f"update_ratio/{name}"] == expected
