"""Restoration of images, and segmentation where the targets are masks."""

from collections.abc import Callable
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from tlkit.data.batch import Batch
from tlkit.errors import UserError
from tlkit.models.network import Network
from tlkit.tasks.base import Task
from tlkit.tasks.from_data import network_argument
from tlkit.tasks.meter import First, Meter
from tlkit.tasks.metrics import ForegroundIoU, MeanPSNR, MeanSSIM
from tlkit.tasks.pictures import publish
from tlkit.tasks.strip import Units, restored_figure, segmented_figure

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
SAID = {
    "psnr": "PSNR {:.2f} dB",
    "ssim": "SSIM {:.4f}",
    "iou": "IoU {:.4f}",
    "pixel_accuracy": "{:.2%} of pixels right",
}
SHOWN = 4  # validation images in the picture


class Restoration(Task):
    """A pixelwise loss on images; PSNR and SSIM with the data set's fixed ``data_range``.

    PSNR (dB) and SSIM are means over images, each image's as scikit-image gives it (SSIM with a Gaussian window).
    Where the data module's ``target`` is ``"mask"``, targets are class indices ``(B, H, W)``: the loss is the
    cross-entropy of logits ``(B, classes, H, W)``, and the metrics are the foreground's ``iou`` and ``pixel_accuracy``.
    """

    monitor = "val/psnr"
    monitor_mode = "max"
    evaluate_before = True

    def __init__(
        self, network: Network | nn.Module, loss: Literal["mse", "l1", "huber"] = "mse", **kwargs: Any
    ) -> None:
        """Wires a network to an optimizer.

        Args:
            network: from normalised images ``(B, C, H, W)`` to images of the same size, or to logits of masks.
            loss: mean over pixels of the squared error, the absolute error, or the Huber loss (delta 1); in units of
                the images. Masks have cross-entropy instead.
            **kwargs: as in `Task`.
        """
        super().__init__(network, **kwargs)
        if loss not in LOSSES:
            raise UserError(f"expected loss to be one of {', '.join(LOSSES)}, got {loss!r}")
        self.loss = loss
        self.masks = False
        self.classes = 0
        self.data_range = 0.0
        self.units = Units("", "")

    @override
    def adapt(self, datamodule: LightningDataModule) -> None:
        """Takes the kind of target, and ``data_range`` of images or the number of classes of masks."""
        self.masks = getattr(datamodule, "target", None) == "mask"
        self.units = Units(
            getattr(datamodule, "input_unit", "as loaded"), getattr(datamodule, "target_unit", "units of the target")
        )
        if self.masks:
            self.monitor = "val/iou"
            self.classes = network_argument(datamodule, "out_channels", "state the masks' number of classes")
            if self.classes < 2:
                raise UserError(
                    "expected masks of at least 2 classes (background and foreground), "
                    f"got out_channels {self.classes} from network_arguments() of {type(datamodule).__name__}"
                )
            return
        self.monitor = "val/psnr"
        given = getattr(datamodule, "data_range", None)
        if not isinstance(given, int | float) or not isfinite(given) or given <= 0:
            raise UserError(
                "expected the data module to state data_range, the largest minus the smallest value of a target, "
                f"got {given} from {type(datamodule).__name__}; PSNR and SSIM are never given a range found in the data"
            )
        self.data_range = float(given)

    @override
    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the mean over pixels of the loss, in the images' units, squared for ``mse``; for masks in nats."""
        if not self.masks:
            _check_shape(output, target.shape, "restored images of the targets' shape", "out_channels")
            return LOSSES[self.loss](output, target)
        expected = (target.shape[0], self.classes, *target.shape[1:])
        _check_shape(output, expected, "logits per class and pixel of the masks", "out_channels")
        # Pixels as samples: the two-dimensional kernel has no deterministic form on CUDA.
        return F.cross_entropy(output.movedim(1, -1).flatten(0, -2), target.flatten())

    @override
    def prediction(self, output: Tensor) -> Tensor:
        """Returns the restored image ``(B, C, H, W)``, or the masks' probabilities ``(B, classes, H, W)``."""
        return output.softmax(1) if self.masks else output

    @override
    def metrics(self) -> MetricCollection:
        """Returns ``psnr`` and ``ssim``, or ``iou`` and ``pixel_accuracy``."""
        if self.masks:
            accuracy = MulticlassAccuracy(self.classes, average="micro")
            metrics: dict[str, Metric | MetricCollection] = {
                "iou": ForegroundIoU(self.classes),
                "pixel_accuracy": accuracy,
            }
        else:
            metrics = {"psnr": MeanPSNR(self.data_range), "ssim": MeanSSIM(self.data_range)}
        return MetricCollection(metrics, compute_groups=False)

    @override
    def measure(self, meter: Meter, batch: Batch, output: Tensor) -> None:
        """Adds images ``(B, C, H, W)`` or logits ``(B, classes, H, W)``; keeps the first few for the picture."""
        meter.metrics.update(output, batch.target)
        have = 0 if meter.first is None else len(meter.first.output)
        if have < SHOWN:
            more = First(*(field[: SHOWN - have].cpu() for field in (*batch, output)))
            meter.first = First(*map(torch.cat, zip(meter.first, more, strict=True))) if meter.first else more

    @override
    def draw(self, part: str, meter: Meter) -> None:
        """Draws the first validation images, the same ones after each epoch."""
        if part == "val" and self.trainer.is_global_zero:
            self._draw_strip(meter, None)

    @override
    def on_train_end(self) -> None:
        """Writes the last validation's picture to the run directory."""
        if self._meters and self.run_dir is not None and self.trainer.is_global_zero:
            self._draw_strip(self._meters[0], self.run_dir / "images.png")

    def _draw_strip(self, meter: Meter, path: Path | None) -> None:
        """Hands the picture to TensorBoard, or writes it to ``path`` if one is given."""
        if meter.first is None:
            return
        *fields, output = meter.first
        batch = Batch(*fields)
        step = self.trainer.global_step
        values = [SAID[name].format(value.item()) for name, value in meter.metrics.compute().items()]
        title = f"validation after {step} steps: {', '.join(values)}"
        if self.masks:
            figure = partial(segmented_figure, batch, output, self.units, title)
        else:
            figure = partial(restored_figure, batch, output, self.data_range, self.units, title)
        publish(figure, "val/images", step, [] if path else self.trainer.loggers, path)


def _check_shape(output: Tensor, expected: tuple[int, ...], what: str, argument: str) -> None:
    """Broadcasting would turn a wrong number of channels into a wrong loss without a word."""
    if output.shape != expected:
        raise UserError(
            f"expected {what}, {tuple(expected)}, got {tuple(output.shape)}; check model.network.{argument}"
        )
