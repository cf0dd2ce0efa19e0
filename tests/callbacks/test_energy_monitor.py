"""EnergyMonitor in a fit, on a scripted clock: seconds and joules by part, rows, labels, resume, two processes."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from fake_machine import UUID, Cards, Clock, FakeCard, Scripted, install, library
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tlkit_callbacks import LayerFreezing
from tlkit_callbacks.energy import rapl, sources, trained
from tlkit_callbacks.energy.counter import Counter, Unreadable
from tlkit_callbacks.energy.trained import samples_in
from tlkit_callbacks.energy_monitor import EnergyMonitor
from torch import Tensor
from toy import ToyData, ToyNet
from two_processes import gloo

from tlkit.cli import main
from tlkit.tasks import Classification


class OnClock(ForeignModule):
    """A training step takes 1 s at 100 W, one of validation 0.5 s at 40 W; there are 3 of each, of 4 images."""

    def __init__(self, clock: Clock, fails_in: int = 99, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.clock, self.fails_in = clock, fails_in

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.clock.advance(1, 100)
        if self.global_step == self.fails_in:
            raise ValueError("bad")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.clock.advance(0.5, 40)


class SlowDisk(TorchCheckpointIO):
    """Writing a checkpoint takes 2 s at 20 W."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        super().save_checkpoint(*args, **kwargs)
        self.clock.advance(2, 20)


class Phases(Callback):
    """Has phases, which begin at the start of given batches."""

    def __init__(self, *starts: int) -> None:
        self.starts = starts

    phase: int

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.phase = sum(trainer.global_step >= start for start in self.starts)
        pl_module.conv1.requires_grad_(self.phase > 0)


def fit(tmp_path: Path, clock: Clock, *callbacks: Any, module: OnClock | None = None, **arguments: Any) -> OnClock:
    module = module or OnClock(clock)
    resume = arguments.pop("ckpt_path", None)
    train = trainer(tmp_path, *callbacks, plugins=[SlowDisk(clock)], **arguments)
    train.fit(module, loader(), loader(), ckpt_path=resume, weights_only=True)
    return module


