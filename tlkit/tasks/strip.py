"""Pictures of restored and segmented images: input, target, output and error side by side."""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from tlkit.data.batch import Batch
from tlkit.tasks.metrics import MeanPSNR
from tlkit.tasks.pictures import Column, image_strip

ERROR_SPAN = 0.2  # error at full colour, as a share of data_range; an error everywhere this large has 14 dB


@dataclass(frozen=True)
class Units:
    """What the colours of a picture mean.

    Attributes:
        input: unit of the input as the data module hands it over.
        target: unit of targets and outputs.
    """

    input: str
    target: str


def restored_figure(batch: Batch, output: Tensor, data_range: float, units: Units, title: str) -> Figure:
    """Draws restored images; the same images always get the same colour scales.

    Args:
        batch: N inputs and targets ``(N, C, H, W)``; of several channels the mean is shown.
        output: ``(N, C, H, W)``.
        data_range: of the targets, in their unit.
        units: of input and target.
        title: above the picture.
    """
    target = _plane(batch.target)
    low, high = _scale(target)
    span = ERROR_SPAN * data_range
    notes = [f"{psnr:.1f} dB" for psnr in MeanPSNR(data_range).per_image(output, batch.target).tolist()]
    columns = [
        _input_column(batch, units),
        Column("target", target, low, high, unit=units.target),
        Column("output", _plane(output), low, high, unit=units.target, notes=notes),
        Column("output − target", _plane(output - batch.target), -span, span, cmap="RdBu_r", unit=units.target),
    ]
    return image_strip(columns, _labels(batch), title)


def segmented_figure(batch: Batch, output: Tensor, units: Units, title: str) -> Figure:
    """Draws predicted masks.

    Args:
        batch: N inputs ``(N, C, H, W)`` and masks ``(N, H, W)``.
        output: logits ``(N, classes, H, W)``.
        units: of the input.
        title: above the picture.
    """
    top = output.shape[1] - 1
    predicted = output.argmax(1)
    wrong = (predicted != batch.target).float()
    notes = [f"{share:.1%} of pixels wrong" for share in wrong.flatten(1).mean(1).tolist()]
    columns = [
        _input_column(batch, units),
        Column("target", batch.target.float().numpy(), 0, top, unit="class (0 = background)", whole=True),
        Column("output", predicted.float().numpy(), 0, top, unit="class (0 = background)", notes=notes, whole=True),
        Column("error", wrong.numpy(), 0, 1, cmap="Reds", unit="0 = right, 1 = wrong", whole=True),
    ]
    return image_strip(columns, _labels(batch), title)


def _input_column(batch: Batch, units: Units) -> Column:
    images = _plane(batch.input)
    return Column("input", images, *_scale(images), unit=units.input)


def _plane(images: Tensor) -> NDArray[np.float32]:
    plane: NDArray[np.float32] = images.float().mean(1).numpy()
    return plane


def _scale(images: NDArray[np.float32]) -> tuple[float, float]:
    """Returns the values of the first and last colour: a few outliers may saturate."""
    low, high = np.percentile(images, (0.5, 99.5))
    return float(low), float(high)


def _labels(batch: Batch) -> list[str]:
    return [f"sample {row}" for row in batch.sample.tolist()]
