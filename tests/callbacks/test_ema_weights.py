"""EMAWeights: the values of the average, and when it averages."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from line import BATCHES, Line, ema, fit
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from two_processes import gloo


class Torchs(Callback):
    """Torch's own average of all parameters, brought up to date from within the optimizer."""

    def __init__(self, decay: float, **arguments: Any) -> None:
        self.arguments = {"multi_avg_fn": get_ema_multi_avg_fn(decay)} | arguments

    def on_train_start(self, running: Trainer, pl_module: LightningModule) -> None:
        self.model = AveragedModel(pl_module, **self.arguments)
        self.model.update_parameters(pl_module)
        running.optimizers[0].register_step_post_hook(lambda *_: self.model.update_parameters(pl_module))

    def assert_equal(self, module: LightningModule, tolerance: float = 0.0) -> None:
        for name, value in self.model.module.named_parameters():
            torch.testing.assert_close(module.get_parameter(name), value, rtol=tolerance, atol=tolerance)


CIRCUMSTANCES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"accumulate_grad_batches": 2},  # of 3 batches: the last window is partial
    "bf16": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("arguments", CIRCUMSTANCES.values(), ids=CIRCUMSTANCES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_the_average_is_torchs_own(optimizer: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    module, torchs = ForeignModule(optimizer), Torchs(0.7)
    trainer(tmp_path, EMAWeights(0.7), torchs, epochs=3, **arguments).fit(module, loader(), loader())
    torchs.assert_equal(module)
    assert not torch.equal(module.conv1.weight, ForeignModule(optimizer).conv1.weight)


def test_a_compiled_module_is_averaged_as_it_is(tmp_path: Path) -> None:
    module, torchs = ForeignModule(), Torchs(0.7)
    running = trainer(tmp_path, EMAWeights(0.7), torchs)
    running.fit(torch.compile(module, backend="eager"), loader(), loader())
    torchs.assert_equal(module)


def test_a_half_life_is_a_decay_in_other_words(tmp_path: Path) -> None:
    module = Line()
    fit(module, tmp_path, EMAWeights(half_life=3.0))
    assert module.w.item() == pytest.approx(ema(module.history, 0.5 ** (1 / 3)), rel=1e-12)
    module = Line()
    fit(module, tmp_path, EMAWeights(half_life=6.0, every=2))  # in updates, not in averagings
    assert module.w.item() == pytest.approx(ema(module.history[::2], 0.5 ** (1 / 3)), rel=1e-12)


def test_updates_are_averaged_and_not_batches(tmp_path: Path) -> None:
    module = Line()
    fit(module, tmp_path, callback := EMAWeights(0.5), accumulate_grad_batches=3, epochs=3)
    assert module.history == pytest.approx([0, -1, -1 - 1 / 3, -2 - 1 / 3, -2 - 2 / 3, -3 - 2 / 3, -4])
    assert module.w.item() == pytest.approx(ema(module.history, 0.5), rel=1e-12)
    assert callback.summary() == {"decay": 0.5, "averaged": 6, "evaluate": "averaged"}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_step_that_the_gradient_scaler_skips_is_not_averaged(tmp_path: Path) -> None:
    class Overflows(Line):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * (math.inf if batch_idx == 2 else 1)

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=16.0))
    module = Overflows(torch.float32)
    fit(module, tmp_path, callback := EMAWeights(0.5), epochs=1, plugins=[plugin])
    assert module.history == [0, -1, -2, -3]
    assert callback.summary()["averaged"] == BATCHES - 1
    assert module.w.item() == pytest.approx(ema(module.history, 0.5))


@pytest.mark.parametrize("every", [2, 3])
def test_every_so_many_updates_across_epochs(every: int, tmp_path: Path) -> None:
    module = Line()
    fit(module, tmp_path, EMAWeights(0.5, every=every), epochs=3)
    assert module.w.item() == pytest.approx(ema(module.history[::every], 0.5), rel=1e-12)


def test_the_warm_up_begins_with_a_small_decay(tmp_path: Path) -> None:
    module, average = Line(), 0.0
    fit(module, tmp_path, EMAWeights(0.3, warmup=True))
    for t, value in enumerate(module.history[1:]):  # 0.1, 2/11, 0.25, 0.3, 0.3, …
        decay = [0.1, 2 / 11, 0.25, 0.3][min(t, 3)]
        average = decay * average + (1 - decay) * value
    assert module.w.item() == pytest.approx(average, rel=1e-12)


