"""What all augmentations have in common."""

from abc import ABC, abstractmethod

from torch import Tensor

from tlkit.data.batch import Batch
from tlkit.data.random import SampleRandom


class Augmentation(ABC):
    """Changes whole training batches on their device, each sample by random numbers of its own."""

    def prepare(self, num_classes: int | None, image_size: int | None) -> None:
        """Learns from the data module, before training, what the network expects.

        Args:
            num_classes: None if targets are not classes.
            image_size: height and width in pixels that the network gets; None: as stored.
        """
        return None  # most need not know

    @abstractmethod
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the changed batch.

        Args:
            batch: converted: float32 input ``(B, C, H, W)``.
            random: one stream of numbers per sample.
        """


def is_spatial(target: Tensor) -> bool:
    """Tells whether targets are images or masks, which must move with the input."""
    return target.ndim >= 3
