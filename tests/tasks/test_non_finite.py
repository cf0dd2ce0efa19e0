"""A loss that is not finite: which step, which samples, which layer."""

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tiny_tasks import QUIET, ImageData, TinyData, classifier, image_network, image_pairs, labelled, trainer
from torch import Tensor, nn

from tlkit.data.batch import Batch
from tlkit.errors import NonFinite
from tlkit.models.network import Network
from tlkit.tasks import Classification, Normalisation, Restoration
from tlkit.tasks.diagnosis import explain
from tlkit.tasks.loss_meter import LossMeter

pytestmark = QUIET
UNIT = Normalisation((0.0,), (1.0,))


class Explodes(nn.Module):
    """Gives infinity from the n-th training batch on."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= self.training
        return x * float("inf") if self.left < 0 else x


class Named(Network):
    """Layers with names of their own."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)
        self.boom = Explodes(after)
        self.layer_modules = {"stem": ("first",), "head": ("second", "boom")}
        self.groups = {}

    def run(self, state: Tensor, start: int, stop: int) -> Tensor:
        for index in range(start, stop):
            state = self.first(state).mean((2, 3)) if index == 0 else self.boom(self.second(state))
        return state


class Poison(Callback):
    """Makes a weight NaN after a step."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if trainer.global_step == self.after:
            with torch.no_grad():
                pl_module.network[4].weight[0, 0] = float("nan")


def test_a_layer_and_a_step_are_named() -> None:
    task = Classification(Named(after=3), normalisation=UNIT)
    with pytest.raises(NonFinite) as caught:
        trainer().fit(task, datamodule=TinyData(labelled(64)))
    message = str(caught.value)
    assert "finite training loss" in message and "at global step 3;" in message
    assert "the input is finite" in message and "layer 'head' is the first whose output is not finite" in message
    assert "model.optimizer.lr" in message
    assert caught.value.exit_code == 3


def test_weights_are_named_before_backward() -> None:
    task = Classification(classifier(), normalisation=UNIT)
    with pytest.raises(NonFinite, match=r"global step 2;.*layer '4' is the first with weights that are not finite"):
        trainer(callbacks=[Poison(after=2)]).fit(task, datamodule=TinyData(labelled(64)))
    assert not task.network[0].weight.isnan().any()  # no step was taken with it


def test_bad_samples_are_named_by_their_row() -> None:
    inputs, labels = labelled(32)
    inputs[13, 0, 2, 2], inputs[9, 0, 0, 0] = float("nan"), float("inf")
    with pytest.raises(NonFinite, match=r"global step 1; the input is not finite in samples 9, 13 \(rows of the data"):
        trainer().fit(Classification(classifier(), normalisation=UNIT), datamodule=TinyData((inputs, labels)))


def test_a_bad_target_is_named() -> None:
    noisy, clean = image_pairs()
    clean[3, 0, 1, 1] = float("nan")
    with pytest.raises(NonFinite, match="the input is finite; the target is not finite"):
        trainer().fit(Restoration(image_network()), datamodule=ImageData((noisy, clean)))


def test_validation_raises_too() -> None:
    task = Classification(classifier(), normalisation=UNIT)
    data = TinyData(labelled(), labelled(seed=1))
    with pytest.raises(NonFinite, match=r"finite validation loss, got nan at global step 2;.*layer '4'"):
        trainer(callbacks=[Poison(after=2)]).fit(task, datamodule=data)


def test_a_network_without_layers_is_told_by_module() -> None:
    task = Restoration(nn.Sequential(nn.Identity(), Explodes(after=0)), normalisation=UNIT)
    task.adapt(ImageData())
    error = explained(task, Batch(*image_pairs(2), torch.arange(2)))
    assert "module '1' is the first whose output is not finite" in error


def test_a_loss_alone_may_be_at_fault() -> None:
    task = Restoration(image_network(), normalisation=UNIT)
    task.adapt(ImageData())
    batch = Batch(*image_pairs(2), torch.arange(2))
    meter = LossMeter()
    meter.add(torch.tensor(float("inf")), batch, 7)
    entry = meter.flush()
    assert entry is not None
    message = str(explain("training loss", entry, batch, task.normalise, task.network))
    assert "got inf at global step 7" in message and "only the loss is not" in message


def explained(task: Restoration, batch: Batch) -> str:
    meter = LossMeter()
    meter.add(task.criterion(task(batch.input), batch.target), batch, 0)
    entry = meter.flush()
    assert entry is not None
    return str(explain("training loss", entry, batch, task.normalise, task.network))


class OnDevice(LossMeter):
    """Keeps what it would keep on an accelerator."""

    def add(self, loss: Tensor, batch: Batch, step: int) -> None:
        super().add(loss, batch, step)
        self._waiting[-1] = self._waiting[-1]._replace(sums=batch.input.flatten(1).sum(1))


def test_a_late_check_still_names_the_first_step_and_its_samples() -> None:
    meter = OnDevice()
    for step in range(5):
        noisy, clean = image_pairs(2)
        noisy[1] = float("nan") if step == 2 else noisy[1]
        batch = Batch(noisy, clean, torch.tensor([10 * step, 10 * step + 1]))
        meter.add(torch.tensor(float("nan") if step >= 2 else 0.5), batch, step)
    entry = meter.flush()
    assert entry is not None and (meter.total, meter.samples) == (2.0, 4)
    batch = Batch(*image_pairs(2), torch.arange(2))
    message = str(explain("training loss", entry, batch, lambda x: x, image_network()))
    assert "global step 2; the input is not finite in sample 21 (rows of the data set)" in message


def test_a_late_check_says_that_it_is_late() -> None:
    network = image_network()
    with torch.no_grad():
        network[0].weight.fill_(float("nan"))
    meter = OnDevice()
    for step in range(3):
        batch = Batch(*image_pairs(2), torch.arange(2))
        meter.add(torch.tensor(float("nan") if step else 0.5), batch, step)
    entry = meter.flush()
    assert entry is not None
    message = str(explain("training loss", entry, batch, lambda x: x, network))
    assert "global step 1; the input is finite; layer '0' is the first with weights" in message
    assert "by the time of this check" in message
    assert "layer '0'" in str(explain("training loss", entry, None, lambda x: x, network))
