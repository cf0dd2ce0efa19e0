"""L2SP: the weights it leads to, against a loss with the two penalties written out."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, snapshot, trainer
from l2sp_by_hand import ALPHA, BETA, SGD, expected, foreign
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from tlkit_callbacks.l2sp import L2SP
from tlkit_callbacks.layer_freezing import LayerFreezing
from torch import Tensor, nn
from two_processes import gloo

from tlkit.errors import UserError

ADAMW = {"optimizer": "AdamW", "weight_decay": 0.0, "lr": 0.01}
EPOCH = [[0], [1], [2]]


def assert_close(module: LightningModule, wanted: dict[str, Tensor], tolerance: float = 1e-12) -> None:
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_it_trains_as_if_the_loss_had_both_penalties(optimizer: dict[str, Any], tmp_path: Path) -> None:
    module = foreign(**optimizer).double()
    wanted = expected(module, ("conv1", "norm1"), EPOCH * 3)
    without = expected(module, (), EPOCH * 3)
    trainer(tmp_path, L2SP(ALPHA, BETA, layers=1), epochs=3, precision="64-true").fit(module, loader(), loader())
    assert_close(module, wanted)
    assert (module.conv1.weight - without["conv1.weight"]).abs().max() > 1e-3


def test_it_adds_its_gradient_once_per_update_where_gradients_accumulate(tmp_path: Path) -> None:
    module = foreign(**SGD).double()
    wanted = expected(module, ("conv1", "norm1", "conv2", "norm2"), [[0, 1], [2]] * 3)
    arguments: dict[str, Any] = {"precision": "64-true", "accumulate_grad_batches": 2}
    trainer(tmp_path, L2SP(ALPHA, BETA, layers=2), epochs=3, **arguments).fit(module, loader(), loader())
    assert_close(module, wanted)


def test_clipping_sees_it(tmp_path: Path) -> None:
    module = foreign(**SGD).double()
    wanted = expected(module, ("conv1", "norm1"), EPOCH * 2, clip=0.1)
    arguments: dict[str, Any] = {"precision": "64-true", "gradient_clip_val": 0.1}
    trainer(tmp_path, L2SP(ALPHA, BETA, layers=1), **arguments).fit(module, loader(), loader())
    assert_close(module, wanted)


@pytest.mark.parametrize("kind", ["bf16", "scaled float16"])
def test_mixed_precision_changes_neither_penalty(kind: str, tmp_path: Path) -> None:
    class FarLoss(ForeignModule):  # the loss has no part in it, so what is left are the penalties, exactly
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * 0

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))
    precision: dict[str, Any] = {"precision": "bf16-mixed"} if kind == "bf16" else {"plugins": [plugin]}
    module = FarLoss("SGD", lr=0.1)
    before = snapshot(module)
    trainer(tmp_path, L2SP(ALPHA, BETA, layers=1), **precision).fit(module, loader(), loader())
    torch.testing.assert_close(module.fc.weight.detach(), before["fc.weight"] * (1 - 0.1 * BETA) ** 6)
    assert torch.equal(module.conv1.weight, before["conv1.weight"])


def test_a_fused_optimizer_that_unscales_by_itself_is_refused(tmp_path: Path) -> None:
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(UserError, match="fused: false"):
        trainer(tmp_path, L2SP(layers=1), plugins=[plugin]).fit(ForeignModule(fused=True), loader(), loader())


def test_a_strong_pull_holds_the_transferred_layers_and_no_others(tmp_path: Path) -> None:
    distance = {}
    for alpha in (0.0, 5.0):
        callback, module = L2SP(alpha, 0.0, layers=2), foreign()
        before = snapshot(module)
        trainer(tmp_path, callback, epochs=5).fit(module, loader(), loader())
        keys = [f"{n}{i}.{p}" for i in (1, 2) for n, p in (("conv", "weight"), ("norm", "weight"), ("norm", "bias"))]
        flat = [torch.cat([state[key].flatten() for key in keys]) for state in (snapshot(module), before)]
        distance[alpha] = callback.summary()["distance"]
        assert distance[alpha] == pytest.approx(((flat[0] - flat[1]).norm() / flat[1].norm()).item(), rel=1e-5)
        assert not torch.equal(module.fc.weight, before["fc.weight"])
    assert distance[5.0] < distance[0.0] / 2


def test_what_does_not_train_is_not_pulled(tmp_path: Path) -> None:
    class KeepsGradients(ForeignModule):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
            optimizer.zero_grad(set_to_none=False)

        def on_train_epoch_start(self) -> None:
            self.fc.weight.grad = torch.zeros_like(self.fc.weight)

    module = KeepsGradients()
    module.unused = nn.Linear(3, 2)  # never has a gradient
    before = snapshot(module)
    module.fc.weight.requires_grad_(False)
    trainer(tmp_path, LayerFreezing("conv1"), L2SP(1.0, 1.0, layers=2)).fit(module, loader(), loader())
    assert torch.equal(module.conv1.weight, before["conv1.weight"])
    assert torch.equal(module.fc.weight, before["fc.weight"])
    assert torch.equal(module.unused.weight, before["unused.weight"])
    assert not torch.equal(module.conv2.weight, before["conv2.weight"])


def test_of_several_optimizers_each_is_pulled_at_its_own_step(tmp_path: Path) -> None:
    class Alternating(ForeignModule):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            optimizer = self.optimizers()[batch_idx % 2]  # type: ignore[index]
            self.manual_backward(nn.functional.cross_entropy(self(batch[0]), batch[1]) * 0)
            optimizer.step()
            optimizer.zero_grad()  # its own only: what is added to the other's gradient would stay there

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.conv2, self.fc)]

    module = Alternating()
    before = snapshot(module)
    trainer(tmp_path, L2SP(ALPHA, BETA, layers=1), epochs=1).fit(module, loader(), loader())
    for key, steps in {"conv2.weight": 2, "fc.weight": 1}.items():
        torch.testing.assert_close(module.state_dict()[key], before[key] * (1 - 0.1 * BETA) ** steps)


def test_each_epochs_distance_is_logged(tmp_path: Path) -> None:
    logger, callback = CSVLogger(tmp_path), L2SP(layers=1)
    trainer(tmp_path, callback, epochs=3, logger=logger, log_every_n_steps=1).fit(foreign(), loader(), loader())
    rows = csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines())
    distances = [float(row["l2sp/distance"]) for row in rows if row["l2sp/distance"]]
    assert len(distances) == 3 and distances[-1] == callback.summary()["distance"]
    assert 0 < distances[0] < distances[-1]


def on_two_processes(rank: int, path: str) -> dict[str, list[float]]:
    module = foreign(**SGD).double()
    arguments: dict[str, Any] = {"strategy": "ddp", "devices": 2, "precision": "64-true"}
    trainer(path, L2SP(ALPHA, BETA, layers=1), epochs=1, limit_train_batches=1, **arguments).fit(
        module, half(rank), half(rank)
    )
    return {name: p.flatten().tolist() for name, p in module.named_parameters()}


def half(rank: int) -> Any:
    images, labels = next(iter(loader()))
    data = torch.utils.data.TensorDataset(images[rank::2], labels[rank::2])
    return torch.utils.data.DataLoader(data, 2, sampler=torch.utils.data.DistributedSampler(data, 1, 0, shuffle=False))


def test_two_processes_are_pulled_as_one_is_by_their_joint_batch(tmp_path: Path) -> None:
    first, second = gloo(on_two_processes, str(tmp_path))
    assert first == second
    module = foreign(**SGD).double()
    for name, value in expected(module, ("conv1", "norm1"), [[0]]).items():
        torch.testing.assert_close(torch.tensor(first[name], dtype=torch.float64), value.flatten())
