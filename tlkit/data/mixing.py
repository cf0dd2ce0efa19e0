"""Augmentations that mix each sample with another one of its batch.

The partner is chosen by (seed, epoch) among the samples of the batch, whatever their order in it; so a mixed sample,
unlike any other augmented one, depends on which samples share its batch.
"""

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from typing_extensions import override

from tlkit.data.augmentation import Augmentation
from tlkit.data.batch import Batch
from tlkit.data.random import SampleRandom
from tlkit.errors import UserError


class Mixing(Augmentation):
    """The base of MixUp and CutMix: partners, shares, and targets as class probabilities."""

    def __init__(self, alpha: float) -> None:
        """Tabulates the distribution of a sample's own share.

        Args:
            alpha: the share is drawn from the distribution Beta(alpha, alpha).
        """
        if not alpha > 0:
            raise UserError(f"expected alpha of {type(self).__name__} to be greater than 0, got {alpha}")
        self.alpha = alpha
        self._quantiles = torch.from_numpy(_beta_quantiles(alpha))
        self._num_classes: int | None = None

    @override
    def prepare(self, num_classes: int | None, image_size: int | None) -> None:
        """Takes the number of classes from the data module.

        Raises:
            UserError: targets are not classes.
        """
        if num_classes is None:
            raise UserError(
                f"expected class targets for {type(self).__name__}, got images; remove it from data.augment"
            )
        self._num_classes = num_classes

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the mixed batch, targets ``(B, num_classes)`` float32."""
        name = type(self).__name__
        circle = random.uniform(f"{name} partner").argsort(stable=True)
        partner = torch.empty_like(circle)
        partner[circle] = circle.roll(-1)  # nobody is its own partner, and everybody is one
        self._quantiles = self._quantiles.to(batch.input.device)
        share = _interpolate(self._quantiles, random.uniform(f"{name} share"))
        mixed, share = self.mix(batch.input, batch.input[partner], share, random)
        own = batch.target
        if own.ndim == 1:
            assert self._num_classes is not None, "prepare was not called"
            own = one_hot(own, self._num_classes).float()
        share = share[:, None]
        return batch._replace(input=mixed, target=share * own + (1 - share) * own[partner])

    @abstractmethod
    def mix(self, own: Tensor, other: Tensor, share: Tensor, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """Returns the mixed input ``(B, C, H, W)`` and the share ``(B,)`` that is truly the sample's own.

        Args:
            own: ``(B, C, H, W)`` float32.
            other: each sample's partner, ``(B, C, H, W)`` float32.
            share: ``(B,)`` in [0, 1], what was drawn.
            random: for further draws.
        """


class MixUp(Mixing):
    """Averages each sample and its label with a partner's (Zhang et al. 2018, "mixup: beyond empirical risk …")."""

    def __init__(self, alpha: float = 0.2) -> None:
        """Stores the distribution.

        Args:
            alpha: a sample's own share is drawn from Beta(alpha, alpha).
        """
        super().__init__(alpha)

    @override
    def mix(self, own: Tensor, other: Tensor, share: Tensor, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """Returns the weighted mean of both images, and the share unchanged."""
        weight = share.view(-1, 1, 1, 1)
        return weight * own + (1 - weight) * other, share


class CutMix(Mixing):
    """Replaces a box of each sample by its partner's, and its label in proportion (Yun et al. 2019, "CutMix")."""

    def __init__(self, alpha: float = 1.0) -> None:
        """Stores the distribution.

        Args:
            alpha: the share of the image that is kept is drawn from Beta(alpha, alpha).
        """
        super().__init__(alpha)

    @override
    def mix(self, own: Tensor, other: Tensor, share: Tensor, random: SampleRandom) -> tuple[Tensor, Tensor]:
        """Returns the images with boxes pasted in, and the share of pixels that was kept."""
        inside = torch.ones(len(own), 1, 1, 1, dtype=torch.bool, device=own.device)
        half = (1 - share).sqrt() / 2
        for axis, name in ((-2, "row"), (-1, "column")):
            n = own.shape[axis]
            centre = random.uniform(f"CutMix {name}")
            start, stop = ((centre - half) * n).round(), ((centre + half) * n).round()
            pixel = torch.arange(n, device=own.device)
            hit = (pixel >= start[:, None]) & (pixel < stop[:, None])  # (B, n)
            inside = inside & hit.view(-1, 1, *((n, 1) if axis == -2 else (1, n)))
        return torch.where(inside, other, own), 1 - inside.float().mean((1, 2, 3))


def _beta_quantiles(alpha: float, n: int = 4096) -> np.ndarray:
    """Returns the quantiles of Beta(alpha, alpha) at n + 1 evenly spaced probabilities, float32.

    The density diverges at 0 for alpha < 1; substituting s = x^alpha then removes that, and symmetry halves the range.
    """
    power = min(alpha, 1.0)
    x = np.linspace(0, 0.5**power, 16 * n + 1) ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    lower = np.interp(np.linspace(0, 0.5, n // 2 + 1), 0.5 * mass / mass[-1], x)
    return np.concatenate([lower, 1 - lower[-2::-1]]).astype(np.float32)


def _interpolate(table: Tensor, u: Tensor) -> Tensor:
    """Returns the values at ``u`` of [0, 1) in a table of evenly spaced values."""
    place = u * (len(table) - 1)
    index = place.long()
    return torch.lerp(table[index], table[index + 1], place - index)
