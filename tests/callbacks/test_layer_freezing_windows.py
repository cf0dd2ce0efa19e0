"""LayerFreezing for a part of a run: which weights moved in which update, and which did not change by a bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, SwitchesEverythingOn, changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from torch import Tensor, nn

from tlkit.errors import UserError

BATCHES, EPOCHS = 3, 4
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "SGD", "momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": "AdamW", "weight_decay": 0.1},
]


class Moves(Callback):
    """Notes what each batch changes."""

    def __init__(self) -> None:
        self.batches: list[set[str]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = snapshot(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append(changed(pl_module, self.before))


class KeepsGradients(ForeignModule):
    """Its gradients are zeros, not None, after each step."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=False)


def moved(tmp_path: Path, *callbacks: Any, module: Any = None, **arguments: Any) -> list[set[str]]:
    """The names of what each batch of four epochs of three updates changes."""
    moves = Moves()
    arguments = {"epochs": EPOCHS} | arguments
    trainer(tmp_path, *callbacks, moves, **arguments).fit(module or ForeignModule(), loader(), loader())
    return moves.batches


def frozen_in(batches: list[set[str]], name: str) -> list[int]:
    return [number for number, found in enumerate(batches) if name not in found]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ({"epoch": 1}, {"epoch": 3}, range(3, 9)),
        ({"epoch": 2}, None, range(6, 12)),
        (None, {"epoch": 2}, range(6)),
        ({"step": 4}, {"step": 5}, [4]),
        ({"fraction": 0.25}, {"fraction": 0.5}, range(3, 6)),
        ({"step": 2}, {"epoch": 2}, range(2, 6)),
        ({"epoch": 0}, {"step": 1}, [0]),
    ],
)
@pytest.mark.parametrize("module", [ForeignModule, SwitchesEverythingOn, KeepsGradients])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
def test_in_its_window_and_nowhere_else_not_a_bit_changes(
    start: Any, end: Any, expected: Any, module: Any, optimizer: dict[str, Any], tmp_path: Path
) -> None:
    window = LayerFreezing("conv1", start=Moment(**start) if start else None, end=Moment(**end) if end else None)
    batches = moved(tmp_path, window, module=module(**optimizer))
    for name in ("conv1.weight", "norm1.weight", "norm1.running_mean"):
        assert frozen_in(batches, name) == list(expected)
    assert frozen_in(batches, "conv2.weight") == []


def test_after_a_window_momentum_starts_afresh(tmp_path: Path) -> None:
    class Gradients(Callback):
        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            if trainer.global_step == 6:
                self.weight, self.gradient = pl_module.fc.weight.clone(), pl_module.fc.weight.grad.clone()

        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 7:
                self.step = pl_module.fc.weight - self.weight

    seen = Gradients()
    window = LayerFreezing("fc", start=Moment(epoch=1), end=Moment(epoch=2))
    moved(tmp_path, window, seen, module=ForeignModule(momentum=0.9))
    torch.testing.assert_close(seen.step, -0.1 * seen.gradient)  # lr 0.1


def test_several_windows_with_norms_of_their_own(tmp_path: Path) -> None:
    batches = moved(
        tmp_path,
        LayerFreezing("conv1", "train", end=Moment(epoch=2)),
        LayerFreezing(["conv1", "conv2"], "affine", start=Moment(epoch=1), end=Moment(epoch=3)),
        LayerFreezing("all", "statistics", start=Moment(step=10), end=Moment(step=11)),
    )
    assert frozen_in(batches, "conv1.weight") == list(range(9))
    assert frozen_in(batches, "norm1.weight") == list(range(3, 9))
    assert frozen_in(batches, "conv2.weight") == frozen_in(batches, "norm2.weight") == list(range(3, 9))
    assert frozen_in(batches, "norm1.running_mean") == frozen_in(batches, "norm2.running_mean") == [10]
    assert frozen_in(batches, "fc.weight") == []


def test_statistics_alone_are_frozen_around_the_peak(tmp_path: Path) -> None:
    window = LayerFreezing("all", "statistics", Moment(fraction=0.25), Moment(fraction=0.5))
    batches = moved(tmp_path, window)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert frozen_in(batches, f"norm1.{name}") == frozen_in(batches, f"norm2.{name}") == [3, 4, 5]
    assert frozen_in(batches, "norm1.weight") == frozen_in(batches, "conv1.weight") == []


