"""Optimizers as other people build them: rates of groups, groups that come later, fused steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, loader, trainer
from lightning.pytorch import Callback, LightningModule, Trainer
from tlkit_callbacks import CosineDecay, GradualUnfreezing, LayerFreezing, Moment, OneCycle, Phase, Schedule, StepDecay
from torch.optim import SGD, Adam

from tlkit.errors import UserError
from tlkit.optim import reference_lr


class Groups(ForeignModule):
    """Two groups, each with a rate of its own; the optimizer has none but torch's default."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        body = [*self.conv1.parameters(), *self.conv2.parameters()]
        return SGD([{"params": body, "lr": 0.01}, {"params": self.fc.parameters(), "lr": 0.1}], momentum=0.9)


def test_the_peak_is_the_highest_rate_where_groups_bring_their_own(tmp_path: Path) -> None:
    module = Groups()
    cycle = OneCycle(peak_lr=0.2, pct_start=0.5, div_factor=4)
    trainer(tmp_path, cycle, epochs=3).fit(module, loader(), loader())  # 9 updates: the fifth is at the peak
    assert module.rates[4] == pytest.approx([0.02, 0.2], rel=1e-12)
    assert module.rates[0] == pytest.approx([0.005, 0.05], rel=1e-12)
    assert max(rate for rates in module.rates for rate in rates) == pytest.approx(0.2, rel=1e-12)


def test_rates_are_relative_to_the_optimizer_s_own_where_a_group_has_it() -> None:
    module = ForeignModule()
    groups = [{"params": module.conv1.parameters()}, {"params": module.fc.parameters(), "lr": 0.5}]
    assert reference_lr(SGD(groups, lr=0.05)) == 0.05
    assert reference_lr(Groups().configure_optimizers()) == 0.1


class AddsAGroup(Callback):
    """Hands the optimizer its last layer after an epoch, as Lightning's own BackboneFinetuning does."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.optimizers[0].add_param_group({"params": pl_module.fc.parameters(), "lr": 0.05})


class WithoutHead(ForeignModule):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return SGD([*self.conv1.parameters(), *self.conv2.parameters()], lr=0.1)


@pytest.mark.parametrize(("schedule", "factor"), [(lambda: StepDecay(1, factor=0.5), 0.5), (CosineDecay, 0.5)])
def test_a_group_that_somebody_adds_joins_the_schedule(
    schedule: Callable[[], Schedule], factor: float, tmp_path: Path
) -> None:
    module = WithoutHead()
    trainer(tmp_path, schedule(), AddsAGroup(), epochs=2).fit(module, loader(), loader())
    assert all(len(rates) == 1 for rates in module.rates[:3])
    for body, head in module.rates[3:]:
        assert head == pytest.approx(body / 2, abs=1e-15)


def fused(momentum: float) -> type[ForeignModule]:
    class Fused(ForeignModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return SGD(self.parameters(), lr=0.1, momentum=momentum, fused=True)

    return Fused


THAWING: list[Callable[[], Callback]] = [
    lambda: GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1)]),
    lambda: LayerFreezing(1, end=Moment(epoch=1)),
]


@pytest.mark.parametrize("thawing", THAWING)
def test_a_fused_momentum_is_refused_at_the_start_where_layers_thaw(thawing: Any, tmp_path: Path) -> None:
    module = fused(0.9)()
    with pytest.raises(UserError, match="fused SGD, which fails; leave out fused"):
        trainer(tmp_path, thawing()).fit(module, loader(), loader())
    assert not module.rates
    trainer(tmp_path, LayerFreezing(1)).fit(fused(0.9)(), loader(), loader())  # nothing thaws
    trainer(tmp_path, thawing()).fit(fused(0.0)(), loader(), loader())


def test_a_fused_adam_thaws(tmp_path: Path) -> None:
    class FusedAdam(ForeignModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return Adam(self.parameters(), lr=0.1, fused=True)

    module = FusedAdam()
    before = module.conv1.weight.detach().clone()
    trainer(tmp_path, THAWING[0]()).fit(module, loader(), loader())
    assert not torch.equal(module.conv1.weight, before)
