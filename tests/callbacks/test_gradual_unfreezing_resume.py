"""GradualUnfreezing: runs that are resumed, and phases that begin with the best weights."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from thawing import BATCHES, Named, Watch, run
from tlkit_callbacks.chain_thaw import ChainThaw
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.step_decay import StepDecay
from toy import ToyData, ToyNet

from tlkit.errors import UserError
from tlkit.recorder import Recorder
from tlkit.tasks import Classification


def classification() -> Classification:
    torch.manual_seed(0)
    network = ToyNet(num_classes=4, in_channels=1)
    return Classification(network, optimizer=lambda groups: torch.optim.AdamW(groups, 0.01))


class Kept(Recorder):
    """Keeps both checkpoints of every epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        folder = self.directory / str(trainer.current_epoch + 1)
        shutil.copytree(self.directory / "checkpoints", folder / "checkpoints")


def toy_run(callbacks: list[Callback], folder: Path, tmp_path: Path, checkpoint: Path | None = None) -> LightningModule:
    folder.mkdir(exist_ok=True)
    recorder = Kept(folder, "val/loss", "min", {"stage": "transfer"}, 0)
    module = classification()
    runner = trainer(folder, *callbacks, recorder, epochs=6, enable_checkpointing=True, num_sanity_val_steps=0)
    runner.fit(module, ToyData(cache_dir=str(tmp_path)), ckpt_path=checkpoint, weights_only=True)
    return module


class ThawBelow(GradualUnfreezing):
    """Begins the next phase once the training loss is below a limit: one for each phase after the first."""

    def __init__(self, limits: list[float], layers_per_phase: int = 1) -> None:
        super().__init__(layers_per_phase=layers_per_phase)
        self.limits = limits

    def due(self, trainer: Any, pl_module: LightningModule, phase: Phase) -> str | None:
        loss, limit = trainer.callback_metrics.get("train/loss"), self.limits[self.phase]
        return f"train/loss below {limit:g}" if loss is not None and loss < limit else None


PROTOCOLS: dict[str, Callable[[], list[Callback]]] = {
    "generated": lambda: [GradualUnfreezing(epochs_per_phase=2)],
    "in mid-epoch": lambda: [
        GradualUnfreezing(
            [Phase("fc"), Phase("conv2", step=8, restart=True), Phase("conv1", fraction=0.7, rate_before=0.5)]
        ),
        StepDecay(every=1, factor=0.7),
    ],
    "plateaus": lambda: [
        GradualUnfreezing(
            [
                Phase("fc"),
                Phase("conv2", plateau=Plateau("val/loss", patience=1, min_delta=9.0), restore_best=True),
                Phase("conv1", plateau=Plateau("val/loss", patience=2, min_delta=9.0), restore_best=True),
            ]
        )
    ],
    "a training loss": lambda: [ThawBelow([1.7, 1.3])],
    "one layer at a time": lambda: [ChainThaw()],
}


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_run_resumed_after_any_epoch_ends_as_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    callbacks = PROTOCOLS[name]()
    whole = snapshot(toy_run(callbacks, tmp_path / "whole", tmp_path))
    begins = [phase["step"] for phase in callbacks[0].summary()["phases"]]  # type: ignore[attr-defined]
    assert begins == sorted(set(begins)) and len(begins) >= 3, begins  # all of them have begun
    for epoch in range(1, 6):
        folder = tmp_path / f"from{epoch}"
        shutil.copytree(tmp_path / "whole" / str(epoch), folder)
        again = PROTOCOLS[name]()
        resumed = toy_run(again, folder, tmp_path, folder / "checkpoints" / "last.ckpt")
        assert not changed(resumed, whole), epoch
        assert again[0].summary() == callbacks[0].summary()  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_the_best_checkpoint_of_a_later_moment_is_not_restored(tmp_path: Path) -> None:
    def callbacks() -> list[Callback]:
        return [GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, restore_best=True)])]

    toy_run(callbacks(), tmp_path / "whole", tmp_path)
    folder = tmp_path / "again"
    shutil.copytree(tmp_path / "whole" / "1", folder)
    shutil.copy(tmp_path / "whole" / "3" / "checkpoints" / "last.ckpt", folder / "checkpoints" / "best.ckpt")
    with pytest.raises(UserError, match="the best checkpoint up to step 6, got .*best.ckpt of step 18"):
        toy_run(callbacks(), folder, tmp_path, folder / "checkpoints" / "last.ckpt")


