"""RandAugment on whole batches: every operation is applied once, to the samples that drew it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv
from typing_extensions import override

from tlkit.data.augmentation import Augmentation
from tlkit.data.batch import Batch
from tlkit.data.random import SampleRandom
from tlkit.errors import UserError


class RandAugment(Augmentation):
    """Applies ``num_ops`` operations, drawn for each sample, at one strength (Cubuk et al. 2020, "RandAugment").

    Operations and strengths are those of torchvision's ``RandAugment`` with 31 bins. Inputs must lie in [0, 1].
    """

    def __init__(self, num_ops: int = 2, magnitude: int = 9) -> None:
        """Stores number and strength.

        Args:
            num_ops: operations per sample, one after another.
            magnitude: 0 (nothing) to 30 (strongest).
        """
        if num_ops < 1:
            raise UserError(f"expected num_ops of RandAugment to be at least 1, got {num_ops}")
        if not 0 <= magnitude <= 30:
            raise UserError(f"expected magnitude of RandAugment in 0 … 30, got {magnitude}")
        self.num_ops = num_ops
        self.magnitude = magnitude

    @override
    def __call__(self, batch: Batch, random: SampleRandom) -> Batch:
        """Returns the batch with input in [0, 1].

        Raises:
            UserError: targets are images, which would have to move with the input.
        """
        if batch.target.ndim >= 3:
            raise UserError("expected class targets for RandAugment, got images; use Dihedral, Flip or Crop instead")
        x = batch.input
        operations = _operations(self.magnitude / 30, *x.shape[-2:])
        for slot in range(self.num_ops):
            drawn = random.integers(f"operation {slot}", len(operations))
            sign = random.integers(f"sign {slot}", 2)
            x = _apply(x, operations, (2 * drawn + sign).cpu())
        return batch._replace(input=x)


Operation = Callable[[Tensor, float], Tensor]  # of images (n, C, H, W) and a sign, +1 or -1


def _apply(x: Tensor, operations: list[Operation], code: Tensor) -> Tensor:
    """Returns ``x`` with operation ``code // 2`` applied to each sample, positively if ``code`` is odd."""
    out = torch.empty_like(x)
    for value in sorted(set(code.tolist())):
        chosen = (code == value).nonzero()[:, 0].to(x.device)
        out[chosen] = operations[value // 2](x[chosen], 1.0 if value % 2 else -1.0).clamp(0, 1)
    return out


def _operations(strength: float, height: int, width: int) -> list[Operation]:
    """Returns the fourteen operations.

    Args:
        strength: 0 to 1.
        height: of the images, pixels.
        width: of the images, pixels.
    """
    shear = float(torch.rad2deg(torch.atan(torch.tensor(0.3 * strength))))
    bits = 8 - round(4 * strength)

    def affine(x: Tensor, translate: tuple[float, float] = (0, 0), shear: tuple[float, float] = (0, 0)) -> Tensor:
        # torchvision shears about the corner, so that an edge stays where it is
        centre = [0.0, 0.0] if any(shear) else None
        out: Tensor = tv.affine(x, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=centre)
        return out

    def factor(sign: float) -> float:
        return 1.0 + sign * 0.9 * strength

    return [
        lambda x, sign: x,
        lambda x, sign: affine(x, shear=(sign * shear, 0.0)),
        lambda x, sign: affine(x, shear=(0.0, sign * shear)),
        lambda x, sign: affine(x, translate=(int(sign * strength * 150 / 331 * width), 0)),
        lambda x, sign: affine(x, translate=(0, int(sign * strength * 150 / 331 * height))),
        lambda x, sign: tv.rotate(x, sign * 30.0 * strength),
        lambda x, sign: tv.adjust_brightness(x, factor(sign)),
        lambda x, sign: tv.adjust_saturation(x, factor(sign)),
        lambda x, sign: tv.adjust_contrast(x, factor(sign)),
        lambda x, sign: tv.adjust_sharpness(x, factor(sign)),
        lambda x, sign: tv.posterize(x, bits),
        lambda x, sign: tv.solarize(x, 1.0 - strength),
        lambda x, sign: tv.autocontrast(x),
        lambda x, sign: tv.equalize(x),
    ]
