"""Names, selection, transfer and freezing on plain modules."""

import pytest
import torch
import torchvision
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import freeze, groups_of, layers_of, select, thaw, transfer


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


@pytest.mark.parametrize(("name", "count"), [("alexnet", 8), ("vgg16", 16), ("resnet18", 21)])
def test_torchvision_networks_have_one_layer_per_weight(name: str, count: int) -> None:
    with torch.device("meta"):
        module = torchvision.models.get_model(name)
    layers = layers_of(module)
    assert len(layers) == count
    assert sorted(key for layer in layers.values() for key in layer.parameters) == sorted(
        key for key, _ in module.named_parameters()
    )
    assert sorted(key for layer in layers.values() for key in layer.buffers) == sorted(
        key for key, _ in module.named_buffers()
    )


def test_tokens_belong_to_the_layer_before_them_and_the_first_takes_what_precedes_it() -> None:
    with torch.device("meta"):
        layers = layers_of(torchvision.models.vit_b_16())
    assert next(iter(layers)) == "conv_proj"
    assert {"class_token", "encoder.pos_embedding"} <= set(layers["conv_proj"].parameters)


def test_norm_follows_its_convolution_and_dropout_goes_with_the_next_layer() -> None:
    layers = layers_of(network())
    assert list(layers) == ["0", "4", "8"]
    assert layers["0"].modules == ("0", "1", "2")
    assert layers["4"].modules[0] == "3"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (2, ["0", "4"]),
        (-1, ["8"]),
        (0, []),
        ("all", ["0", "4", "8"]),
        ("4", ["4"]),
        (["8", "0"], ["0", "8"]),
        ("[04]", ["0", "4"]),
    ],
)
def test_a_specification_selects_layers_in_the_networks_order(spec: object, expected: list[str]) -> None:
    assert select(network(), spec) == expected  # type: ignore[arg-type]


def test_a_module_path_is_a_group() -> None:
    with torch.device("meta"):
        module = torchvision.models.resnet18()
    assert groups_of(module)["layer1"] == tuple(f"layer1.{block}.conv{conv}" for block in (0, 1) for conv in (1, 2))
    assert select(module, "layer1") == list(groups_of(module)["layer1"])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (4, "at most 3 layers, got 4"),
        (-4, "at most 3"),
        ("conv9", "got 'conv9'.*valid layers: 0, 4, 8"),
        ("x*", r"got 'x\*'"),
    ],
)
def test_what_selects_nothing_is_refused_with_the_valid_names(spec: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(network(), spec)  # type: ignore[arg-type]


def test_transfer_copies_the_named_layers_with_their_statistics_and_nothing_else() -> None:
    source, target = network(), network()
    source[1].running_mean.fill_(7.0)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    transfer(target, source.state_dict(), ["0"])
    for key, value in target.state_dict().items():
        expected = source.state_dict()[key] if key.split(".")[0] in ("0", "1") else before[key]
        assert torch.equal(value, expected), key


def test_transfer_of_another_shape_names_the_tensor_and_copies_nothing() -> None:
    target, source = network(), network().state_dict()
    source["4.weight"] = torch.zeros(5, 4, 3, 3)
    before = target[0].weight.detach().clone()
    with pytest.raises(UserError, match=r"layer 4: '4.weight' has shape \(5, 4, 3, 3\), not \(4, 4, 3, 3\)"):
        transfer(target, source, ["0", "4"])
    assert torch.equal(target[0].weight, before)


def train(module: nn.Module, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.randn(8, 1, 6, 6)).square().mean().backward()
        optimizer.step()


def test_a_frozen_layer_does_not_change_by_a_bit_and_gives_its_evaluation_output() -> None:
    module = network().train()
    freeze(module, ["0", "4"])
    before = {key: value.clone() for key, value in module.state_dict().items()}
    train(module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items() if not key.startswith("8"))
    assert not torch.equal(module[8].weight, before["8.weight"])
    x = torch.randn(4, 1, 6, 6)
    trained_output = module[:8](x)
    assert torch.equal(trained_output, module.eval()[:8](x))


@pytest.mark.parametrize(("norm", "statistics_move", "affine_moves"), [("affine", True, False), ("train", True, True)])
def test_norm_of_a_frozen_layer_trains_as_told(norm: str, statistics_move: bool, affine_moves: bool) -> None:
    module = network().train()
    freeze(module, ["0"], norm)  # type: ignore[arg-type]
    before = {key: value.clone() for key, value in module.state_dict().items()}
    train(module)
    assert torch.equal(module[0].weight, before["0.weight"])
    assert torch.equal(module[1].running_mean, before["1.running_mean"]) != statistics_move
    assert torch.equal(module[1].weight, before["1.weight"]) != affine_moves


def test_freezing_again_after_train_restores_evaluation_mode_of_the_frozen_part() -> None:
    module = network()
    freeze(module, ["0"])
    module.train()
    assert module[1].training
    freeze(module, ["0"])
    assert not module[1].training
    assert module[5].training


def test_thawing_undoes_freezing() -> None:
    module = network().train()
    freeze(module, ["0", "4"])
    thaw(module, ["4"])
    assert [module[i].weight.requires_grad for i in (0, 4, 8)] == [False, True, True]
    assert module[5].training and not module[1].training


def test_functional_dropout_of_a_frozen_block_is_off() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.linear(x), 0.5, self.training)

    module = nn.Sequential(Block(), Block()).train()
    freeze(module, ["0.linear"])
    x = torch.ones(1, 64)
    assert torch.equal(module[0](x), module[0](x))
    assert not torch.equal(module[1](x), module[1](x))
