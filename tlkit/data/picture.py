"""Reading image files and bringing images to one size."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.v2 import functional as tv


def read_rgb(path: Path) -> Tensor | None:
    """Reads an image of any type torchvision knows, the first frame of an animation, turned as its EXIF tag says.

    Returns:
        ``(3, H, W)`` uint8, or None if the file is truncated or no such image.
    """
    try:
        image = decode_image(read_file(str(path)), mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except (RuntimeError, ValueError):
        return None
    first: Tensor = image[0] if image.ndim == 4 else image
    return (first.to(torch.int32) // 257).to(torch.uint8) if first.dtype == torch.uint16 else first


def fit(images: Tensor, size: int) -> Tensor:
    """Resizes the shorter side, antialiased, and cuts out the centre.

    Args:
        images: ``(…, H, W)`` uint8.
        size: side of the result, pixels.

    Returns:
        ``(…, size, size)`` uint8.
    """
    if min(images.shape[-2:]) != size:
        images = tv.resize(images, [size], antialias=True)
    cut: Tensor = tv.center_crop(images, [size, size])
    return cut.contiguous()
