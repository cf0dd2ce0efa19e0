"""Named parameter groups."""

import pytest
import torch
from torch import nn

from tlkit.errors import UserError
from tlkit.optim import build_optimizer, clear_state, group_layers


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.Linear(2, 2))


def sgd(groups: object) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]


def test_there_is_one_group_per_layer_at_its_own_rate() -> None:
    groups = build_optimizer(network(), sgd, {"*": 0.1, "3": 1.0}).param_groups
    assert [group["name"] for group in groups] == ["0", "2", "3"]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.01, 0.1])
    assert [group["initial_lr"] for group in groups] == [group["lr"] for group in groups]
    assert all(group["weight_decay"] == 0.01 for group in groups)


def test_biases_can_be_excluded_from_decay() -> None:
    groups = build_optimizer(network(), sgd, decay_norm_and_bias=False).param_groups
    assert [(group["name"], group["weight_decay"]) for group in groups[:2]] == [("0", 0.01), ("0/no_decay", 0.0)]
    assert [p.ndim for group in groups for p in group["params"]] == [2, 1] * 3


def test_every_parameter_is_in_one_group_even_where_two_are_equal() -> None:
    module = network()
    for layer in (0, 2, 3):
        nn.init.zeros_(module[layer].bias)
    optimizer = build_optimizer(module, sgd)
    assert len({id(p) for group in optimizer.param_groups for p in group["params"]}) == 6
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert all(module[layer].bias.abs().sum() > 0 for layer in (0, 2, 3))


def test_a_scale_of_an_unknown_layer_or_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="valid layers: 0, 2, 3"):
        build_optimizer(network(), sgd, {"fc8": 1.0})
    with pytest.raises(UserError, match="at least 0, got -1"):
        build_optimizer(network(), sgd, {"0": -1})


def test_without_its_state_a_parameter_no_longer_moves_by_momentum() -> None:
    module = network()
    optimizer = build_optimizer(module, sgd)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    clear_state(optimizer, list(module[0].parameters()))
    assert {id(p) for p in optimizer.state} == {id(p) for layer in (2, 3) for p in module[layer].parameters()}


def test_unnamed_groups_are_refused_with_the_helper_that_names_them() -> None:
    with pytest.raises(UserError, match="tlkit.optim.build_optimizer"):
        group_layers(sgd(network().parameters()))
