"""How all figures look: colours per level, axes of levels, intervals, heat maps; names as they are written."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from tlkit.study.report.tidy import Factor, Runs

WIDTH = 11.0  # inches; the page shows it 1,100 px wide
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#8C6D31")
GREY = "#999999"
FONT = "DejaVu Sans"
STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "text.parse_math": False,  # a $ in a column's name is a $
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "svg.hashsalt": "tlkit",  # the same report twice is the same file
    "pdf.fonttype": 42,
    "axes.formatter.useoffset": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draws and saves everything inside in the report's style."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # `unknown_signs` says so once
        yield


def unknown_signs(runs: Runs) -> str:
    """Returns which signs of names the figures cannot show, as a sentence; empty: none."""
    names = [runs.metric, *(name for factor in runs.factors for name in (factor.label, *factor.levels))]
    known = get_font(findfont(FONT)).get_charmap()
    signs = sorted({sign for name in names for sign in name if ord(sign) not in known})
    told = " ".join(sign if sign.isprintable() else f"U+{ord(sign):04X}" for sign in signs)
    return f"figures show a box for what the font {FONT} has not: {told}" if signs else ""


def panels(count: int, columns: int = 3, height: float = 3.0, **options: Any) -> tuple[Figure, list[Axes]]:
    """Returns a figure of so many panels, row by row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH * 0.62, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for empty in axes[count:]:
        empty.remove()
    return figure, axes[:count]


def colours(factor: Factor) -> dict[str, Any]:
    """Returns level -> colour: a scale from dark to light, words apart from each other (Okabe and Ito 2008)."""
    count = len(factor.levels)
    if factor.ordered or count > len(OKABE_ITO):
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, count))
        return dict(zip(factor.levels, shades, strict=True))
    return dict(zip(factor.levels, OKABE_ITO, strict=False))


def better(runs: Runs, width: int = 36) -> str:
    """Returns the label of the metric's axis, on as many lines as it needs."""
    return "\n".join(wrap(f"{short(runs.metric, 64)} ({'lower' if runs.lower else 'higher'} is better)", width))


def from_zero(panels: Sequence[Axes]) -> None:
    """Starts the vertical axes at 0, with room above; after everything is drawn."""
    for axes in panels:
        tops = [float(other.dataLim.y1) for other in axes.get_shared_y_axes().get_siblings(axes)]
        top = max((top for top in tops if np.isfinite(top)), default=0.0)
        axes.set_ylim(0, 1.08 * top if top > 0 else 1)


def short(text: str, length: int = 28) -> str:
    """Returns a text that fits on an axis."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def level_axis(axes: Axes, factor: Factor, room: int = 34) -> None:
    """Puts the levels of a factor along x at 0, 1, 2, …, turned where they would run into each other.

    Args:
        axes: the panel.
        factor: along x.
        room: characters that fit beside each other.
    """
    names = [short(level, 18) for level in factor.levels]
    crowded = sum(len(name) + 1 for name in names) > room
    axes.set_xticks(range(len(names)), names, rotation=45 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlabel(short(factor.label, 44) if _to_scale(factor) else f"{short(factor.label, 32)} (not to scale)")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.grid(False, axis="x")


def _to_scale(factor: Factor) -> bool:
    """Returns whether levels that stand at equal distances are no scale, or have equal distances."""
    at = pd.to_numeric(pd.Series(factor.levels), errors="coerce").to_numpy()
    return not factor.ordered or bool(np.ptp(np.diff(at)) <= 1e-6 * np.abs(at).max())


def note_intervals(figure: Figure, runs: Runs) -> None:
    """Says below a figure what its vertical bars are; one replicate has none."""
    count = runs.frame["r"].nunique() if runs.replicated else 0
    if count == 1:
        return
    over = f"the means of {count} replicates" if count else "runs, not over replicates"
    figure.supxlabel(f"bars: 95 % t-intervals over {over}", fontsize=8, color="#555555")


def with_intervals(
    axes: Axes, table: pd.DataFrame, x: Factor, *, value: str = "mean", shift: float = 0.0, **look: Any
) -> Any:
    """Draws one value per level with its interval, where it has one; returns the line.

    Args:
        axes: the panel.
        table: columns x.key, the value, and low and high.
        x: the factor along x.
        value: the column that is drawn.
        shift: to the right, so that intervals of several lines stand beside each other.
        **look: of the line.
    """
    table = table.assign(at=[x.levels.index(str(level)) for level in table[x.key]]).sort_values("at")
    at = table["at"].to_numpy() + shift
    options: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.4} | look
    (line,) = axes.plot(at, table[value], **options)
    known = table["low"].notna().to_numpy()
    axes.vlines(at[known], table["low"][known], table["high"][known], color=line.get_color(), linewidth=1.2, alpha=0.8)
    return line


def shifts(count: int) -> Sequence[float]:
    """Returns how far the lines of a figure are moved apart."""
    return list(np.linspace(-0.012, 0.012, count) * min(count, 12) * 1.2) if count > 1 else [0.0]


def legend(axes: Axes, handles: Sequence[Any], names: Sequence[str], title: str) -> None:
    """Puts a legend to the right of a panel, where it covers nothing."""
    for handle in handles:
        handle.set_label("")  # a name that begins with _ would hide it
    drawn = axes.legend(
        handles,
        ["."] * len(handles),
        title=short(title, 30),
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        markerscale=1.5,
    )
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set_text(short(name, 24))


def heat_map(
    axes: Axes,
    table: pd.DataFrame,
    rows: Factor,
    columns: Factor,
    title: str,
    *,
    low_is_good: bool,
    limits: tuple[float, float] | None = None,
) -> Any:
    """Draws a matrix with its numbers; what is not there stays white.

    Args:
        axes: the panel.
        table: levels of rows × levels of columns.
        rows: from top to bottom.
        columns: from left to right.
        title: above it.
        low_is_good: which end of the colours is the good one; the good one is blue, or dark.
        limits: of the colours; None: 0 is the neutral one.
    """
    table = table.reindex(index=list(rows.levels), columns=list(columns.levels)).astype(float)
    values = table.to_numpy()
    limit = np.nanmax(np.abs(values)) if np.isfinite(values).any() else 1.0
    colormap = ("viridis" if low_is_good else "viridis_r") if limits else ("RdBu_r" if low_is_good else "RdBu")
    low, high = limits or (-limit, limit)
    image = axes.imshow(values, aspect="auto", cmap=colormap, vmin=low, vmax=high)
    axes.set_xticks(range(len(columns.levels)), [short(level, 12) for level in columns.levels], rotation=45, ha="right")
    axes.set_yticks(range(len(rows.levels)), [short(level, 16) for level in rows.levels])
    axes.set(xlabel=short(columns.label, 40), ylabel=short(rows.label, 34), title=short(title, 60))
    axes.grid(False)
    digits = _common_digits(values)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value) and len(columns.levels) <= 14:
            shade = image.cmap(image.norm(value))
            ink = "white" if 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] < 0.55 else "black"
            axes.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=7)
    return image


def _common_digits(values: Any) -> int:
    """Returns the decimals that show two digits of the spread and are the same in the whole matrix."""
    finite = values[np.isfinite(values)]
    spread = np.ptp(finite) if finite.size else 1.0
    return int(np.clip(1 - np.floor(np.log10(spread)), 0, 5)) if spread > 0 else 3
