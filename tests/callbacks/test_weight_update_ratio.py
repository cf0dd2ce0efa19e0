"""WeightUpdateRatio: its numbers against a plain copy of the weights before and after each update."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.plugins.precision import MixedPrecision
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.weight_update_ratio import WeightUpdateRatio
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import gloo
from watched import Ratios, Swaps, Watched, fit, true_ratios

from tlkit.errors import UserError


@pytest.mark.parametrize(
    ("optimizer", "run"),
    [
        ({"optimizer": "SGD", "momentum": 0.9, "weight_decay": 0.1}, {}),
        ({"optimizer": "AdamW", "weight_decay": 0.1}, {}),
        ({"optimizer": "LBFGS", "max_iter": 3}, {}),
        ({"optimizer": "SGD", "momentum": 0.9}, {"gradient_clip_val": 0.01}),
        ({"optimizer": "SGD"}, {"accumulate_grad_batches": 3, "size": 3}),  # windows of 3 and of 1 batch
        ({"optimizer": "AdamW"}, {"precision": "bf16-mixed"}),
    ],
    ids=["sgd", "adamw", "lbfgs", "clipped", "accumulated", "bf16"],
)
def test_every_logged_ratio_is_that_of_a_plain_copy(
    optimizer: dict[str, Any], run: dict[str, Any], tmp_path: Path
) -> None:
    module = Watched(**optimizer)
    logged = fit(module, tmp_path, WeightUpdateRatio(every=1), epochs=3, **run)
    assert len(module.true) == (6 if "accumulate_grad_batches" in run else 9)
    assert logged == {step: pytest.approx(ratios, rel=1e-4) for step, ratios in enumerate(module.true)}


def test_it_measures_every_so_many_updates_not_batches(tmp_path: Path) -> None:
    module = Watched()
    logged = fit(module, tmp_path, WeightUpdateRatio(every=2), size=3, epochs=3, accumulate_grad_batches=3)
    assert len(module.true) == 6  # of 12 batches
    assert logged == {step: pytest.approx(module.true[step], rel=1e-4) for step in (0, 2, 4)}


def test_weights_that_change_outside_of_a_step_do_not_count(tmp_path: Path) -> None:
    module = Watched()
    logged = fit(module, tmp_path, Swaps(), WeightUpdateRatio(every=1), Swaps())
    assert logged == {step: pytest.approx(ratios, rel=1e-4) for step, ratios in enumerate(module.true)}


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_gradient_scaler_skips_is_not_measured(fused: bool, tmp_path: Path) -> None:
    class Overflows(Watched):
        def on_after_backward(self) -> None:
            if self.trainer.fit_loop.total_batch_idx in (0, 3):
                self.conv1.weight.grad.fill_(torch.inf)

    module, callback = Overflows(fused=fused, lr=0.01), WeightUpdateRatio(every=2)
    scaler = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    logged = fit(module, tmp_path, Swaps(), callback, plugins=[scaler])
    updated = [ratios for batch, ratios in enumerate(module.true) if batch not in (0, 3)]
    assert all(set(module.true[batch].values()) == {0.0} for batch in (0, 3)) and len(updated) == 4
    assert [*logged.values()] == [pytest.approx(updated[update], rel=1e-4) for update in (0, 2)]


def test_manual_optimisation_with_two_optimizers_measures_each_layer_at_its_own(tmp_path: Path) -> None:
    class TwoOptimizers(ForeignModule):
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.true: list[Ratios] = []

        def configure_optimizers(self) -> Any:
            body = [p for key, p in self.named_parameters() if not key.startswith("fc")]
            return torch.optim.Adam(body, lr=0.01), torch.optim.SGD(self.fc.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            before = snapshot(self)
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]))
                optimizer.step()
            self.true.append(true_ratios(before, snapshot(self)))

    module = TwoOptimizers()
    logged = fit(module, tmp_path, WeightUpdateRatio(every=1))
    assert [*logged[0]] == ["conv1", "conv2"] and [*logged[1]] == ["fc"]
    together = [logged[step] | logged[step + 1] for step in range(0, 12, 2)]
    assert together == [pytest.approx(ratios, rel=1e-4) for ratios in module.true]


def test_a_layer_of_zeros_has_no_ratio_until_it_has_moved(tmp_path: Path) -> None:
    class ZeroHead(Watched):
        def __init__(self) -> None:
            super().__init__()
            nn.init.zeros_(self.fc.weight)
            nn.init.zeros_(self.fc.bias)

    callback, module = WeightUpdateRatio(every=1), ZeroHead()
    logged = fit(module, tmp_path, callback)
    assert [*logged[0]] == ["conv1", "conv2"]
    assert logged[1] == pytest.approx(module.true[1], rel=1e-4)
    never = WeightUpdateRatio(every=100)
    fit(ZeroHead(), tmp_path, never)
    assert never.summary()["fc"] == {"median": None, "min": None, "max": None, "last": None, "flag": None}
    frozen = fit(ZeroHead(), tmp_path, LayerFreezing("fc"), WeightUpdateRatio(every=1))
    assert {ratios["fc"] for ratios in frozen.values()} == {0.0}


def test_the_weights_are_the_same_with_and_without_it(tmp_path: Path) -> None:
    def final(*callbacks: Any) -> ForeignModule:
        module = ForeignModule("AdamW")
        fit(module, tmp_path, *callbacks)
        return module

    assert not changed(final(WeightUpdateRatio(every=1)), snapshot(final()))


@pytest.mark.parametrize("fails", [False, True])
def test_steps_after_the_fit_are_not_measured(fails: bool, tmp_path: Path) -> None:
    class Fails(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
            if fails:
                raise ZeroDivisionError

    callback = WeightUpdateRatio(every=1)
    fitter = trainer(tmp_path, callback, Fails(), epochs=1)
    try:
        fitter.fit(ForeignModule(), loader(), loader())
    except ZeroDivisionError:
        assert fails
    before = callback.summary()
    callback.on_before_optimizer_step(fitter, fitter.lightning_module, fitter.optimizers[0])
    fitter.optimizers[0].step()
    assert callback.summary() == before


def test_a_measurement_reads_no_scalar_from_the_device(tmp_path: Path) -> None:
    class Counts(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Counter[str] = Counter()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    def calls(*callbacks: Any) -> Counter[str]:
        with Counts() as counts:
            fit(ForeignModule(), tmp_path, *callbacks)
        return counts.calls

    without, added = calls(), calls(WeightUpdateRatio(every=2))
    added.subtract(without)
    assert added["_local_scalar_dense"] == 0
    assert added["stack"] == 3 and added["_foreach_norm"] == 6  # three measurements of weights and of their change


def two_ranks(rank: int, folder: str) -> dict[str, Any]:
    messages: list[str] = []
    logging.getLogger("tlkit").addHandler(handler := logging.Handler())
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    module, callback = Watched(lr=10.0), WeightUpdateRatio(every=1)
    logged = fit(module, Path(folder), callback, strategy="ddp", devices=2, size=2, epochs=4)
    return {"summary": callback.summary(), "logged": logged, "true": module.true, "messages": messages}


def test_two_processes_measure_the_same_and_one_of_them_says_so(tmp_path: Path) -> None:
    first, second = gloo(two_ranks, str(tmp_path))
    assert first["summary"] == second["summary"] and first["true"] == second["true"]
    assert first["logged"] == {step: pytest.approx(ratios, rel=1e-4) for step, ratios in enumerate(first["true"])}
    assert first["messages"] and not second["messages"]


def test_faults_of_arguments_and_network_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="`every` to be at least 1 update, got 0"):
        WeightUpdateRatio(every=0)

    class NoLayers(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.scale

    with pytest.raises(UserError, match="expected a network with at least one layer of weights, got NoLayers"):
        trainer(tmp_path, WeightUpdateRatio()).fit(NoLayers(), loader())
