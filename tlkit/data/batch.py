"""What a data module hands to a task."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch.

    Attributes:
        input: ``(B, C, H, W)``; integers as stored, float32 once converted on the device.
        target: ``(B,)`` class indices, ``(B, classes)`` class probabilities, ``(B, C, H, W)`` images or ``(B, H, W)``
            masks.
        sample: ``(B,)`` int64, each sample's row in the packed store.
    """

    input: Tensor
    target: Tensor
    sample: Tensor
