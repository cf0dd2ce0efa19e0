"""Best settings of restoration: medians of the best validation loss over 7,200 U-Nets.

Rangel DaCosta, Oill & Scott, transfer learning of U-Nets across HRTEM defocus, Elemental Microscopy, DOI
10.69761/kjte5358: 14.3 M parameters, segmentation of CdSe particles at 512 px, 512 images to pretrain on, two stages of
10 epochs that show each image in all 8 symmetries, batches of 16, Adam, rate × 0.99 per epoch. Medians over all that
was varied, without the targets at 0 nm.
"""

import math
from dataclasses import dataclass

import numpy as np

LOSS = {64: 0.0173, 128: 0.0161, 256: 0.0153, 512: 0.0144}
"""Images to transfer with -> median loss."""
FREEZE = {"nothing": 0.0151, "decoder": 0.0154, "encoder": 0.0166}
RATES = {"1e-4 → 1e-5": 0.0173, "1e-4 → 1e-4": 0.0160, "1e-3 → 1e-5": 0.0155, "1e-3 → 1e-4": 0.0136}
"""Pretrain rate → transfer rate -> median loss."""
PRETRAIN_IMAGES = 512
EPOCHS = 10
SYMMETRIES = 8
BATCH = 16
DECAY = 0.99


@dataclass(frozen=True)
class Length:
    """How long a stage is.

    Attributes:
        updates: in all; as many as the study makes.
        epochs: of the user's, that make them.
        factor: of the rate per epoch, so that it falls as far as in the study.
    """

    updates: int
    epochs: int
    factor: float


def length(images: int, batch: int) -> Length:
    """Returns the study's updates for so many images, in epochs that show each image once.

    Args:
        images: to train on.
        batch: images per update; the last batch of an epoch may be smaller.
    """
    updates = EPOCHS * math.ceil(SYMMETRIES * images / BATCH)
    epochs = max(1, round(updates / math.ceil(images / batch)))
    return Length(updates, epochs, round(DECAY ** (EPOCHS / epochs), 6))


def median_loss(images: int) -> float:
    """Returns the median loss for a number of images, linear over its logarithm; beyond the study that at its end."""
    return float(np.interp(math.log(images), np.log(list(LOSS)), list(LOSS.values())))
