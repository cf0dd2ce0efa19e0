"""Geometric augmentations: flips, shifts, crops and the symmetries of the square."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from tlkit.data.augmentation import Augmentation, is_spatial
from tlkit.data.batch import Batch
from tlkit.data.random import SampleRandom
from tlkit.errors import UserError


class Flip(Augmentation):
    """Mirrors each sample left to right with probability one half; image and mask targets too."""

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the batch with about half its samples mirrored."""
        mirrored = random.uniform("flip") < 0.5
        return _on_images(batch, lambda x: _where(mirrored, x.flip(-1), x))


class Dihedral(Augmentation):
    """Gives each sample one of the eight symmetries of the square; image and mask targets too."""

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the batch turned and mirrored.

        Raises:
            UserError: images are not square.
        """
        if batch.input.shape[-2] != batch.input.shape[-1]:
            raise UserError(
                f"expected square images for Dihedral, got {tuple(batch.input.shape[-2:])}; use Flip instead"
            )
        symmetry = random.integers("dihedral", 8)

        def turn(x: Tensor) -> Tensor:
            x = _where((symmetry & 1) > 0, x.flip(-1), x)
            x = _where((symmetry & 2) > 0, x.flip(-2), x)
            return _where((symmetry & 4) > 0, x.transpose(-1, -2), x)

        return _on_images(batch, turn)


class Crop(Augmentation):
    """Cuts each sample at a random offset from the image, padded with zeros; image and mask targets too.

    Where the data are stored larger than the network's image size, this size is cut out; else the stored size, so that
    images are shifted by up to ``padding`` pixels.
    """

    def __init__(self, padding: int = 4) -> None:
        """Stores the padding.

        Args:
            padding: pixels of zeros around the image.
        """
        if padding < 0:
            raise UserError(f"expected padding to be at least 0 pixels, got {padding}")
        self.padding = padding
        self._size: int | None = None

    @override
    def prepare(self, num_classes: int | None, image_size: int | None) -> None:
        """Takes the size to cut from the data module."""
        self._size = image_size

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the batch ``(B, C, size, size)``."""
        height, width = (self._size or side for side in batch.input.shape[-2:])
        top, left = (
            random.integers(f"crop {axis}", have + 2 * self.padding - want + 1)
            for axis, have, want in (("top", batch.input.shape[-2], height), ("left", batch.input.shape[-1], width))
        )

        def cut(x: Tensor) -> Tensor:
            x = pad(x, [self.padding] * 4)
            lead = [-1] + [1] * (x.ndim - 3)
            rows = top.view(*lead, 1, 1) + torch.arange(height, device=x.device).view(-1, 1)
            columns = left.view(*lead, 1, 1) + torch.arange(width, device=x.device)
            return x.take_along_dim(rows, -2).take_along_dim(columns, -1)

        return _on_images(batch, cut)


class RandomResizedCrop(Augmentation):
    """Cuts a random box from each sample and resizes it, antialiased, to the network's image size.

    The box's share of the area is uniform within ``scale``, the logarithm of its width over height uniform within
    ``ratio`` (as Szegedy et al. 2015 train); a box that is longer than the image is shortened to it.
    """

    def __init__(self, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        """Stores the ranges.

        Args:
            scale: least and greatest share of the image's area, in (0, 1].
            ratio: least and greatest width over height.
        """
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"expected scale with 0 < least <= greatest <= 1, got {tuple(scale)}")
        if not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"expected ratio with 0 < least <= greatest, got {tuple(ratio)}")
        self.scale = scale
        self.ratio = ratio
        self._size: int | None = None

    @override
    def prepare(self, num_classes: int | None, image_size: int | None) -> None:
        """Takes the size to resize to from the data module."""
        self._size = image_size

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the batch ``(B, C, size, size)``.

        Raises:
            UserError: targets are images, which resampling would blur.
        """
        if is_spatial(batch.target):
            raise UserError("expected class targets for RandomResizedCrop, got images; use Crop instead")
        x = batch.input
        height, width = x.shape[-2:]
        area = height * width * _between(self.scale, random.uniform("box area"))
        ratio = _between((log(self.ratio[0]), log(self.ratio[1])), random.uniform("box ratio")).exp()
        tall = (area / ratio).sqrt().clamp(1, height)
        wide = (area * ratio).sqrt().clamp(1, width)
        top = random.uniform("box top") * (height - tall)
        left = random.uniform("box left") * (width - wide)
        size = (self._size, self._size) if self._size else (height, width)
        return batch._replace(input=resized_crop(x, top, left, tall, wide, size))


def resized_crop(x: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes a box of its own from each image, bilinearly and antialiased.

    Args:
        x: ``(B, C, H, W)`` float32.
        top: ``(B,)`` first row of each box, pixels.
        left: ``(B,)`` first column of each box, pixels.
        tall: ``(B,)`` height of each box, pixels.
        wide: ``(B,)`` width of each box, pixels.
        size: height and width of the result, pixels.

    Returns:
        ``(B, C, *size)`` float32.
    """
    rows = _resampling(top, tall, size[0], x.shape[-2])  # (B, h, H)
    columns = _resampling(left, wide, size[1], x.shape[-1])  # (B, w, W)
    return rows[:, None] @ x @ columns.transpose(-1, -2)[:, None]


def _resampling(start: Tensor, length: Tensor, n: int, pixels: int) -> Tensor:
    """Returns ``(B, n, pixels)`` weights of a triangle filter from ``length`` pixels after ``start`` to ``n``."""
    scale = (length / n)[:, None, None]
    first = start[:, None, None]
    centre = first + (torch.arange(n, device=start.device)[:, None] + 0.5) * scale  # (B, n, 1)
    pixel = torch.arange(pixels, device=start.device) + 0.5  # (W,)
    weight = (1 - (pixel - centre).abs() / scale.clamp_min(1)).clamp_min(0)
    weight = weight * ((pixel >= first) & (pixel < first + length[:, None, None]))
    return weight / weight.sum(-1, keepdim=True).clamp_min(1e-6)


def _on_images(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Returns the batch with input, and target if it is an image or a mask, changed alike."""
    target = change(batch.target) if is_spatial(batch.target) else batch.target
    return batch._replace(input=change(batch.input), target=target)


def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Returns, per sample, ``x`` where ``(B,)`` ``condition`` holds, else ``y``."""
    return torch.where(condition.view(-1, *[1] * (x.ndim - 1)), x, y)


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    """Returns ``u`` of [0, 1) stretched to the limits."""
    return limits[0] + (limits[1] - limits[0]) * u