def test_a_run_resumed_after_the_thaw_trains_what_was_thawed(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, GradualUnfreezing(), epochs=3), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    module = Named()
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    before, second = snapshot(module), trainer(tmp_path, GradualUnfreezing(), epochs=4)
    second.fit(module, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
    assert {"conv1.weight", "conv2.weight", "fc.weight"} <= changed(module, before)


def test_a_checkpoint_of_a_run_without_it_is_gone_on_with(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, epochs=2), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    watch, gradual = Watch(), GradualUnfreezing()
    trainer(tmp_path, gradual, watch, epochs=3).fit(
        Named(), loader(), loader(), ckpt_path=checkpoint, weights_only=True
    )
    assert watch.trains == ["conv2 fc", "conv1 conv2 fc", "conv1 conv2 fc"]


def test_a_checkpoint_of_other_phases_is_refused(tmp_path: Path) -> None:
    first, checkpoint = trainer(tmp_path, GradualUnfreezing(), epochs=3), tmp_path / "last.ckpt"
    first.fit(Named(), loader(), loader())
    first.save_checkpoint(checkpoint)
    second = trainer(tmp_path, GradualUnfreezing(layers_per_phase=2), epochs=4)
    with pytest.raises(UserError, match="those of the checkpoint, at least 3, got 2"):
        second.fit(Named(), loader(), loader(), ckpt_path=checkpoint, weights_only=True)


def test_a_second_fit_of_the_same_module_begins_with_the_first_phase(tmp_path: Path) -> None:
    module, gradual = Named(), GradualUnfreezing()
    with pytest.raises(UserError, match="stop"):  # in the first phase: two layers are left frozen
        run(module, tmp_path, gradual, Stop(), epochs=3)
    assert not module.conv1.weight.requires_grad and not module.norm1.training
    watch = run(module, tmp_path, LayerFreezing("fc"), epochs=1)
    assert watch.trains[0] == watch.moved[1] == "conv1 conv2"
    assert run(module, tmp_path, gradual, epochs=3).trains[::BATCHES] == ["fc", "conv2 fc", "conv1 conv2 fc"]


class Stop(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        raise UserError("stop")


def test_a_phase_may_begin_with_the_best_weights_and_a_fresh_optimizer(tmp_path: Path) -> None:
    class Keep(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 6:
                self.weights = snapshot(pl_module)
                self.momentum = dict(trainer.optimizers[0].state)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 0:
                self.best = snapshot(pl_module)

    keep, gradual = Keep(), GradualUnfreezing([Phase("fc"), Phase("rest", epoch=2, restore_best=True)])
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    module = Named(losses=[0.1, 0.5, 0.5], momentum=0.9)
    trainer(tmp_path, gradual, keep, best, epochs=3, enable_checkpointing=True).fit(module, loader(), loader())
    assert all(torch.equal(value, keep.best[key]) for key, value in keep.weights.items())
    assert not keep.momentum


@pytest.mark.parametrize("callbacks", [[], [ModelCheckpoint()]])
def test_without_a_best_checkpoint_there_is_nothing_to_restore(callbacks: list[Any], tmp_path: Path) -> None:
    gradual = GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, restore_best=True)])
    with pytest.raises(UserError, match="expected a ModelCheckpoint with a monitor"):
        run(Named(), tmp_path, gradual, *callbacks, enable_checkpointing=bool(callbacks))


def test_before_the_first_checkpoint_the_weights_stay_and_that_is_said(tmp_path: Path, caplog: Any) -> None:
    gradual = GradualUnfreezing([Phase("fc"), Phase("rest", step=1, restore_best=True)])
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    watch = run(Named(losses=[1.0]), tmp_path, gradual, best, epochs=1, enable_checkpointing=True)
    assert watch.trains == ["fc", "conv1 conv2 fc", "conv1 conv2 fc"]
    assert "no checkpoint yet that could be restored" in caplog.text
