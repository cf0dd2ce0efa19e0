"""Pictures of results, drawn without pyplot's global state."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage, imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

NUMBERED = 20  # classes up to which each cell of a confusion matrix carries its count
NAMED = 50  # classes up to which each row carries its name
DPI = 100


@dataclass(frozen=True)
class Column:
    """One column of an image strip: what it shows, and on which scale.

    Attributes:
        title: above it.
        images: ``(N, H, W)``.
        low: value of the first colour.
        high: value of the last colour.
        cmap: matplotlib's name of the colours.
        unit: under the colour bar.
        notes: N texts, in the images' corners; none if empty.
        whole: whether values are whole numbers.
    """

    title: str
    images: NDArray[np.float32]
    low: float
    high: float
    cmap: str = "gray"
    unit: str = ""
    notes: Sequence[str] = ()
    whole: bool = False


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix: colour is the share of the true class, the numbers are counts.

    Args:
        matrix: ``(classes, classes)`` counts, row = true class, column = predicted class.
        names: of the classes.
        title: above it.
    """
    classes = len(matrix)
    side = float(np.clip(2.5 + 0.5 * classes, 5.0, 13.0))  # inches
    # Margins by the longest name: a layout that is computed takes longer than the picture.
    wide, high, text = side + 1.2, side, 0.085 * max(map(len, names)) if classes <= NAMED else 0.3  # inches
    left, bottom = min(0.6 + text, 0.4 * wide), min(0.6 + 0.75 * text, 0.4 * high)
    figure = Figure(figsize=(wide, high), dpi=DPI)
    figure.subplots_adjust(left / wide, bottom / high, 1.0, 1 - 0.4 / high)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if classes <= NAMED:
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if classes <= NUMBERED:
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.6 else "black" if count else "lightgray"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return figure


def image_strip(columns: Sequence[Column], rows: Sequence[str], title: str) -> Figure:
    """Draws images side by side: one row per sample, one colour bar per column, which holds for all its images.

    Args:
        columns: what to show, each with as many images as there are rows.
        rows: labels of the samples.
        title: above it.
    """
    wide, high = 2.2 * len(columns) + 0.4, 2.2 * len(rows) + 1.2  # inches
    figure = Figure(figsize=(wide, high), dpi=DPI)
    edges = {"left": 0.4 / wide, "right": 0.985, "top": 1 - 0.65 / high, "bottom": 0.5 / high}
    grid = figure.add_gridspec(2, len(columns), height_ratios=[2.2 * len(rows), 0.1], hspace=0.03, wspace=0.06, **edges)
    for index, column in enumerate(columns):
        axes = figure.add_subplot(grid[0, index])
        shown = _stack(axes, column, rows if index == 0 else [])
        bar = figure.colorbar(shown, cax=figure.add_subplot(grid[1, index]), orientation="horizontal")
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4, integer=column.whole))
        bar.set_label(column.unit, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def publish(
    draw: Callable[[], Figure], tag: str, step: int, loggers: Iterable[Logger], path: Path | None = None
) -> None:
    """Hands a picture to every TensorBoard logger and, if a path is given, writes it as PNG; else does not draw it."""
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    if not boards and path is None:
        return
    canvas = FigureCanvasAgg(draw())
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    for board in boards:
        board.experiment.add_image(tag, pixels, step, dataformats="HWC")
    if path is not None:
        imsave(path, pixels)


def _stack(axes: Axes, column: Column, rows: Sequence[str]) -> AxesImage:
    """Draws a column's images below each other as one image: an axes for each takes nearly twice as long."""
    count, height, width = column.images.shape
    gap = max(1, height // 25)  # pixels
    padded = np.pad(column.images.astype(float), ((0, 0), (0, gap), (0, 0)), constant_values=np.nan)
    tops = np.arange(count) * (height + gap)
    axes.set_title(column.title, fontsize=10)
    axes.set_frame_on(False)
    axes.set_xticks([])
    axes.set_yticks([top + height / 2 for top in tops] if rows else [], rows, rotation=90, va="center", fontsize=8)
    axes.tick_params(length=0)
    for top, note in zip(tops, column.notes, strict=False):
        corner = {"facecolor": "white", "linewidth": 0, "pad": 1.0}
        axes.text(0.02 * width, top + 0.98 * height, note, fontsize=8, va="bottom", bbox=corner)
    stacked = padded.reshape(-1, width)[:-gap]
    return axes.imshow(stacked, column.cmap, vmin=column.low, vmax=column.high, aspect="auto", interpolation="nearest")
