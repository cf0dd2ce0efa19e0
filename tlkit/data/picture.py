"""Reading image files, coding images as JPEG, and bringing images to one size."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

_JPEG_QUALITY = 95  # of images too many to store raw: errors of about 1 % of the range


def read_rgb(path: Path) -> Tensor | None:
    """Reads an image of any type Pillow knows, the first frame of an animation, turned as its EXIF tag says.

    Returns:
        ``(3, H, W)`` uint8 (of 16 bits, the upper eight; transparency is ignored), or None if the file is truncated or
        no such image.

    Raises:
        OSError: the file cannot be read at all.
    """
    content = path.read_bytes()
    try:
        with Image.open(BytesIO(content)) as image:
            pixels = _rgb(ImageOps.exif_transpose(image))
    except MemoryError:
        raise
    except Exception:  # a decoder may raise anything on damaged bytes
        return None
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> np.ndarray:
    """Returns ``(H, W, 3)`` uint8."""
    if image.mode == "F":
        raise ValueError("floating-point images have no range")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8 instead of scaling them
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("P", "PA"):  # straight to RGB, Pillow warns of transparent palettes
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def encode_jpeg(image: np.ndarray) -> bytes:
    """Codes ``(C, H, W)`` uint8, grey or RGB, as JPEG."""
    buffer = BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(
        buffer, "jpeg", quality=_JPEG_QUALITY
    )
    return buffer.getvalue()


def decode_jpegs(coded: list[Tensor]) -> Tensor:
    """Decodes images of one size.

    Args:
        coded: ``(n,)`` uint8 each, what ``encode_jpeg`` gave.

    Returns:
        ``(B, C, H, W)`` uint8.
    """
    pixels = np.stack([np.asarray(Image.open(BytesIO(one.numpy().tobytes()))) for one in coded])
    stacked = torch.from_numpy(pixels if pixels.ndim == 4 else pixels[..., None])
    return stacked.permute(0, 3, 1, 2).contiguous()


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
