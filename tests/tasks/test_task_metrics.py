"""PSNR, SSIM and IoU against scikit-image and scikit-learn."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import jaccard_score
from torchmetrics import Metric

from tlkit.errors import UserError
from tlkit.tasks.metrics import ForegroundIoU, MeanPSNR, MeanSSIM


def pairs(n: int, shape: tuple[int, ...], offset: float = 0.0, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    target = torch.rand(n, *shape, generator=generator).cumsum(-1) / shape[-1] + offset
    strengths = noise * torch.linspace(0.1, 1, n).view(-1, 1, 1, 1)  # so that the mean of PSNRs is not that of the mean
    return target + strengths * torch.randn(target.shape, generator=generator), target


def in_batches(metric: Metric, *tensors: torch.Tensor) -> float:
    for batch in zip(*(tensor.split(2) for tensor in tensors), strict=True):
        metric.update(*batch)
    return float(metric.compute())


def reference_ssim(x: torch.Tensor, y: torch.Tensor, data_range: float) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
    images = zip(x.double().numpy(), y.double().numpy(), strict=True)
    return float(np.mean([structural_similarity(a, b, data_range=data_range, **options) for a, b in images]))


def test_psnr_is_the_mean_over_images() -> None:
    preds, target = pairs(5, (1, 20, 17))
    reference = np.mean(
        [peak_signal_noise_ratio(t, p, data_range=1.5) for p, t in zip(preds.numpy(), target.numpy(), strict=True)]
    )
    assert in_batches(MeanPSNR(1.5), preds, target) == pytest.approx(reference, abs=1e-4)
    pooled = 10 * np.log10(1.5**2 / np.mean((preds - target).numpy() ** 2))
    assert abs(pooled - reference) > 1  # the two conventions are told apart by this test


@pytest.mark.parametrize("shape", [(1, 11, 11), (1, 24, 33), (3, 16, 16)])
def test_ssim_equals_scikit_image(shape: tuple[int, ...]) -> None:
    preds, target = pairs(3, shape)
    assert in_batches(MeanSSIM(1.2), preds, target) == pytest.approx(reference_ssim(preds, target, 1.2), abs=1e-5)


def test_ssim_keeps_its_precision_far_from_zero() -> None:
    preds, target = pairs(3, (1, 24, 24), offset=1000.0, noise=0.02)
    assert in_batches(MeanSSIM(1.0), preds, target) == pytest.approx(reference_ssim(preds, target, 1.0), abs=1e-4)


def test_ssim_needs_room_for_its_window() -> None:
    with pytest.raises(UserError, match="at least 11 x 11 px"):
        MeanSSIM(1.0).update(torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20))


def test_iou_of_the_foreground() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (5, 9, 9), generator=generator)
    logits = torch.randn(5, 2, 9, 9, generator=generator)
    reference = jaccard_score(target.flatten(), logits.argmax(1).flatten())
    assert in_batches(ForegroundIoU(2), logits, target) == pytest.approx(reference, abs=1e-6)


def test_iou_of_several_classes_leaves_out_the_absent() -> None:
    target = torch.tensor([[0, 1, 1, 2, 2, 0]])
    preds = torch.tensor([[0, 1, 2, 2, 2, 1]])
    metric = ForegroundIoU(4)
    metric.update(preds, target)
    assert float(metric.compute()) == pytest.approx((1 / 3 + 2 / 3) / 2)
    reference = jaccard_score(target[0], preds[0], average="macro", labels=[1, 2])
    assert float(metric.compute()) == pytest.approx(reference)


def test_iou_without_any_foreground_is_zero() -> None:
    metric = ForegroundIoU(2)
    metric.update(torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4, dtype=torch.long))
    assert float(metric.compute()) == 0
