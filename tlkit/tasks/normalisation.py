"""The normalisation of a network's input."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tlkit.errors import UserError


@dataclass(frozen=True)
class Normalisation:
    """Subtracted from each input channel, then divided by.

    Attributes:
        mean: one number per channel, in units of the data module's converted input.
        std: one positive number per channel.
    """

    mean: Sequence[float]
    std: Sequence[float]


def checked(mean: Iterable[float] | Tensor, std: Iterable[float] | Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation as tensors ``(C,)``.

    Raises:
        UserError: not one mean and one positive standard deviation per channel.
    """
    means, stds = (torch.as_tensor(v if isinstance(v, Tensor) else list(v)).flatten() for v in (mean, std))
    finite = bool(torch.isfinite(means).all() and torch.isfinite(stds).all())
    if len(means) != len(stds) or not len(means) or not finite or not bool((stds > 0).all()):
        raise UserError(
            "expected a normalisation with one mean and one standard deviation above 0 per channel, "
            f"got mean {means.tolist()} and std {stds.tolist()}; give model.normalisation, or check the images"
        )
    return means, stds