def test_a_layer_that_is_thawed_later_is_averaged_and_a_frozen_one_keeps_its_bits(tmp_path: Path) -> None:
    module, torchs = ForeignModule(), Torchs(0.7)
    start = snapshot(module)
    callbacks = [LayerFreezing("conv1", end=Moment(epoch=2)), LayerFreezing("conv2")]
    trainer(tmp_path, EMAWeights(0.7), *callbacks, torchs, epochs=4).fit(module, loader(), loader())
    torchs.assert_equal(module)
    assert not torch.equal(module.conv1.weight, start["conv1.weight"])
    assert torch.equal(module.conv2.weight.view(torch.int32), start["conv2.weight"].view(torch.int32))


def test_a_frozen_layer_keeps_its_bits_whatever_the_decay(tmp_path: Path) -> None:
    values = torch.randn(1000).exp()
    for decay in (0.0, 0.3, 0.5, 0.7, 0.999):
        module = Line()
        module.register_parameter("frozen", torch.nn.Parameter(values.clone(), requires_grad=False))
        fit(module, tmp_path, EMAWeights(decay, warmup=True), epochs=4)
        assert torch.equal(module.frozen, values)


@pytest.mark.parametrize("buffers", ["copied", "averaged"])
def test_buffers_are_copied_or_averaged_and_integers_always_copied(buffers: Any, tmp_path: Path) -> None:
    module = Line()
    rows = fit(module, tmp_path, EMAWeights(0.5, buffers=buffers), epochs=2)
    seen = [float(n) for n in range(2 * BATCHES + 1)]
    expected = [ema(seen[: BATCHES + 1], 0.5), ema(seen, 0.5)] if buffers == "averaged" else [4.0, 8.0]
    assert [row["val/seen"] for row in rows] == pytest.approx(expected, rel=1e-12)
    assert [row["val/count"] for row in rows] == [4.0, 8.0]
    assert (module.seen.item(), module.count.item()) == (pytest.approx(expected[-1]), 8)


def test_weights_of_16_bits_are_averaged_in_32(tmp_path: Path) -> None:
    module = Line(torch.bfloat16)
    module.history[0] = module.w.data.fill_(128.0).item()  # from 64 to 128, bfloat16 tells 0.5 apart
    fit(module, tmp_path, callback := EMAWeights(0.9, evaluate="raw"))
    average = callback.state_dict()["average"]["w"]
    assert module.history[-1] == 120.0
    assert average.item() == pytest.approx(ema(module.history, 0.9), rel=1e-6)
    fit(module := Line(torch.bfloat16), tmp_path, EMAWeights(0.9))
    assert module.w.dtype == torch.bfloat16
    assert module.w.item() == pytest.approx(ema(module.history, 0.9), rel=2**-8)


def test_it_is_one_call_per_averaging_for_all_parameters_of_a_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, lerp = [], torch._foreach_lerp_
    monkeypatch.setattr(torch, "_foreach_lerp_", lambda a, *rest: (calls.append(len(a)), lerp(a, *rest)))
    module = ForeignModule()
    module.fc.double()
    module.fc.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    trainer(tmp_path, EMAWeights(0.5), epochs=2).fit(module, loader(), loader())
    assert calls == [6, 2] * 6


@pytest.mark.gpu
def test_the_average_lies_where_the_parameters_are(tmp_path: Path) -> None:
    module, torchs = ForeignModule(), Torchs(0.7)
    callback = EMAWeights(0.7)
    trainer(tmp_path, callback, torchs, accelerator="gpu", devices=1).fit(module, loader(), loader())
    assert {value.device.type for value in callback.state_dict()["raw"].values()} == {"cuda"}
    torchs.model.cpu()
    torchs.assert_equal(module)


class Logs(ForeignModule):
    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)


def on_two_processes(rank: int, path: str) -> tuple[Any, ...]:
    module, torchs = Logs(), Torchs(0.7)
    callback = EMAWeights(0.7, evaluate="both")
    share = DataLoader([(x[rank::2], y[rank::2]) for x, y in loader()], batch_size=None)  # type: ignore[arg-type]
    running = trainer(path, callback, torchs, strategy="ddp", devices=2, use_distributed_sampler=False)
    running.fit(module, share, share)
    torchs.assert_equal(module)
    metrics = {key: value.item() for key, value in running.callback_metrics.items()}
    sets = module.named_parameters(), callback.state_dict()["raw"].items()
    return *({key: value.tolist() for key, value in weights} for weights in sets), metrics


def test_two_processes_hold_the_same_average(tmp_path: Path) -> None:
    first, second = gloo(on_two_processes, str(tmp_path))
    assert first == second
    average, raw, metrics = first
    assert average.keys() == raw.keys() and average != raw
    assert metrics["raw/val/loss"] != metrics["val/loss"]
