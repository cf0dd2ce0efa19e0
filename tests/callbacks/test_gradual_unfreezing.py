"""GradualUnfreezing: what trains when, in every circumstance, and what is said of it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import changed, loader, snapshot, trainer
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from thawing import BATCHES, Named, run
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau


def test_by_default_it_thaws_one_layer_an_epoch_from_the_last_to_the_first(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(), epochs=4)
    assert watch.trains[::BATCHES] == ["fc", "conv2 fc", "conv1 conv2 fc", "conv1 conv2 fc"]
    assert watch.trains == [names for names in watch.trains[::BATCHES] for _ in range(BATCHES)]
    assert watch.moved[1:] == watch.trains[1:]  # to the bit: what is frozen does not move, its statistics neither


def test_several_layers_and_several_epochs_per_phase(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(layers_per_phase=2, epochs_per_phase=2), epochs=3)
    assert watch.trains[::BATCHES] == ["conv2 fc", "conv2 fc", "conv1 conv2 fc"]


def test_a_layer_in_no_phase_stays_frozen(tmp_path: Path) -> None:
    module = Named(optimizer="AdamW", weight_decay=0.1)
    before = snapshot(module)
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("conv2", epoch=1)]), epochs=3)
    assert {key.partition(".")[0] for key in changed(module, before)} == {"conv2", "norm2", "fc"}


@pytest.mark.parametrize(
    ("trigger", "first"),
    [
        ({"epoch": 2}, 6),
        ({"step": 4}, 4),
        ({"fraction": 0.25}, 3),
        ({"epoch": 3, "step": 4}, 4),
        ({"epoch": 3, "step": 4, "when": "all"}, 9),
        ({"plateau": Plateau("val/loss", patience=1)}, 6),
        ({"plateau": Plateau("val/loss", patience=2)}, 9),
        ({"plateau": Plateau("val/loss", patience=2), "step": 5}, 5),
        ({"plateau": Plateau("val/loss", patience=1), "epoch": 3, "when": "all"}, 9),
    ],
)
def test_every_trigger_thaws_before_the_update_that_it_names(trigger: Any, first: int, tmp_path: Path) -> None:
    module = Named(losses=[1.0, 1.0, 1.0, 1.0])
    watch = run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", **trigger)]), epochs=4)
    assert watch.trains == ["fc"] * first + ["conv1 conv2 fc"] * (12 - first)


def test_a_plateau_counts_from_the_beginning_of_the_phase_before(tmp_path: Path) -> None:
    plateau = Plateau("val/loss", patience=2)
    phases = [Phase("fc"), Phase("conv2", epoch=1), Phase("conv1", plateau=plateau)]
    watch = run(Named(losses=[0.5, 1.0, 1.0, 1.0, 1.0]), tmp_path, GradualUnfreezing(phases), epochs=5)
    assert watch.trains[::BATCHES] == ["fc", "conv2 fc", "conv2 fc", "conv2 fc", "conv1 conv2 fc"]


def test_phases_that_are_due_at_once_begin_one_update_after_the_other(tmp_path: Path) -> None:
    slow = Plateau("val/loss", patience=2)
    gradual = GradualUnfreezing(
        [Phase("fc"), Phase("conv2", plateau=slow, when="all", step=1), Phase("conv1", epoch=1)]
    )
    watch = run(Named(losses=[1.0] * 4), tmp_path, gradual, epochs=4)
    assert watch.trains == ["fc"] * 9 + ["conv2 fc"] + ["conv1 conv2 fc"] * 2
    assert [(phase["epoch"], phase["step"], phase["why"]) for phase in gradual.summary()["phases"]] == [
        (0, 0, "start"),
        (3, 9, "step 1 and val/loss no better for 2 epochs"),
        (3, 10, "epoch 1"),
    ]


class AtBatch(GradualUnfreezing):
    """Is due at the second batch of each epoch."""

    def due(self, trainer: Any, pl_module: LightningModule, phase: Phase) -> str | None:
        return "second batch" if trainer.fit_loop.epoch_loop.batch_idx >= 1 else None


@pytest.mark.parametrize(("window", "second", "third"), [(1, 1, 2), (2, 2, 5), (3, None, None)])
def test_no_phase_begins_within_a_window_of_accumulated_batches(
    window: int, second: int | None, third: int | None, tmp_path: Path
) -> None:
    watch = run(Named(), tmp_path, AtBatch(), epochs=2, accumulate_grad_batches=window)
    for names, first in (("conv2 fc", second), ("conv1 conv2 fc", third)):
        assert (watch.trains.index(names) if names in watch.trains else None) == first


def test_under_autocast_what_is_frozen_stays_to_the_bit(tmp_path: Path) -> None:
    watch = run(Named(), tmp_path, GradualUnfreezing(), epochs=3, precision="bf16-mixed")
    assert watch.moved[1:] == watch.trains[1:]


def test_a_window_of_freezing_beside_it_adds_to_what_is_frozen(tmp_path: Path) -> None:
    window = LayerFreezing("fc", start=Moment(epoch=1), end=Moment(epoch=2))
    assert run(Named(), tmp_path, window, GradualUnfreezing(), epochs=3).trains[::BATCHES] == [
        "fc",
        "conv2",
        "conv1 conv2 fc",
    ]


def test_what_the_module_keeps_fixed_stays_fixed_when_its_layer_is_thawed(tmp_path: Path) -> None:
    class Fixed(Named):
        def __init__(self) -> None:
            super().__init__()
            self.norm1.bias.requires_grad_(False)

    module = Fixed()
    before = snapshot(module)
    run(module, tmp_path, GradualUnfreezing(), epochs=4)
    assert set(before) - changed(module, before) == {"norm1.bias"}


def test_a_compiled_module_thaws_as_a_plain_one(tmp_path: Path) -> None:
    plain, compiled = Named(momentum=0.9), Named(momentum=0.9)
    plain.drop.p = compiled.drop.p = 0.0
    run(plain, tmp_path, GradualUnfreezing(), epochs=3)
    trainer(tmp_path, GradualUnfreezing(), epochs=3).fit(torch.compile(compiled, backend="eager"), loader(), loader())
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], value)


def test_each_transition_is_in_the_log_and_the_summary(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "tlkit")
    gradual = GradualUnfreezing(
        [Phase("fc"), Phase("conv2", step=2), Phase("conv1", epoch=1, plateau=Plateau("val/loss", patience=1))]
    )
    run(Named(losses=[1.0, 1.0]), tmp_path, gradual, epochs=2)
    assert [record.getMessage() for record in caplog.records if "begins" in record.getMessage()] == [
        "epoch 0, step 2: phase 1 begins (step 2); it thaws conv2 (rate × 0.1), goes on with fc (rate × 1)",
        "epoch 1, step 3: phase 2 begins (epoch 1); it thaws conv1 (rate × 0.1), goes on with fc (rate × 1), "
        "conv2 (rate × 0.1)",
    ]
    assert gradual.summary() == {
        "phases": [
            {"layers": ["fc"], "epoch": 0, "step": 0, "why": "start"},
            {"layers": ["conv2"], "epoch": 0, "step": 2, "why": "step 2"},
            {"layers": ["conv1"], "epoch": 1, "step": 3, "why": "epoch 1"},
        ]
    }
    assert gradual.phase == 2


def test_tensorboard_shows_phases_and_thawed_layers_as_steps(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    run(Named(), tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", step=4)]), epochs=2, logger=logger)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    points = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in ("phase", "trains/conv1", "trains/fc")}
    step = [(0, 0.0), (3, 0.0), (4, 1.0), (5, 1.0)]
    assert points == {"phase": step, "trains/conv1": step, "trains/fc": [(s, 1.0) for s, _ in step]}
