"""What all augmentations have in common."""

from abc import ABC, abstractmethod

from tlkit.data.batch import Batch
from tlkit.data.random import SampleRandom


class Augmentation(ABC):
    """Changes whole training batches on their device, each sample by random numbers of its own."""

    def prepare(self, num_classes: int | None) -> None:
        """Learns from the data module how many classes there are, before training.

        Args:
            num_classes: None if targets are not classes.
        """
        return None  # most need not know

    @abstractmethod
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the changed batch.

        Args:
            batch: converted: float32 input ``(B, C, H, W)``.
            random: one stream of numbers per sample.
        """
