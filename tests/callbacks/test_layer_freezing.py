"""LayerFreezing: which weights moved, and which did not change by a bit."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import LAYERS, ForeignModule, SwitchesEverythingOn, changed, loader, snapshot, trainer
from lightning.pytorch import LightningModule
from tlkit_callbacks import LayerFreezing
from torch import Tensor
from toy import ToyData, ToyNet

from tlkit.errors import UserError
from tlkit.tasks import Classification

HEAD = {"fc.weight", "fc.bias"}


def affine(n: int) -> set[str]:
    return {f"norm{n}.weight", f"norm{n}.bias"}


def statistics(n: int) -> set[str]:
    return {f"norm{n}.running_mean", f"norm{n}.running_var", f"norm{n}.num_batches_tracked"}


LAYER_1 = {"conv1.weight"} | affine(1) | statistics(1)
LAYER_2 = {"conv2.weight"} | affine(2) | statistics(2)
OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "SGD", "momentum": 0.9, "weight_decay": 0.1},
    {"optimizer": "AdamW", "weight_decay": 0.1},
]


def fit(module: LightningModule, tmp_path: Path, *callbacks: Any, **arguments: Any) -> set[str]:
    """Fits with validation and returns the names of what changed."""
    before = snapshot(module)
    trainer(tmp_path, *callbacks, **arguments).fit(module, loader(), loader())
    return changed(module, before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("module", [ForeignModule, SwitchesEverythingOn])
@pytest.mark.parametrize(
    ("norm", "moves"), [("eval", set()), ("affine", statistics(1)), ("train", statistics(1) | affine(1))]
)
def test_a_frozen_layer_of_a_foreign_module_moves_only_as_its_norm_says(
    module: type[ForeignModule], optimizer: dict[str, Any], norm: Any, moves: set[str], tmp_path: Path
) -> None:
    assert fit(module(**optimizer), tmp_path, LayerFreezing(1, norm)) == LAYER_2 | HEAD | moves


def test_nothing_is_frozen_without_it(tmp_path: Path) -> None:
    module = ForeignModule()
    assert fit(module, tmp_path) == set(module.state_dict())


def test_the_frozen_part_computes_the_same_in_training_as_in_evaluation(tmp_path: Path) -> None:
    module = SwitchesEverythingOn()
    seen: dict[bool, Tensor] = {}
    module.norm1.register_forward_hook(lambda _, inputs, output: seen.update({module.training: output.detach()}))
    trainer(tmp_path, LayerFreezing("conv1"), epochs=1).fit(module, loader(), loader())
    assert set(seen) == {True, False}  # the last batch of training and of validation hold the same images
    assert torch.equal(seen[True], seen[False])


def test_several_freeze_the_union_of_their_layers(tmp_path: Path) -> None:
    callbacks = [LayerFreezing("conv1"), LayerFreezing("fc"), LayerFreezing(1)]
    assert fit(ForeignModule(), tmp_path, *callbacks) == LAYER_2


def test_the_order_of_the_layers_does_not_matter_nor_that_the_first_trains(tmp_path: Path) -> None:
    expected = LAYER_1
    assert fit(ForeignModule(), tmp_path, LayerFreezing(["fc", "conv2"])) == expected
    assert fit(ForeignModule(), tmp_path, LayerFreezing(-2)) == expected


def test_gradients_kept_as_zeros_move_nothing_that_is_frozen(tmp_path: Path) -> None:
    class KeepsGradients(ForeignModule):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
            optimizer.zero_grad(set_to_none=False)

    module = KeepsGradients(momentum=0.9, weight_decay=0.1)
    for parameter in module.parameters():  # as an earlier training leaves them
        parameter.grad = torch.ones_like(parameter)
    assert fit(module, tmp_path, LayerFreezing("conv1")) == LAYER_2 | HEAD


def test_two_equal_biases_of_zeros_both_train(tmp_path: Path) -> None:
    module = ForeignModule()
    assert torch.equal(module.norm1.bias, module.norm2.bias) and not module.norm1.bias.any()
    assert fit(module, tmp_path, LayerFreezing("fc")) == LAYER_1 | LAYER_2


def test_a_resumed_run_stays_frozen_and_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    class Reseeded(ForeignModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            torch.manual_seed(self.global_step)  # dropout

    def module() -> Reseeded:
        return Reseeded("AdamW", weight_decay=0.1)

    start = snapshot(module())
    whole = module()
    trainer(tmp_path, LayerFreezing(2), epochs=4).fit(whole, loader(), loader())
    first, checkpoint = trainer(tmp_path, LayerFreezing(2)), tmp_path / "last.ckpt"
    first.fit(module(), loader(), loader())
    first.save_checkpoint(checkpoint)
    resumed, second = module(), trainer(tmp_path, LayerFreezing(2), epochs=4)
    second.fit(resumed, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
    assert changed(resumed, start) == HEAD
    assert not changed(resumed, snapshot(whole))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("conv9", "got 'conv9'; did you mean 'conv2'"),
        (["conv1", "x*"], "valid layers: conv1, conv2, fc"),
        (4, "at most 3 layers, got 4"),
        (3, "all of them frozen: conv1, conv2, fc"),
        ("all", "all of them frozen"),
    ],
)
def test_layers_that_cannot_be_frozen_are_refused_at_the_start(layers: Any, message: str, tmp_path: Path) -> None:
    module = ForeignModule()
    before = snapshot(module)
    with pytest.raises(UserError, match=message.replace("*", r"\*")):
        trainer(tmp_path, LayerFreezing(layers)).fit(module, loader(), loader())
    assert not changed(module, before)


def test_several_that_together_freeze_everything_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all of them frozen"):
        fit(ForeignModule(), tmp_path, *(LayerFreezing(name) for name in LAYERS))


def test_an_evaluation_freezes_nothing(tmp_path: Path) -> None:
    module = ForeignModule()
    trainer(tmp_path, LayerFreezing("all")).validate(module, loader(), verbose=False)
    assert all(parameter.requires_grad for parameter in module.parameters())


def task() -> Classification:
    torch.manual_seed(0)
    return Classification(ToyNet(num_classes=4, in_channels=1))


@pytest.mark.parametrize("norm", ["eval", "affine", "train"])
def test_a_task_freezes_as_a_foreign_module_does(norm: Any, tmp_path: Path) -> None:
    module, data = task(), ToyData(cache_dir=str(tmp_path))
    before = snapshot(module)
    trainer(tmp_path, LayerFreezing("conv1", norm)).fit(module, data)
    moved = {key.removeprefix("network.") for key in changed(module, before) if key.startswith("network.")}
    of_norm = {"eval": set(), "affine": statistics(1), "train": statistics(1) | affine(1)}[norm]
    assert moved == {"conv2.weight", "conv2.bias"} | HEAD | of_norm


@pytest.mark.parametrize(
    ("transferred", "frozen", "named"),
    [(["conv1"], ["conv1"], None), (["conv1"], 2, "conv2"), ([], 2, "conv1, conv2"), (["conv1", "conv2"], 1, None)],
)
def test_freezing_random_weights_warns_with_their_names(
    transferred: list[str], frozen: Any, named: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = task()
    module.transferred = transferred
    caplog.set_level(logging.WARNING, "tlkit")
    trainer(tmp_path, LayerFreezing(frozen), epochs=1).fit(module, ToyData(cache_dir=str(tmp_path)))
    messages = [record.getMessage() for record in caplog.records if record.name == "tlkit"]
    assert len(messages) == (1 if named else 0)
    assert named is None or f"not transferred: {named};" in messages[0]


def test_where_no_transfer_is_known_nothing_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer(tmp_path, LayerFreezing(2), epochs=1).fit(ForeignModule(), loader(), loader())
    assert not [record for record in caplog.records if record.name == "tlkit"]
