import copy
import io

import pytest
import torch
import torchvision
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import layers_of, select
from tlkit.models import TorchvisionNetwork


@pytest.mark.parametrize(("name", "layers"), [("alexnet", 8), ("vgg16", 16), ("resnet18", 21), ("vit_b_32", None)])
def test_keys_and_layers_are_torchvisions_own(name, layers):
    with torch.device("meta"):
        network, reference = TorchvisionNetwork(name), torchvision.models.get_model(name)
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert shapes == {key: value.shape for key, value in reference.state_dict().items()}
    assert list(layers_of(network)) == list(layers_of(reference))
    assert layers is None or len(layers_of(network)) == layers


def test_a_file_of_torchvision_weights_fits_and_gives_equal_outputs():
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(num_classes=4)
    reference(torch.randn(2, 3, 64, 64))
    file = io.BytesIO()
    torch.save(reference.state_dict(), file)
    file.seek(0)
    network = TorchvisionNetwork("resnet18", num_classes=4)
    network.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(network(x), reference(x))
    assert torch.equal(network.eval()(x), reference.eval()(x))
    assert "layer1.0.conv1" in select(network, "layer1")


def test_one_channel_is_repeated():
    torch.manual_seed(0)
    gray = TorchvisionNetwork("squeezenet1_1", num_classes=3, in_channels=1).eval()
    colour = TorchvisionNetwork("squeezenet1_1", num_classes=3).eval()
    colour.load_state_dict(gray.state_dict())
    x = torch.randn(2, 1, 64, 64)
    assert torch.equal(gray(x), colour(torch.cat([x, x, x], dim=1)))
    with pytest.raises(UserError, match=r"expected images \(B, 1, H, W\), got shape \(2, 3, 64, 64\)"):
        gray(torch.randn(2, 3, 64, 64))


def test_a_copy_is_independent_and_whole():
    with torch.device("meta"):
        network = TorchvisionNetwork("vit_b_32", num_classes=3)  # owns a parameter itself, its class token
    twin = copy.deepcopy(network).to_empty(device="cpu").double()
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.02)
    twin.eval()
    x = torch.randn(1, 3, 224, 224, dtype=torch.double)
    before = twin(x)
    twin.class_token = nn.Parameter(torch.ones(1, 1, 768, dtype=torch.double))
    assert not torch.equal(twin(x), before)
    assert network.class_token.is_meta


def test_mode_reaches_torchvisions_own_forward(monkeypatch):
    monkeypatch.setattr(torchvision.models.ResNet, "forward", lambda self, x: torch.tensor(self.training))
    with torch.device("meta"):
        network = TorchvisionNetwork("resnet18")
    x = torch.empty(1, 3, 8, 8)
    assert [network.train(mode)(x).item() for mode in (True, False, True)] == [True, False, True]


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_outputs_are_off(name):
    with torch.device("meta"):
        network = TorchvisionNetwork(name, num_classes=3)
        out = network.train()(torch.empty(2, 3, 128, 128))
    assert isinstance(out, torch.Tensor)
    assert out.shape == (2, 3)


def test_faults_are_users_errors():
    with pytest.raises(UserError, match=r"alexnet.*got 'resnet19'; did you mean 'resnet18'\?"):
        TorchvisionNetwork("resnet19")
    with pytest.raises(UserError, match="num_classes: expected at least 1, got 0; in_channels: expected 1 or 3, got 2"):
        TorchvisionNetwork("resnet18", num_classes=0, in_channels=2)


def test_an_image_size_that_a_transformer_refuses_is_a_users_error():
    with torch.device("meta"), pytest.raises(UserError, match="no images of 64 x 64 pixels: .* Expected 224"):
        TorchvisionNetwork("vit_b_32")(torch.empty(1, 3, 64, 64))
