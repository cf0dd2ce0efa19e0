"""Best settings of transfer by examples per class: Table 2 of Plested & Gedeon, in updates of the user's data.

"An Analysis of the Interaction Between Transfer Learning Protocols in Deep Neural Networks": AlexNet, 8 layers,
ILSVRC2012 split at random into 500 classes to pretrain on and 500 to transfer to; SGD.
"""

import math
from dataclasses import dataclass

import numpy as np

EXAMPLES = (10, 25, 50, 100, 250, 500, 1290)
"""Columns of the table; the last is all images, of which there are around 645,000 in 500 classes."""
TRANSFER = (6, 6, 6, 6, 6, 6, 5)
DECAY = (10, 5, 3, 3, 3, 0, 30)
FREEZE = (6, 5, 5, 1, 1, 0, 0)
CLASSES = 500
BATCH = 128
"""Images per update of the study, which does not state it: that of AlexNet (Krizhevsky et al. 2012)."""
EVERY = 30
"""Epochs of the study after which all rates fall to a tenth."""
EPOCHS = 90
"""Length of a run in epochs of the study, which does not state it: that of PyTorch's ImageNet example."""


@dataclass(frozen=True)
class Protocol:
    """What Table 2 advises, in the epochs of the study and in those of the user.

    Attributes:
        examples: images per class that the table was asked at: its first or last column if it does not go that far.
        columns: those that it was interpolated between; twice the same where it is a column.
        transfer: layers to copy, from the first.
        freeze: layers to freeze, from the first.
        decay: epochs of the study after which the rate of the last layer falls to a tenth.
        study_updates: updates in an epoch of the study with so many images per class.
        updates: updates in an epoch of the user.
    """

    examples: int
    columns: tuple[int, int]
    transfer: int
    freeze: int
    decay: int
    study_updates: int
    updates: int

    @property
    def repeats(self) -> float:
        """Epochs of the user in as many updates as an epoch of the study has."""
        return self.study_updates / self.updates

    @property
    def steps(self) -> int:
        """Updates in a run."""
        return EPOCHS * self.study_updates


def protocol(examples: int, classes: int, batch: int) -> Protocol:
    """Returns the advice of Table 2, interpolated linearly over the logarithm of the images per class and rounded.

    Args:
        examples: images to train on, per class.
        classes: of the target.
        batch: images per update; the last batch of an epoch may be smaller.
    """
    within = min(max(examples, EXAMPLES[0]), EXAMPLES[-1])
    below = max(column for column in EXAMPLES if column <= within)
    above = min(column for column in EXAMPLES if column >= within)
    transfer, decay, freeze = (
        round(float(np.interp(math.log(within), np.log(EXAMPLES), row))) for row in (TRANSFER, DECAY, FREEZE)
    )
    return Protocol(
        examples=within,
        columns=(below, above),
        transfer=transfer,
        freeze=freeze,
        decay=decay,
        study_updates=math.ceil(CLASSES * within / BATCH),
        updates=math.ceil(examples * classes / batch),
    )
