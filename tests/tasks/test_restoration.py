"""Restoration: what is logged, and what it equals."""

from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import jaccard_score
from tiny_tasks import QUIET, ImageData, MaskData, image_network, image_pairs, trainer
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tlkit.errors import UserError
from tlkit.tasks import Normalisation, Restoration

pytestmark = QUIET
UNIT = Normalisation((0.0,), (1.0,))


def masks(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    noisy, clean = image_pairs(n)
    return noisy, (clean[:, 0] > 0.6).long()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_metrics_equal_scikit_image_at_any_precision(precision: Any) -> None:
    noisy, clean = image_pairs(6, size=20)
    task = Restoration(nn.Identity(), normalisation=UNIT)
    results = trainer(precision=precision).test(task, ImageData(test=(noisy, clean), batch_size=4), verbose=False)[0]
    pairs = list(zip(clean[:, 0].numpy(), noisy[:, 0].numpy(), strict=True))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2.0}
    psnr = np.mean([peak_signal_noise_ratio(t, p, data_range=2.0) for t, p in pairs])
    ssim = np.mean([structural_similarity(t, p, **options) for t, p in pairs])
    assert results["test/psnr"] == pytest.approx(psnr, abs=1e-4)
    assert results["test/ssim"] == pytest.approx(ssim, abs=1e-4)
    assert results["test/loss"] == pytest.approx(F.mse_loss(noisy, clean).item(), rel=1e-5)


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_losses(loss: Any) -> None:
    task = Restoration(image_network(), loss=loss)
    task.adapt(ImageData())
    error = torch.tensor([0.5, -3.0]).view(1, 1, 1, 2)
    expected = {"mse": (0.25 + 9) / 2, "l1": 3.5 / 2, "huber": (0.125 + 2.5) / 2}[loss]
    assert task.criterion(error, torch.zeros(1, 1, 1, 2)).item() == pytest.approx(expected)


def test_a_fit_of_images_logs_these_names() -> None:
    run, task = trainer(), Restoration(image_network())
    run.fit(task, datamodule=ImageData(image_pairs(), image_pairs(seed=1)))
    assert set(run.callback_metrics) == {"train/loss", "val/loss", "val/psnr", "val/ssim"}
    assert (task.monitor, task.monitor_mode, task.evaluate_before) == ("val/psnr", "max", True)


def test_a_fit_of_masks_logs_these_names() -> None:
    run, task = trainer(), Restoration(image_network(2))
    run.fit(task, datamodule=MaskData(masks(), masks()))
    assert set(run.callback_metrics) == {"train/loss", "val/loss", "val/iou", "val/pixel_accuracy"}
    assert task.monitor == "val/iou"


def test_masks_equal_scikit_learn() -> None:
    inputs, targets = masks()
    network = image_network(2)
    task = Restoration(network, normalisation=UNIT)
    results = trainer().test(task, MaskData(test=(inputs, targets), batch_size=3), verbose=False)[0]
    with torch.no_grad():
        logits = network(inputs)
    predicted = logits.argmax(1)
    assert results["test/iou"] == pytest.approx(jaccard_score(targets.flatten(), predicted.flatten()), abs=1e-6)
    assert results["test/pixel_accuracy"] == pytest.approx((predicted == targets).float().mean().item())
    assert results["test/loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)


def test_several_defoci() -> None:
    test = {"0": image_pairs(4, seed=1), "+5": image_pairs(3, seed=2), "-5": image_pairs(2, seed=3)}
    run = trainer()
    run.test(Restoration(nn.Identity(), normalisation=UNIT), ImageData(test=test), verbose=False)
    domains = {f"test/{name}/{d}" for name in ("loss", "psnr", "ssim") for d in test}
    assert set(run.callback_metrics) == domains | {"test/loss", "test/psnr", "test/ssim"}
    noisy, clean = test["+5"]
    pairs = zip(clean.numpy(), noisy.numpy(), strict=True)
    expected = np.mean([peak_signal_noise_ratio(t, p, data_range=2.0) for t, p in pairs])
    assert run.callback_metrics["test/psnr/+5"].item() == pytest.approx(expected, abs=1e-4)
    assert run.callback_metrics["test/psnr"] == run.callback_metrics["test/psnr/0"]


def test_predictions_are_images_or_probabilities() -> None:
    noisy, _ = image_pairs(3)
    task = Restoration(nn.Identity(), normalisation=UNIT)
    assert torch.equal(trainer().predict(task, ImageData(test=image_pairs(3)))[0], noisy)
    task = Restoration(image_network(2), normalisation=UNIT)
    task.adapt(MaskData())
    probabilities = task.prediction(task(noisy))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(3, 16, 16))


@pytest.mark.parametrize("given", [None, 0.0, float("nan"), "auto"])
def test_a_data_range_is_never_guessed(given: Any) -> None:
    data = ImageData(image_pairs())
    data.data_range = given
    with pytest.raises(UserError, match="state data_range"):
        trainer().fit(Restoration(image_network()), datamodule=data)


def test_an_output_of_another_shape_is_an_error() -> None:
    with pytest.raises(UserError, match=r"restored images.*\(8, 1, 16, 16\), got \(8, 2, 16, 16\)"):
        trainer().fit(Restoration(image_network(2)), datamodule=ImageData(image_pairs()))
    with pytest.raises(UserError, match=r"logits.*\(8, 2, 16, 16\), got \(8, 1, 16, 16\)"):
        trainer().fit(Restoration(image_network(1)), datamodule=MaskData(masks()))


def test_masks_need_two_classes() -> None:
    data = MaskData(masks())
    data.arguments = {"out_channels": 1}
    with pytest.raises(UserError, match="at least 2 classes"):
        trainer().fit(Restoration(image_network(1)), datamodule=data)


def test_an_unknown_loss_is_an_error() -> None:
    with pytest.raises(UserError, match="mse, l1, huber"):
        Restoration(image_network(), loss="ssim")  # type: ignore[arg-type]


def test_the_picture_shows_four_images_whatever_the_batch() -> None:
    task = Restoration(image_network())
    trainer().fit(task, datamodule=ImageData(image_pairs(), image_pairs(9, seed=1), batch_size=3))
    first = task._meters[0].first
    assert first is not None and first.sample.tolist() == [0, 1, 2, 3]
    assert torch.equal(first.input, image_pairs(9, seed=1)[0][:4])
    torch.testing.assert_close(first.output, task(first.input))
