import pytest
import torch
from torch import nn

from tlkit.errors import UserError
from tlkit.models import UNet, predict_tiled


@pytest.fixture
def network() -> UNet:
    """Depth 2 with running statistics and affine parameters that are not 0 and 1."""
    torch.manual_seed(0)
    network = UNet(in_channels=2, out_channels=3, width=8, depth=2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    network(torch.randn(4, 2, 32, 32))
    return network.eval()


@pytest.mark.parametrize("size", [(90, 70), (64, 33), (100, 9), (5, 3)])
@pytest.mark.parametrize("tile", [16, 32])
def test_margin_as_wide_as_the_receptive_field_gives_the_whole_images_prediction(network, size, tile):
    image = torch.randn(2, 2, *size)
    with torch.no_grad():
        whole = network(image)
    tiled = predict_tiled(network, image, tile=tile, overlap=network.receptive_radius)
    assert not tiled.requires_grad
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tile", "overlap"), [(4, 0), (4, 24), (8, 4), (16, 12), (32, 16)])
def test_weights_of_all_tiles_add_up_to_one(network, tile, overlap):
    nn.init.zeros_(network.head.weight)
    nn.init.constant_(network.head.bias, 7.0)
    tiled = predict_tiled(network, torch.randn(1, 2, 50, 37), tile, overlap)
    torch.testing.assert_close(tiled, torch.full((1, 3, 50, 37), 7.0))


def test_narrow_margins_leave_no_seam(network):
    image = torch.randn(1, 2, 64, 64)
    with torch.no_grad():
        whole = network(image)
    cut, faded = (predict_tiled(network, image, 32, overlap) for overlap in (0, 16))

    def step(tiled: torch.Tensor) -> float:
        """How far the error jumps from one column to the next where two tiles meet."""
        error = tiled - whole
        return (error[..., 32] - error[..., 31]).abs().mean().item()

    assert step(faded) < 0.1 * step(cut)
    assert (faded - whole).abs().mean() < 0.2 * (cut - whole).abs().mean()


def test_one_tile_is_the_whole_image(network):
    image = torch.randn(1, 2, 30, 31)
    with torch.no_grad():
        assert torch.equal(predict_tiled(network, image, tile=32, overlap=0), network(image))


def test_faults_are_users_errors(network):
    image = torch.randn(1, 2, 30, 31)
    with pytest.raises(UserError, match="multiple of 4 pixels, got 30; the nearest is 32"):
        predict_tiled(network, image, 30, 0)
    with pytest.raises(UserError, match="the nearest is 4"):
        predict_tiled(network, image, 0, 0)
    with pytest.raises(UserError, match="overlap of at least 0 pixels, got -1"):
        predict_tiled(network, image, 32, -1)
    with pytest.raises(UserError, match="at least 1 x 1 pixel"):
        predict_tiled(network, image[..., :0], 32, 0)
    with pytest.raises(UserError, match="evaluation mode"):
        predict_tiled(network.train(), image, 32, 0)
