"""All callbacks together, in any order, beside Lightning's own, and resumed within an epoch: the same bits."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, snapshot, trainer
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from tlkit_callbacks import (
    L2SP,
    ChainThaw,
    CyclicCosine,
    EMAWeights,
    EnergyMonitor,
    GradualUnfreezing,
    LayerFreezing,
    LinearProbeThenFineTune,
    Moment,
    OneCycle,
    Phase,
    Plateau,
    PolyakMean,
    ReduceOnPlateau,
    SnapshotEnsemble,
    WeightUpdateRatio,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Logs(ForeignModule):
    """Logs a validation loss; without dropout, as a stock trainer does not restore its generator."""

    def __init__(self) -> None:
        super().__init__(momentum=0.9)
        self.drop = nn.Identity()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))


def everything() -> list[Callback]:
    return [
        LayerFreezing("conv1", start=Moment(epoch=3), end=Moment(epoch=4)),
        GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=1.0)]),
        OneCycle(),
        EMAWeights(0.5, evaluate="both"),
        WeightUpdateRatio(2),
        EnergyMonitor(),
        L2SP(layers="conv1"),
        SnapshotEnsemble(last_epochs=2),
        EarlyStopping("raw/val/loss", patience=50),
    ]


def end(tmp_path: Path, callbacks: list[Callback]) -> dict[str, Tensor]:
    module = Logs()
    trainer(tmp_path, *callbacks, epochs=5).fit(module, loader(), loader())
    return snapshot(module)


def test_the_order_of_callbacks_changes_not_a_bit(tmp_path: Path) -> None:
    first = end(tmp_path, everything())
    generator = random.Random(0)
    for _ in range(4):
        callbacks = everything()
        generator.shuffle(callbacks)
        found = end(tmp_path, callbacks)
        assert not [key for key in first if not torch.equal(first[key], found[key])], callbacks


def test_early_stopping_and_checkpoints_of_lightning_see_the_averaged_metrics(tmp_path: Path) -> None:
    module, early = Logs(), EarlyStopping("val/loss", patience=1, min_delta=100.0)
    keeper = ModelCheckpoint(tmp_path, monitor="val/loss", save_weights_only=True)
    callbacks = [*everything()[:-1], early, keeper]
    run = trainer(tmp_path, *callbacks, epochs=5, enable_checkpointing=True)
    run.fit(module, loader(), loader())
    assert early.stopped_epoch == 1 and run.current_epoch == 2
    best = torch.load(keeper.best_model_path, weights_only=True)["state_dict"]
    plain = Logs()
    plain.load_state_dict(best)
    plain.eval()
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(plain(x), y) for x, y in loader()]
    assert keeper.best_model_score is not None
    assert torch.stack(losses).mean().item() == pytest.approx(keeper.best_model_score.item(), rel=1e-6)


WITHIN_AN_EPOCH: dict[str, Callable[[], list[Callback]]] = {
    "everything": lambda: everything()[:-1],
    "ChainThaw": lambda: [ChainThaw()],
    "LinearProbeThenFineTune": lambda: [LinearProbeThenFineTune(2), OneCycle()],
    "a window": lambda: [LayerFreezing(1, start=Moment(step=2), end=Moment(fraction=0.6))],
    "PolyakMean": lambda: [PolyakMean(every=2)],
    "snapshots": lambda: [CyclicCosine(2), SnapshotEnsemble()],
    "ReduceOnPlateau": lambda: [ReduceOnPlateau(patience=1, min_delta=100.0)],
    "plateaus": lambda: [
        GradualUnfreezing([Phase("fc"), *(Phase(n, rate=1.0, plateau=NEVER_BETTER) for n in ("conv2", "conv1"))])
    ],
}
NEVER_BETTER = Plateau("val/loss", patience=1, min_delta=100.0)
OF_A_METRIC = ("ReduceOnPlateau", "plateaus")
"""From a checkpoint between an epoch's last batch and its validation, Lightning goes on without that validation."""


def alike() -> DataLoader[Any]:
    """Three equal batches: a stock loader does not go on where an epoch was cut off."""
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1)) + 3
    return DataLoader(TensorDataset(images.repeat(3, 1, 1, 1), (torch.arange(4) % 2).repeat(3)), batch_size=4)


class Keeps(Checkpoint):
    """Writes a checkpoint after each update, when ModelCheckpoint does, but is no part of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        path = self.directory / f"{trainer.global_step}.ckpt"
        if not path.exists() and trainer.global_step:
            trainer.save_checkpoint(path)


@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch")
@pytest.mark.parametrize("windows", [1, 2])
@pytest.mark.parametrize("name", WITHIN_AN_EPOCH)
def test_a_run_resumed_after_any_update_ends_in_the_same_bits(name: str, windows: int, tmp_path: Path) -> None:
    def run(*more: Callback, checkpoint: Path | None = None) -> tuple[dict[str, Tensor], int]:
        module = Logs()
        fit = trainer(
            tmp_path,
            *WITHIN_AN_EPOCH[name](),
            *more,
            epochs=4,
            accumulate_grad_batches=windows,
            enable_checkpointing=bool(more),
            num_sanity_val_steps=0,
        )
        fit.fit(module, alike(), alike(), ckpt_path=checkpoint, weights_only=True)
        return snapshot(module), fit.global_step

    whole, updates = run(Keeps(tmp_path))
    ends = range(updates // 4, updates, updates // 4) if name in OF_A_METRIC else ()
    for update in sorted(set(range(1, updates)) - set(ends)):
        resumed, _ = run(checkpoint=tmp_path / f"{update}.ckpt")
        assert not [key for key in whole if not torch.equal(whole[key], resumed[key])], update
