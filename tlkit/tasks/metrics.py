"""Metrics of images and masks, averaged over the images of an epoch; equal to scikit-image's.

torchmetrics' own are used where they agree. Its SSIM counts the border, where the window hangs over the image, and its
PSNR pools the squared error of all images before the logarithm; both differ from what scikit-image gives per image.
"""

from abc import abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassConfusionMatrix

from tlkit.errors import UserError

SIGMA = 1.5  # standard deviation of the window in pixels, Wang et al. 2004
RADIUS = 5  # of the window in pixels: int(3.5 sigma + 0.5), as scikit-image truncates it
K1, K2 = 0.01, 0.03  # Wang et al. 2004


class PerImage(Metric):
    """Mean over images of a number per image."""

    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, data_range: float) -> None:
        """Starts empty.

        Args:
            data_range: largest minus smallest value a target can take, fixed for the data set, in units of the images.
        """
        super().__init__()
        self.data_range = data_range
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Adds images ``(B, C, H, W)``, float32."""
        values = self.per_image(preds, target)
        self.total += values.sum()
        self.images += len(values)

    def compute(self) -> Tensor:
        """Returns the mean over all images so far, a scalar."""
        return self.total / self.images

    @abstractmethod
    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """Returns one number per image, ``(B,)``."""


class MeanPSNR(PerImage):
    """Peak signal-to-noise ratio in dB: mean over images of each image's PSNR (not the PSNR of the pooled error).

    Example:
        >>> metric = MeanPSNR(data_range=1.0)
        >>> metric.update(torch.full((2, 1, 4, 4), 0.1), torch.zeros(2, 1, 4, 4))
        >>> metric.compute()
        tensor(20.)
    """

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """Returns each image's PSNR in dB, ``(B,)``; infinite where the images are equal."""
        return 10 * torch.log10(self.data_range**2 / (preds - target).square().flatten(1).mean(1))


class MeanSSIM(PerImage):
    """Structural similarity (Wang et al. 2004): Gaussian window, sigma 1.5 px, population covariance, border left out.

    Equals ``skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.
    """

    def per_image(self, preds: Tensor, target: Tensor) -> Tensor:
        """Returns each image's SSIM, ``(B,)``, at most 1.

        Raises:
            UserError: images smaller than the window of 11 x 11 pixels.
        """
        side = 2 * RADIUS + 1
        if min(preds.shape[-2:]) < side:
            raise UserError(f"expected images of at least {side} x {side} px for SSIM, got {tuple(preds.shape[-2:])}")
        # Float32 holds E[x^2] - E[x]^2 only if the images lie around zero; the means get their offset back.
        offset = target.mean((-2, -1), keepdim=True)
        x, y = preds - offset, target - offset
        mean_x, mean_y, xx, yy, xy = _blur(torch.stack((x, y, x * x, y * y, x * y)))
        variances, covariance = xx + yy - mean_x.square() - mean_y.square(), xy - mean_x * mean_y
        mean_x, mean_y = mean_x + offset, mean_y + offset
        c1, c2 = (K1 * self.data_range) ** 2, (K2 * self.data_range) ** 2
        upper = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        lower = (mean_x.square() + mean_y.square() + c1) * (variances + c2)
        similarity: Tensor = upper / lower
        return similarity.flatten(1).mean(1)


class ForegroundIoU(MulticlassConfusionMatrix):
    """Intersection over union of the foreground classes, over the pixels of all images.

    Class 0 is background and left out. Of several foreground classes the mean is taken over those that occur in targets
    or predictions; 0 if none does.
    """

    def compute(self) -> Tensor:
        """Returns the mean IoU of the classes 1 and above, a scalar in [0, 1]."""
        matrix = super().compute()
        hits = matrix.diagonal()
        union = matrix.sum(0) + matrix.sum(1) - hits
        present = union[1:] > 0
        ratios = hits[1:] / union[1:].clamp(min=1)
        return ratios.sum() / present.sum().clamp(min=1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian window over ``(..., H, W)``, valid part only: ``(..., H - 10, W - 10)``.

    Shifted sums rather than a convolution: no TF32 touches them, and on CPU they are five times as fast.
    """
    steps = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / SIGMA).square())
    for dim in (-1, -2):
        length = x.shape[dim] - 2 * RADIUS
        taps = enumerate((weights / weights.sum()).tolist())
        x = sum(
            (weight * x.narrow(dim, start, length) for start, weight in taps), start=torch.zeros_like(x[..., :1, :1])
        )
    return x
