import math

import pytest
import torch
import torchvision
from torch import nn

from tlkit.errors import UserError
from tlkit.layers import freeze, layers_of, select
from tlkit.models import AlexNet


def small(**arguments) -> AlexNet:
    torch.manual_seed(0)
    return AlexNet(**{"num_classes": 5, "image_size": 64, "width": 0.25, "fc_width": 32, "pool": 2, **arguments})


def test_torchvisions_state_dict_fits_key_for_key_and_gives_equal_outputs():
    torch.manual_seed(1)
    reference = torchvision.models.alexnet().eval()
    network = AlexNet().eval()
    network.load_state_dict(reference.state_dict())
    assert list(network.state_dict()) == list(reference.state_dict())
    assert sum(p.numel() for p in network.parameters()) == 61_100_840
    with torch.no_grad():
        for size in (224, 97):
            x = torch.randn(1, 3, size, size)
            assert torch.equal(network(x), reference(x))


def test_default_initialisation_is_torchvisions():
    torch.manual_seed(3)
    features = torchvision.models.alexnet(num_classes=2).features.state_dict()
    torch.manual_seed(3)
    ours = AlexNet(num_classes=2, fc_width=8).features.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in features.items())


def test_width_and_pool_set_the_sizes_of_the_layers():
    network = small(width=0.3, in_channels=1, pool=3, num_classes=7)
    # 64, 192, 384, 256, 256 times 0.3, rounded
    shapes = [tuple(network.get_parameter(f"features.{i}.weight").shape) for i in (0, 3, 6, 8, 10)]
    assert shapes == [(19, 1, 11, 11), (58, 19, 5, 5), (115, 58, 3, 3), (77, 115, 3, 3), (77, 77, 3, 3)]
    assert [network.classifier[i].weight.shape for i in (1, 4, 6)] == [(32, 77 * 9), (32, 32), (7, 32)]
    assert network(torch.randn(2, 1, 64, 80)).shape == (2, 7)


def test_layers_and_groups():
    network = small()
    convolutions, classifier = ["conv1", "conv2", "conv3", "conv4", "conv5"], ["fc6", "fc7", "fc8"]
    assert list(layers_of(network)) == convolutions + classifier
    assert select(network, "features") == convolutions
    assert select(network, "classifier") == classifier
    assert layers_of(network)["fc7"].parameters == ("classifier.4.weight", "classifier.4.bias")
    claimed = [path for paths in network.layer_modules.values() for path in paths]
    leaves = [path for path, module in network.named_modules() if not list(module.children())]
    assert sorted(claimed) == sorted(leaves)


def test_dropout_goes_with_the_layer_whose_input_it_drops():
    network = small().train()
    freeze(network, select(network, 6))
    assert not network.classifier[0].training
    assert network.classifier[3].training


@pytest.mark.parametrize("training", [False, True])
def test_prefix_then_suffix_equals_forward_at_every_boundary(training):
    network = small().train(training)
    x = torch.randn(3, 3, 64, 64)
    torch.manual_seed(5)
    whole = network(x)
    for k in range(9):
        torch.manual_seed(5)
        state = network.prefix(x, k)
        before = state.clone()
        assert torch.equal(network.suffix(state, k), whole)
        assert torch.equal(state, before), "a kept state may be used again"


def test_convolutional_boundaries_hold_flat_vectors_after_conv5():
    network = small()
    x = torch.randn(2, 3, 64, 64)
    assert network.prefix(x, 4).shape == (2, 64, 3, 3)
    assert network.prefix(x, 5).shape == (2, 64 * 2 * 2)


def test_too_small_images_name_the_smallest_size_that_works():
    with pytest.raises(UserError, match="at least 63 x 63 pixels, got 62 x 62"):
        AlexNet(image_size=62)
    network = small(image_size=63)
    assert network(torch.randn(1, 3, 63, 63)).shape == (1, 5)
    with pytest.raises(UserError, match="got 63 x 62"):
        network(torch.randn(1, 3, 63, 62))
    with pytest.raises(RuntimeError, match="too small"):  # torchvision agrees
        torchvision.models.alexnet(num_classes=2).features(torch.randn(1, 3, 62, 62))


def test_other_channels_are_refused():
    with pytest.raises(UserError, match=r"expected images \(B, 3, H, W\), got shape \(2, 1, 64, 64\)"):
        small()(torch.randn(2, 1, 64, 64))


def test_he_initialisation_has_its_variance_and_zero_biases():
    network = small(init="he", width=1.0, fc_width=512)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            # a sample deviation of n normal numbers is off by 1 / sqrt(2n) relative to its expectation; 5 of those
            tolerance = 5 / math.sqrt(2 * module.weight.numel())
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=tolerance)
            assert torch.count_nonzero(module.bias) == 0


def test_all_bad_arguments_are_reported_at_once():
    with pytest.raises(UserError) as error:
        AlexNet(num_classes=0, width=0.0, fc_width=-1, pool=0, init="she", in_channels=0, dropout=1.0)
    for name in ("num_classes", "width", "fc_width", "pool", "init", "in_channels", "dropout"):
        assert f"{name}: expected" in str(error.value)
    with pytest.raises(UserError, match="width: expected a finite factor above 1/128, got inf"):
        AlexNet(width=math.inf)
