"""Prediction of images too large to pass through a network at once."""

from itertools import product

import torch
from torch import Tensor

from tlkit.errors import UserError
from tlkit.models.unet import UNet


@torch.no_grad()
def predict_tiled(network: UNet, image: Tensor, tile: int, overlap: int) -> Tensor:
    """Predicts an image tile by tile.

    The image is divided into tiles; each is predicted together with a margin of its surroundings. Where the margin
    covers the network's receptive field, that gives what the whole image at once would give. With a narrower one,
    neighbouring tiles differ near their common edge: the outer half of a margin, which the cut disturbs most, is
    dropped, and across the inner half one prediction fades linearly into the other.

    Args:
        network: in evaluation mode, on any device; tiles are moved there one at a time.
        image: as the network takes it, already normalised, ``(B, in_channels, H, W)``.
        tile: height and width of a tile without its margin, in pixels; a multiple of ``network.stride``, so that every
            tile is divided into feature-map pixels as the whole image is.
        overlap: width of the margin in pixels, rounded up to a multiple of ``network.stride``; from
            ``network.receptive_radius`` on the result is exact.

    Returns:
        The prediction ``(B, out_channels, H, W)``, on the image's device.

    Raises:
        UserError: the network is in training mode, or ``tile`` or ``overlap`` is not as described.
    """
    stride = network.stride
    if tile < stride or tile % stride:
        nearest = max(stride, round(tile / stride) * stride)
        raise UserError(f"expected a tile that is a multiple of {stride} pixels, got {tile}; the nearest is {nearest}")
    if overlap < 0:
        raise UserError(f"expected an overlap of at least 0 pixels, got {overlap}")
    if network.training:
        raise UserError("expected a network in evaluation mode, got one in training mode; call network.eval() first")
    margin = -(-overlap // stride) * stride
    fade = 0 if margin >= network.receptive_radius else min(margin, tile) // 2  # a tile has two edges to fade across
    device = network.head.weight.device
    height, width = image.shape[-2:]
    result: Tensor | None = None
    for top, left in product(range(0, height, tile), range(0, width, tile)):
        rows, columns = _Span(top, tile, margin, fade, height), _Span(left, tile, margin, fade, width)
        window = image[..., rows.start : rows.stop, columns.start : columns.stop]
        part = network(window.to(device)).to(image.device)[..., rows.used, columns.used]
        if result is None:
            result = part.new_zeros(*part.shape[:-2], height, width)
        weight = rows.weight(part)[:, None] * columns.weight(part)
        result[..., rows.target, columns.target] += weight * part
    if result is None:
        raise UserError(f"expected an image of at least 1 x 1 pixel, got {height} x {width}")
    return result


class _Span:
    """One axis of one tile.

    Attributes:
        start: first pixel of the image that the network sees.
        stop: pixel after the last one that the network sees.
        target: the pixels of the image that the tile contributes to.
        used: the same pixels, counted from ``start``.
    """

    def __init__(self, core: int, tile: int, margin: int, fade: int, size: int) -> None:
        self.start, self.stop = max(0, core - margin), min(size, core + tile + margin)
        first, last = max(0, core - fade), min(size, core + tile + fade)
        self.target = slice(first, last)
        self.used = slice(first - self.start, last - self.start)
        self._edges = (core, core + tile)
        self._fades = (fade if core > 0 else 0, fade if core + tile < size else 0)

    def weight(self, like: Tensor) -> Tensor:
        """Returns the weight of each pixel of ``target``; over all tiles they add up to 1 at every pixel."""
        at = torch.arange(self.target.start, self.target.stop, device=like.device, dtype=like.dtype) + 0.5
        weight = torch.ones_like(at)
        for edge, fade, inwards in zip(self._edges, self._fades, (1, -1), strict=True):
            if fade:
                weight = weight * (0.5 + inwards * (at - edge) / (2 * fade)).clamp(0, 1)
        return weight