def table(folder: Path, device: str = "all") -> list[dict[str, str]]:
    with (folder / "energy.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["device"] == device]


def column(rows: list[dict[str, str]], name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def test_training_validation_and_checkpoints_are_measured_apart(tmp_path: Path) -> None:
    clock = Clock()
    monitor = Scripted(clock, 1.0)
    fit(tmp_path, clock, monitor, ModelCheckpoint(tmp_path), enable_checkpointing=True)
    rows = table(tmp_path)
    assert column(rows, "epoch") == [0, 1] and column(rows, "step") == [3, 6]
    for name, value in {
        **{"train_seconds": 3, "validate_seconds": 1.5, "checkpoint_seconds": 2, "seconds": 6.5},
        **{"joules": 3 * 100 + 1.5 * 40 + 2 * 20, "train_joules": 300, "watts": 400 / 6.5},
        **{"samples": 12, "samples_per_second": 4, "samples_per_joule": 12 / 300},
    }.items():
        assert column(rows, name) == pytest.approx([value] * 2, rel=1e-4), name
    summary = monitor.summary()
    assert (summary["joules"], summary["seconds"], summary["samples"]) == (pytest.approx(800), pytest.approx(13), 24)
    assert monitor.energy() == {"joules": pytest.approx(800), "method": "scripted", "scope": "meter 0"}


def test_each_device_has_its_rows_beside_their_sum(tmp_path: Path) -> None:
    clock = Clock()
    monitor = Scripted(clock, 1.0, 0.5)
    fit(tmp_path, clock, monitor)
    joules = {device: column(table(tmp_path, device), "joules") for device in ("all", "meter 0", "meter 1")}
    expected = {"all": [540, 540], "meter 0": [360, 360], "meter 1": [180, 180]}
    assert joules == {device: pytest.approx(values) for device, values in expected.items()}
    assert monitor.summary()["devices"]["meter 1"]["joules"] == pytest.approx(360)
    assert monitor.energy() == {"joules": pytest.approx(1080), "method": "scripted", "scope": "meter 0, meter 1"}


def test_nothing_but_seconds_and_memory_where_nothing_can_be_measured(tmp_path: Path) -> None:
    clock = Clock()
    monitor = Scripted(clock)
    fit(tmp_path, clock, monitor)
    for row in table(tmp_path):
        unknown = {name: row[name] for name in ("joules", "watts", "samples_per_joule", "method", "valid")}
        assert unknown == {"joules": "", "watts": "", "samples_per_joule": "", "method": "none", "valid": "False"}
        assert (float(row["seconds"]), float(row["samples_per_second"])) == (4.5, 4)
        assert float(row["peak_bytes"]) > 1e7
    summary = json.loads(json.dumps(monitor.summary()))
    assert (summary["joules"], summary["method"], monitor.energy()) == (None, "none", None)


@pytest.mark.parametrize("first", [True, False])
def test_a_new_phase_begins_a_new_row_whatever_the_order_of_callbacks(first: bool, tmp_path: Path) -> None:
    clock = Clock()
    monitor, phases = Scripted(clock, 1.0), Phases(2, 3)
    module = fit(tmp_path, clock, *((monitor, phases) if first else (phases, monitor)))
    rows = table(tmp_path)
    labels = [(int(row["epoch"]), int(row["phase"]), int(row["samples"])) for row in rows]
    assert labels == [(0, 0, 8), (0, 1, 4), (1, 2, 12)]
    frozen = module.conv1.weight.numel() / sum(p.numel() for p in module.parameters())
    assert column(rows, "frozen_fraction") == pytest.approx([frozen, 0, 0], abs=1e-6)
    summary = monitor.summary()["phases"]
    assert {name: phase["samples"] for name, phase in summary.items()} == {"0": 8, "1": 4, "2": 12}
    assert sum(phase["joules"] for phase in summary.values()) == pytest.approx(2 * 360)
    assert [phase["frozen_fraction"] for phase in summary.values()] == pytest.approx([frozen, 0, 0])


@pytest.mark.parametrize(("steps", "precision"), [(1, "32-true"), (3, "bf16-mixed")])
def test_rows_carry_precision_and_frozen_fraction(steps: int, precision: Any, tmp_path: Path) -> None:
    clock = Clock()
    freezing = LayerFreezing(["conv1", "conv2"])
    module = fit(tmp_path, clock, Scripted(clock), freezing, precision=precision, accumulate_grad_batches=steps)
    row = table(tmp_path)[-1]
    frozen = 1 - sum(p.numel() for p in module.fc.parameters()) / sum(p.numel() for p in module.parameters())
    assert (row["precision"], float(row["frozen_fraction"])) == (precision, pytest.approx(frozen, abs=1e-6))
    assert (row["stage"], row["samples"], row["cap_requested_watts"]) == ("fit", "12", "")


def test_the_accelerator_is_waited_for_at_edges_and_in_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    monkeypatch.setattr(trained, "synchronize", lambda trainer: waits.append(trainer.global_step))
    counts = []
    for batches in (1, 3):
        waits.clear()
        clock = Clock()
        fit(tmp_path, clock, Scripted(clock, 1.0), limit_train_batches=batches)
        assert set(waits) == {0, batches, 2 * batches}
        counts.append(len(waits))
    assert counts[0] == counts[1]


def test_what_it_measures_it_does_not_change(tmp_path: Path) -> None:
    clock = Clock()
    before = snapshot(fit(tmp_path, clock, epochs=2))
    assert not changed(fit(tmp_path, clock, Scripted(clock, 1.0), epochs=2), before)


def test_the_sanity_check_is_not_part_of_the_run_and_validation_in_mid_epoch_is(tmp_path: Path) -> None:
    clock = Clock()
    fit(tmp_path, clock, Scripted(clock, 1.0), epochs=1, val_check_interval=1, num_sanity_val_steps=2)
    (row,) = table(tmp_path)
    assert (float(row["train_seconds"]), float(row["validate_seconds"])) == (3, 4.5)
    assert float(row["train_joules"]) == pytest.approx(300)


def test_a_resumed_run_has_the_rows_and_totals_of_what_went_before(tmp_path: Path) -> None:
    clock = Clock()
    first = trainer(tmp_path / "first", Scripted(clock, 1.0), plugins=[SlowDisk(clock)], epochs=2)
    first.fit(OnClock(clock), loader(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    clock.advance(3600, 500)  # nobody trains
    monitor = Scripted(clock, 1.0)
    fit(tmp_path / "second", clock, monitor, epochs=5, ckpt_path=tmp_path / "last.ckpt")
    assert column(table(tmp_path / "second"), "epoch") == [0, 1, 2, 3, 4]
    assert column(table(tmp_path / "second"), "joules") == pytest.approx([360] * 5)
    assert monitor.summary()["joules"] == pytest.approx(5 * 360)
    assert monitor.summary()["train_seconds"] == 15


@pytest.mark.filterwarnings("ignore:.*not resumable", "ignore:.*callbacks used to create the checkpoint")
def test_a_run_that_goes_on_from_mid_epoch_counts_each_step_once(tmp_path: Path) -> None:
    clock = Clock()
    saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
    module = OnClock(clock, fails_in=5)
    with pytest.raises(ValueError, match="bad"):
        fit(tmp_path, clock, Scripted(clock, 1.0), saving, module=module, enable_checkpointing=True)
    monitor = Scripted(clock, 1.0)
    fit(tmp_path / "on", clock, monitor, ckpt_path=tmp_path / "step=4.ckpt", epochs=2)
    rows = table(tmp_path / "on")
    assert [(row["epoch"], row["samples"]) for row in rows] == [("0", "12"), ("1", "4"), ("1", "8")]
    assert monitor.summary()["samples"] == 24
    assert monitor.summary()["train_joules"] == pytest.approx(600)


def test_an_edge_that_cannot_be_read_makes_its_epoch_unknown_and_not_the_run(tmp_path: Path) -> None:
    class Fails(Scripted):
        broken = False

        def counters(self, trainer: Any, card: Any) -> list[Counter]:
            def read() -> float:
                if self.broken:
                    raise Unreadable("busy")
                return self.clock.joules

            return [Counter("meter", "scripted", read, self.clock)]

        def on_train_batch_end(self, *arguments: Any) -> None:
            super().on_train_batch_end(*arguments)
            self.broken = arguments[0].global_step == 6  # the edge before the second validation

        def on_validation_batch_start(self, *_: Any) -> None:
            self.broken = False

    clock = Clock()
    monitor = Fails(clock)
    fit(tmp_path, clock, monitor, epochs=3)
    found = [(row["joules"][:3], row["why"]) for row in table(tmp_path)]
    assert found == [("360", ""), ("", "meter: could not be read: busy"), ("360", "")]
    assert monitor.energy() == {"joules": pytest.approx(3 * 360), "method": "scripted", "scope": "meter"}
    assert monitor.summary()["samples_per_joule"] is None


def test_a_run_measured_in_two_ways_has_no_sum(tmp_path: Path) -> None:
    clock = Clock()
    first = trainer(tmp_path, Scripted(clock, 1.0), plugins=[SlowDisk(clock)], epochs=1)
    first.fit(OnClock(clock), loader(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    monitor = Scripted(clock)  # where nothing can be measured
    fit(tmp_path, clock, monitor, ckpt_path=tmp_path / "last.ckpt")
    summary = monitor.summary()
    assert (summary["joules"], summary["seconds"]) == (None, pytest.approx(9))
    assert "not measured in the same way throughout" in summary["why"]
    assert monitor.energy() == {"joules": None, "method": "scripted", "scope": "meter 0"}


def test_what_was_measured_before_an_exception_is_written_and_everything_undone(tmp_path: Path) -> None:
    clock = Clock()
    monitor = Scripted(clock, 1.0)
    train = trainer(tmp_path, monitor, plugins=[SlowDisk(clock)])
    save = train.save_checkpoint
    with pytest.raises(ValueError, match="bad"):
        train.fit(OnClock(clock, fails_in=4), loader(), loader())
    assert column(table(tmp_path), "train_seconds") == [3, 2]
    assert column(table(tmp_path), "samples") == [12, 4]
    assert train.save_checkpoint == save
    train.validate(OnClock(clock), loader(), verbose=False)
    assert monitor.summary()["validate_seconds"] == 1.5


def test_tensorboard_and_other_loggers_have_the_figures_of_each_epoch(tmp_path: Path) -> None:
    clock = Clock()
    loggers = [TensorBoardLogger(tmp_path, "tb", ""), CSVLogger(tmp_path, "csv", "")]
    fit(tmp_path, clock, Scripted(clock, 1.0), Phases(2), logger=loggers)
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    for tag, value in {"energy/watts": 80, "energy/joules": 360, "time/validate_seconds": 1.5}.items():
        points = [(point.step, point.value) for point in events.Scalars(tag)]
        assert points == [(3, pytest.approx(value)), (6, pytest.approx(value))]
    assert {"energy/samples_per_joule", "time/train_seconds", "memory/peak_bytes"} <= set(events.Tags()["scalars"])
    assert column(table(tmp_path / "tb"), "epoch") == [0, 0, 1]  # the run directory of this trainer


def test_an_epoch_too_short_for_its_counter_says_so_and_is_not_charted_but_the_run_is_long_enough(
    tmp_path: Path,
) -> None:
    class Slow(Scripted):
        def counters(self, trainer: Any, card: Any) -> list[Counter]:
            return [Counter("slow", "scripted", lambda: self.clock.now // 0.4 * 30, self.clock)]

    clock = Clock()
    monitor = Slow(clock)
    fit(tmp_path, clock, monitor, limit_train_batches=1, logger=CSVLogger(tmp_path, "csv", ""))
    for row in table(tmp_path / "csv"):
        assert (row["seconds"], row["valid"], row["why"]) == (
            "2.5",
            "False",
            "shorter than 10 periods of the counter (4 s)",
        )
        assert float(row["joules"]) == pytest.approx(75 * 2.5, rel=0.2) and row["samples_per_joule"] == ""
    logged = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()[0]
    assert "time/seconds" in logged and "energy/" not in logged
    assert monitor.summary()["valid"]
    assert monitor.energy() == {"joules": pytest.approx(75 * 5, rel=0.1), "method": "scripted", "scope": "slow"}


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(5, 2), 5),
        ([{"name": "x", "image": torch.zeros(7)}, torch.zeros(9)], 7),
        ((torch.tensor(1.0), torch.zeros(3)), 3),
        ("nothing", 0),
    ],
)
def test_samples_are_the_first_dimension_of_the_first_tensor(batch: Any, samples: int) -> None:
    assert samples_in(batch) == samples


def rank_with_a_card(rank: int, state: Path, path: Path, folder: Path) -> dict[str, Any]:
    """Trains on a card of its own; the machine has one processor with a counter."""
    import os
    import time

    os.environ["FAKE_NVML_STATE"] = str(state)
    install(path)
    trained.cuda_index = lambda trainer: trainer.local_rank
    package = (lambda: time.perf_counter() * 50,)
    rapl.zones = lambda clock, root: ([Counter("package-0", "rapl", *package, clock)], [])

    class Lasts(ForeignModule):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            time.sleep(0.3)  # more than 10 periods of the cards' counters
            return super().training_step(batch, batch_idx)

    monitor = EnergyMonitor()
    train = trainer(folder, monitor, devices=2, strategy="ddp", use_distributed_sampler=False, epochs=1)
    train.fit(Lasts(), loader(), loader())
    return {"own": [meter.counter.device for meter in monitor._meters], "summary": monitor.summary()}


def test_a_rank_measures_its_own_card_and_one_rank_the_processor(tmp_path: Path) -> None:
    state, other = tmp_path / "cards.txt", "GPU-other"
    Cards(state).set(FakeCard(UUID, power=100_000), FakeCard(other, power=200_000))
    found = gloo(rank_with_a_card, state, library(), tmp_path)
    mine, theirs = f"Fake 0 {UUID}", f"Fake 1 {other}"
    assert [rank["own"] for rank in found] == [[mine, "package-0"], [theirs]]
    assert found[0]["summary"] == found[1]["summary"]
    summary = found[0]["summary"]
    assert set(summary["devices"]) == {mine, theirs, "package-0"} and summary["valid"]
    assert summary["joules"] == pytest.approx(sum(f["joules"] for f in summary["devices"].values()))
    assert (summary["samples"], summary["method"]) == (24, "nvml energy counter + rapl")
    assert column(table(tmp_path), "samples") == [24]


def test_tlkit_fit_has_it_in_the_run_directory_and_in_the_result(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "powercap")
    monitor = {"class_path": "tlkit_callbacks.energy_monitor.EnergyMonitor"}
    stages = {"trainer.callbacks": [monitor]}
    pretrain = {"layers": 2, "with": {"data.stage": "pretrain", "trainer.max_epochs": 2} | stages}
    main(["fit", "--config", str(write(pretrain=pretrain, **stages))])
    for stage, epochs in {"pretrain": 2, "transfer": 3}.items():
        (run,) = (tmp_path / "runs" / "toy").glob(f"{stage}-*")
        rows = table(run)
        assert [(row["stage"], int(row["epoch"]), row["samples"]) for row in rows] == [
            (stage, epoch, "48") for epoch in range(epochs)
        ]
        assert min(column(rows, "checkpoint_seconds")) > 0
        result = json.loads((run / "result.json").read_text())
        summary = result["summaries"]["EnergyMonitor"]
        assert (result["energy"], summary["joules"], summary["method"]) == (None, None, "none")
        assert summary["train_seconds"] <= result["seconds"]["fit"]


def test_tlkits_data_and_task_resume_bit_for_bit_with_it(tmp_path: Path) -> None:
    class Reseeded(Classification):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            torch.manual_seed(self.global_step)  # dropout

    def task() -> Classification:
        torch.manual_seed(0)
        return Reseeded(ToyNet(num_classes=4, in_channels=1))

    whole, resumed, data = task(), task(), ToyData(cache_dir=str(tmp_path))
    trainer(tmp_path, EnergyMonitor(), epochs=4).fit(whole, data)
    first = trainer(tmp_path, EnergyMonitor(), epochs=2)
    first.fit(task(), data)
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = EnergyMonitor()
    trainer(tmp_path, second, epochs=4).fit(resumed, data, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert not changed(resumed, snapshot(whole))
    assert second.summary()["samples"] == 4 * 48


def test_on_a_laptop_without_a_counter_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[Any] = []
    monkeypatch.setattr(rapl, "ROOT", tmp_path / "powercap")
    monkeypatch.setattr(sources.log, "log", lambda level, *message: lines.append(level))
    sources.say.cache_clear()
    for _ in range(2):
        trainer(tmp_path, EnergyMonitor(), epochs=1).fit(ForeignModule(), loader(), loader())
    assert lines == [logging.INFO]
