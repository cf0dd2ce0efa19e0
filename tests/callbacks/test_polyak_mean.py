"""PolyakMean: the mean of what the weights were. All else it shares with EMAWeights, and with its tests."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from line import BATCHES, Line, data, fit
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.polyak_mean import PolyakMean
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn


class Remembers(Callback):
    """Keeps the weights after each update."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_start(self, running: Trainer, pl_module: LightningModule) -> None:
        self.torchs = AveragedModel(pl_module, multi_avg_fn=get_swa_multi_avg_fn())
        running.optimizers[0].register_step_post_hook(lambda *_: self.note(pl_module))

    def note(self, module: LightningModule) -> None:
        self.torchs.update_parameters(module)
        self.weights.append({key: value.detach().clone() for key, value in module.named_parameters()})


@pytest.mark.parametrize("arguments", [{}, {"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}], ids=str)
def test_it_is_the_mean_of_the_weights_after_each_update(arguments: dict[str, Any], tmp_path: Path) -> None:
    module, remembers = ForeignModule(), Remembers()
    trainer(tmp_path, PolyakMean(), remembers, epochs=3, **arguments).fit(module, loader(), loader())
    assert len(remembers.weights) == 6 if "accumulate_grad_batches" in arguments else 9
    for name, value in module.named_parameters():
        mean = torch.stack([weights[name] for weights in remembers.weights]).double().mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
        assert torch.equal(value, remembers.torchs.module.get_parameter(name))


def test_it_counts_from_its_start_and_every_so_many_updates(tmp_path: Path) -> None:
    module, callback = Line(), PolyakMean(Moment(epoch=1), every=2)
    rows = fit(module, tmp_path, callback, epochs=3)
    assert rows[0]["val/w"] == -BATCHES  # before it, the raw weights
    assert rows[1]["val/w"] == pytest.approx(fmean([-6, -8]))
    assert module.w.item() == pytest.approx(fmean([-6, -8, -10, -12]))
    assert callback.summary() == {"averaged": 4, "evaluate": "averaged"}


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_counts_on(epochs: int, tmp_path: Path) -> None:
    def mean() -> PolyakMean:
        return PolyakMean(Moment(step=3), every=3, evaluate="both")

    fit(whole := Line(), tmp_path, mean(), epochs=4)
    first, running = (trainer(tmp_path, mean(), epochs=number) for number in (epochs, 4))
    first.fit(Line(), data(), data())
    first.save_checkpoint(tmp_path / "last.ckpt")
    running.fit(resumed := Line(), data(), data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.w.item() == whole.w.item() == pytest.approx(fmean([-6, -9, -12, -15]))
