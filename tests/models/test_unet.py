import pytest
import torch
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import freeze, layers_of, select
from tlkit.models import UNet


def small(**arguments) -> UNet:
    torch.manual_seed(0)
    return UNet(**{"width": 8, "depth": 3, **arguments})


def test_default_has_14_million_parameters_most_of_them_in_the_encoder():
    with torch.device("meta"):
        network = UNet()
    total = sum(p.numel() for p in network.parameters())
    encoder = sum(p.numel() for p in network.encoder.parameters())
    assert total == 14_326_305
    assert total == pytest.approx(14.3e6, abs=0.1e6)
    assert encoder / total == pytest.approx(0.78, abs=0.01)
    # ResNet-18 has 11,689,512 with its classifier (513,000); here the stem sees 1 channel instead of 3, and the first
    # stage halves by a stride, so its shortcut has a 1 x 1 convolution with a norm
    assert encoder == 11_689_512 - 513_000 - 2 * 64 * 49 + 64 * 64 + 2 * 64


def test_layers_and_groups():
    network = UNet(width=4)
    encoder, decoder = [f"encoder.{i}" for i in range(5)], [*(f"decoder.{i}" for i in range(5)), "head"]
    layers = layers_of(network)
    assert list(layers) == encoder + decoder
    assert select(network, "encoder") == encoder
    assert select(network, "decoder") == decoder
    state = list(network.state_dict())
    assert sorted(key for layer in layers.values() for key in layer.parameters + layer.buffers) == sorted(state)


@pytest.mark.parametrize("height", [1, 2, 7, 8, 9, 31])
@pytest.mark.parametrize("width", [1, 8, 33])
def test_any_height_and_width(height, width):
    network = small(in_channels=2, out_channels=3)
    x = torch.randn(2, 2, height, width)
    assert network(x).shape == (2, 3, height, width)
    network.eval()
    assert network(x).shape == (2, 3, height, width)
    assert torch.isfinite(network(x)).all()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_any_depth(depth):
    network = UNet(width=4, depth=depth)
    assert len(layers_of(network)) == 2 * depth + 1
    assert network(torch.randn(2, 1, 35, 64)).shape == (2, 1, 35, 64)


@pytest.mark.parametrize("training", [False, True])
def test_prefix_then_suffix_equals_forward_at_every_boundary(training):
    network = small().train(training)
    x = torch.randn(2, 1, 21, 32)
    whole = network(x)
    for k in range(8):
        state = network.prefix(x, k)
        before = [tensor.clone() for tensor in state]
        assert torch.equal(network.suffix(state, k), whole)
        assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True)), "a kept state may be used again"


def test_a_boundary_carries_what_the_decoder_has_yet_to_take_in():
    network = small()
    x = torch.randn(2, 1, 20, 32)
    assert [tuple(t.shape[1:]) for t in network.prefix(x, 3)] == [(1, 20, 32), (8, 10, 16), (8, 5, 8), (16, 3, 4)]
    assert [tuple(t.shape[1:]) for t in network.prefix(x, 5)] == [(1, 20, 32), (4, 10, 16)]
    assert [tuple(t.shape[1:]) for t in network.prefix(x, 6)] == [(2, 20, 32)]


def test_runs_in_steps_of_one_layer():
    network = small().eval()
    state = x = torch.randn(1, 1, 16, 16)
    for k in range(7):
        state = network.run(state, k, k + 1)
    assert torch.equal(state, network(x))


def test_frozen_encoder_gives_the_same_in_training_as_in_evaluation():
    network = small()
    network(torch.randn(4, 1, 16, 16) + 1)  # running statistics that are not those of the batch below
    x = torch.randn(2, 1, 16, 16)
    expected = network.eval().prefix(x, 3)
    freeze(network.train(), select(network, "encoder"))
    assert all(torch.equal(a, b) for a, b in zip(network.prefix(x, 3), expected, strict=True))
    assert not torch.equal(network(x), network.eval()(x)), "the decoder still trains"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_receptive_radius_is_how_far_an_output_looks(depth):
    network = UNet(width=4, depth=depth).eval().double()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)  # all positive: nothing cancels and no ReLU cuts off a path
    farthest = 0
    for center in range(80, 80 + network.stride):
        x = torch.ones(1, 1, 1, 160, dtype=torch.double, requires_grad=True)
        network(x)[0, 0, 0, center].backward()
        reached = x.grad[0, 0, 0].nonzero().flatten()
        farthest = max(farthest, center - int(reached.min()), int(reached.max()) - center)
    assert network.receptive_radius == farthest


def test_learns_to_reproduce_its_input():
    torch.manual_seed(0)
    network = small(depth=2)
    x = torch.randn(4, 1, 16, 16)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        loss = nn.functional.mse_loss(network(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2  # the variance of x, which a constant would leave, is 1


def test_one_small_image_alone_cannot_be_trained_on():
    network = small()
    with pytest.raises(UserError, match="more than one image of 8 x 8 pixels .* batch_size"):
        network(torch.randn(1, 1, 8, 8))
    assert network(torch.randn(1, 1, 8, 9)).shape == (1, 1, 8, 9)
    freeze(network, select(network, "encoder"))
    assert network(torch.randn(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    assert network.eval()(torch.randn(1, 1, 1, 1)).shape == (1, 1, 1, 1)


def test_bad_arguments_and_inputs_are_users_errors():
    with pytest.raises(UserError) as error:
        UNet(in_channels=0, out_channels=0, width=3, depth=0)
    for name in ("in_channels", "out_channels", "width", "depth"):
        assert f"{name}: expected" in str(error.value)
    with pytest.raises(UserError, match=r"expected images \(B, 1, H, W\), got shape \(2, 3, 8, 8\)"):
        small()(torch.randn(2, 3, 8, 8))
    with pytest.raises(UserError, match="at least 1 x 1 pixel, got 0 x 8"):
        small()(torch.randn(2, 1, 0, 8))
