"""Pictures of results, drawn without pyplot's global state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
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
        notes: N texts, under the images; none if empty.
    """

    title: str
    images: NDArray[np.float32]
    low: float
    high: float
    cmap: str = "gray"
    unit: str = ""
    notes: Sequence[str] = ()


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix: colour is the share of the true class, the numbers are counts.

    Args:
        matrix: ``(classes, classes)`` counts, row = true class, column = predicted class.
        names: of the classes.
        title: above it.
    """
    classes = len(matrix)
    side = float(np.clip(2.5 + 0.5 * classes, 5.0, 13.0))  # inches
    figure = Figure(figsize=(side + 1.2, side), dpi=DPI, layout="constrained")
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
    cell, wide, high = 2.1, len(columns), len(rows)  # inches
    figure = Figure(figsize=(cell * wide + 0.4, cell * 1.06 * high + 1.3), dpi=DPI)
    grid = figure.add_gridspec(
        high + 1,
        wide,
        height_ratios=[1.0] * high + [0.05],
        left=0.4 / figure.get_figwidth(),
        right=0.985,
        top=1 - 0.6 / figure.get_figheight(),
        bottom=0.5 / figure.get_figheight(),
        wspace=0.06,
        hspace=0.14,
    )
    for index, column in enumerate(columns):
        for row in range(high):
            axes = figure.add_subplot(grid[row, index])
            shown = _cell(axes, column, row)
            axes.set_title(column.title if row == 0 else "", fontsize=10)
            axes.set_ylabel(rows[row] if index == 0 else "", fontsize=8)
        bar = figure.colorbar(shown, cax=figure.add_subplot(grid[high, index]), orientation="horizontal")
        bar.ax.tick_params(labelsize=7)
        bar.ax.xaxis.set_major_locator(MaxNLocator(4))
        bar.set_label(column.unit, fontsize=8)
    figure.suptitle(title, fontsize=11)
    return figure


def publish(figure: Figure, tag: str, step: int, loggers: Iterable[Logger], path: Path | None = None) -> None:
    """Hands a picture to every TensorBoard logger and, if a path is given, writes it as PNG."""
    boards = [logger for logger in loggers if isinstance(logger, TensorBoardLogger)]
    if boards:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
        for board in boards:
            board.experiment.add_image(tag, pixels, step, dataformats="HWC")
    if path is not None:
        figure.savefig(path)


def _cell(axes: Axes, column: Column, row: int) -> AxesImage:
    axes.set_xticks([])
    axes.set_yticks([])
    if column.notes:
        note = axes.text(0.03, 0.03, column.notes[row], transform=axes.transAxes, fontsize=8, va="bottom")
        note.set_bbox({"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1.0})
    return axes.imshow(column.images[row], vmin=column.low, vmax=column.high, cmap=column.cmap, interpolation="nearest")
