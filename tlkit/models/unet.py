"""A U-Net on a residual encoder, for images of any size."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlkit.errors import UserError
from tlkit.models.network import Network, check_arguments, check_channels


class UNet(Network):
    """A U-Net (Ronneberger et al., 2015) whose encoder is that of a ResNet-18 (He et al., 2016), image in, image out.

    At the defaults 14,326,305 parameters, 78.0 % of them in the encoder, which counts the deepest block.

    Layers: ``encoder.0`` is the stem, ``encoder.1`` and on are stages of two residual blocks; each halves height and
    width. ``decoder.0`` and on double them again, each taking in the feature map of the same size from the way down,
    the last one the image itself. ``head`` maps to the output. Groups: ``encoder``, and ``decoder`` with the head.

    A halved odd size is rounded up, and a doubled map is cut to the size of what it is joined with. So images of any
    height and width work, without padding them first, and the output has their size.

    Attributes:
        stride: pixels of the image per pixel of the deepest feature map along each axis, ``2 ** depth``.
        receptive_radius: pixels to either side beyond which the image cannot change an output pixel (evaluation mode).
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64, depth: int = 5) -> None:
        """Builds the network with fresh weights.

        Args:
            in_channels: channels of the images.
            out_channels: channels of the output.
            width: channels of the first two layers; each later stage of the encoder doubles them.
            depth: number of layers in the encoder, and in the decoder.

        Raises:
            UserError: an argument is out of range.
        """
        super().__init__()
        check_arguments(
            "UNet",
            {
                "in_channels": (in_channels, in_channels >= 1, "at least 1"),
                "out_channels": (out_channels, out_channels >= 1, "at least 1"),
                "width": (width, width >= 4, "at least 4: the last layers have a quarter of it"),
                "depth": (depth, depth >= 1, "at least 1"),
            },
        )
        self.in_channels = in_channels
        self.stride = 2**depth
        self.receptive_radius = _receptive_radius(depth)
        down = [in_channels, width, *(width * 2**i for i in range(depth - 1))]  # 1, 64, 64, 128, 256, 512
        up = [down[-1], *(width * 2**i // 4 for i in reversed(range(depth)))]  # 512, 256, 128, 64, 32, 16
        self.encoder = nn.ModuleList(
            _conv_norm_relu(down[0], down[1], kernel=7, stride=2) if i == 0 else _Stage(down[i], down[i + 1])
            for i in range(depth)
        )
        self.decoder = nn.ModuleList(_Up(up[i], down[depth - 1 - i], up[i + 1]) for i in range(depth))
        self.head = nn.Conv2d(up[-1], out_channels, 3, padding=1)
        encoder = tuple(f"encoder.{i}" for i in range(depth))
        decoder = (*(f"decoder.{i}" for i in range(depth)), "head")
        self.layer_modules = {name: (name,) for name in encoder + decoder}
        self.groups = {"encoder": encoder, "decoder": decoder}

    def run(self, state: Any, start: int, stop: int) -> Any:
        """Applies layers ``start`` to ``stop - 1``.

        Args:
            state: images ``(B, in_channels, H, W)`` if ``start`` is 0, else a tuple of tensors: the image and the
                feature maps that the decoder has yet to take in, and last the current one.
            start: index of the first layer to apply.
            stop: index after the last layer to apply.

        Returns:
            As ``state``; the output ``(B, out_channels, H, W)`` after the head.

        Raises:
            UserError: the images have other channels, or one image is too small to train on alone.
        """
        if start == 0:
            self._check_input(state)
        if start >= stop:
            return state
        depth = len(self.encoder)
        maps: tuple[Tensor, ...] = (state,) if start == 0 else state
        for index in range(start, stop):
            if index < depth:
                maps = (*maps, self.encoder[index](maps[-1]))
            elif index < 2 * depth:
                maps = (*maps[:-2], self.decoder[index - depth](maps[-1], maps[-2]))
            else:
                return self.head(maps[-1])
        return maps

    def _check_input(self, x: Tensor) -> None:
        check_channels("UNet", x, self.in_channels)
        batch, _, height, width = x.shape
        if height == 0 or width == 0:
            raise UserError(f"UNet: expected images of at least 1 x 1 pixel, got {height} x {width}")
        if batch > 1 or max(height, width) > self.stride:
            return
        if any(isinstance(module, nn.BatchNorm2d) and module.training for module in self.encoder[-1].modules()):
            raise UserError(
                f"UNet: expected more than one image of {height} x {width} pixels in a training batch, got one, which "
                "leaves batch normalisation a single value per channel; use a batch_size that leaves no remainder of "
                f"one, images larger than {self.stride} pixels, or a smaller depth"
            )


class _Stage(nn.Sequential):
    """Two residual blocks; the first halves height and width, rounding up."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(_Residual(inside, outside, stride=2), _Residual(outside, outside, stride=1))


class _Residual(nn.Module):
    """ResNet's basic block, ``(B, inside, H, W) -> (B, outside, ceil(H / stride), ceil(W / stride))``."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(inside, outside, kernel=3, stride=stride)
        self.norm1 = nn.BatchNorm2d(outside)
        self.conv2 = _conv(outside, outside, kernel=3)
        self.norm2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(_conv(inside, outside, kernel=1, stride=stride), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)


class _Up(nn.Module):
    """Doubles a feature map, joins one from the way down ``(B, skip, H, W)`` to it, and convolves both twice."""

    def __init__(self, inside: int, skip: int, outside: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm_relu(inside + skip, outside)
        self.conv2 = _conv_norm_relu(outside, outside)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        doubled = F.interpolate(x, scale_factor=2.0, mode="nearest")[..., : skip.shape[-2], : skip.shape[-1]]
        out: Tensor = self.conv2(self.conv1(torch.cat([doubled, skip], dim=1)))
        return out


def _conv_norm_relu(inside: int, outside: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_conv(inside, outside, kernel, stride), nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


def _conv(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias, since a norm follows, initialised as in He et al. (2015)."""
    conv = nn.Conv2d(inside, outside, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _receptive_radius(depth: int) -> int:
    """Adds up how far each layer looks to a side, in pixels of the image."""
    radius, pixel = 3, 2  # the stem's 7 x 7 kernel; `pixel` is the size of a pixel of the current map
    for _ in range(depth - 1):
        radius += pixel + 3 * 2 * pixel  # four 3 x 3 kernels, the first one before the map is halved
        pixel *= 2
    for _ in range(depth):
        pixel //= 2
        radius += pixel + 2 * pixel  # doubling reaches back by one pixel, two 3 x 3 kernels by one each
    return radius + 1  # the head's 3 x 3 kernel