@pytest.mark.parametrize(("window", "updates"), [(2, [(0, 1), (2,)]), (3, [(0, 1, 2)])])
def test_updates_are_counted_not_batches(window: int, updates: list[tuple[int, ...]], tmp_path: Path) -> None:
    freezing = LayerFreezing("conv1", start=Moment(step=1), end=Moment(step=3))
    batches = moved(tmp_path, freezing, accumulate_grad_batches=window)
    numbered = [tuple(BATCHES * epoch + n for n in part) for epoch in range(EPOCHS) for part in updates]
    expected = [batch for part in numbered[1:3] for batch in part]
    assert frozen_in(batches, "norm1.running_mean") == expected  # they follow each batch
    steps = [part[-1] for part in numbered]
    trains = [batch for batch in range(12) if batch in steps and batch not in expected]
    assert [batch for batch in range(12) if "conv1.weight" in batches[batch]] == trains


def test_under_autocast(tmp_path: Path) -> None:
    window = LayerFreezing("conv1", start=Moment(epoch=1), end=Moment(epoch=2))
    batches = moved(tmp_path, window, module=ForeignModule("AdamW", weight_decay=0.1), precision="bf16-mixed")
    assert frozen_in(batches, "conv1.weight") == frozen_in(batches, "norm1.running_var") == [3, 4, 5]


class Reseeded(ForeignModule):
    """Dropout depends on the step alone."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(self.global_step)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_resumed_before_inside_or_after_a_window_ends_as_the_uninterrupted_one(
    stop: int, optimizer: dict[str, Any], tmp_path: Path
) -> None:
    class Save(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch + 1}.ckpt")

    def callbacks() -> list[Callback]:
        return [
            LayerFreezing("conv1", start=Moment(step=5), end=Moment(fraction=0.6)),
            LayerFreezing("fc", end=Moment(epoch=2)),
        ]

    whole = Reseeded(**optimizer)
    trainer(tmp_path, *callbacks(), Save(), epochs=EPOCHS).fit(whole, loader(), loader())
    resumed, again = Reseeded(**optimizer), trainer(tmp_path, *callbacks(), epochs=EPOCHS)
    again.fit(resumed, loader(), loader(), ckpt_path=tmp_path / f"{stop}.ckpt", weights_only=True)
    assert not changed(resumed, snapshot(whole))


class Wrapped(LightningModule):
    """A network as an attribute, compiled or not."""

    def __init__(self, compiled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        body = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)]
        self.network = torch.compile(nn.Sequential(*body), backend="eager") if compiled else nn.Sequential(*body)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("whole_module", [True, False])
def test_compiled_as_a_whole_or_in_its_network_it_freezes_as_it_does_plain(whole_module: bool, tmp_path: Path) -> None:
    plain, compiled = Wrapped(False), Wrapped(not whole_module)
    ends = []
    for module in (plain, compiled):
        moves, window = Moves(), LayerFreezing(1, start=Moment(epoch=1), end=Moment(epoch=2))
        target = torch.compile(module, backend="eager") if whole_module and module is compiled else module
        trainer(tmp_path, window, moves, epochs=3).fit(target, loader())
        names = [key for key in module.state_dict() if ".0." in key or ".1." in key]
        assert all(frozen_in(moves.batches, name) == [3, 4, 5] for name in names)
        ends.append(list(module.state_dict().values()))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b)


def test_windows_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an end after the start, got start epoch 3 and end epoch 3"):
        LayerFreezing(1, start=Moment(epoch=3), end=Moment(epoch=3))
    with pytest.raises(UserError, match="got epoch 3, which is update 9, and step 2, which is update 2"):
        moved(tmp_path, LayerFreezing(1, start=Moment(epoch=3), end=Moment(step=2)))
    with pytest.raises(UserError, match="exactly one of epoch, step, fraction, got epoch, step"):
        Moment(epoch=1, step=2)
    with pytest.raises(UserError, match="got 'conv9'; did you mean 'conv2'"):
        moved(tmp_path, LayerFreezing("conv9", start=Moment(epoch=3)))
    with pytest.raises(UserError, match="all of them frozen"):
        moved(tmp_path, LayerFreezing("all", start=Moment(epoch=3)))
    with pytest.raises(UserError, match="LayerFreezing, fraction 0.5: expected a run whose number of updates is known"):
        moved(tmp_path, LayerFreezing(1, start=Moment(fraction=0.5)), max_time={"hours": 1})
