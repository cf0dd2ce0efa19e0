"""Curves against what their definition says, epoch by epoch."""

import pytest
import torch

from tlkit.schedules import step_decay


@pytest.mark.parametrize("every", [1, 3, 30])
def test_step_decay_equals_torchs(every: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, every, gamma=0.1)
    for epoch in range(100):
        ours = 0.01 * step_decay(epoch, every=every, factor=0.1, start=every)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        reference.step()


def test_a_single_drop_stays_down() -> None:
    curve = [step_decay(epoch, every=None, factor=0.1, start=2) for epoch in range(5)]
    assert curve == [1.0, 1.0, 0.1, 0.1, 0.1]


def test_start_zero_drops_before_the_first_update() -> None:
    assert step_decay(0, every=None, factor=0.1, start=0) == 0.1
