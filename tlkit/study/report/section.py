"""What a report is made of: sections of text, figures and tables, or the reason why one is left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

HEADINGS = {"n": "runs", "low": "95 % low", "high": "95 % high"}  # of a summary, where the page shows it
INTERVAL = (HEADINGS["low"], HEADINGS["high"])


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        name: of its PNG and PDF.
        caption: what it shows and how to read it.
        figure: as drawn.
    """

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Shown:
    """A table; all of it is in ``tables/<name>.csv``.

    Attributes:
        name: of its CSV.
        caption: what it shows.
        frame: the numbers, unrounded; every column goes into the CSV.
        headings: column -> heading of those that the page shows.
        rows: how many rows the page shows; None: all; 0: the table is not on the page.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    headings: dict[str, str] = field(default_factory=dict)
    rows: int | None = None

    def cells(self) -> list[dict[str, str]]:
        """Returns what the page shows, row by row: column -> text."""
        frame = self.frame[list(self.headings)].head(len(self.frame) if self.rows is None else self.rows)
        formats: list[Callable[[object], str]] = []
        for column in frame:
            interval = formats and self.headings[column] in INTERVAL  # as precise as what it is the interval of
            formats.append(formats[-1] if interval else _format(frame[column]))
        rows = frame.itertuples(index=False, name=None)
        return [{column: show(value) for column, show, value in zip(frame, formats, row, strict=True)} for row in rows]

    def numeric(self, column: str) -> bool:
        """Returns whether a column holds numbers, which stand right."""
        return bool(pd.api.types.is_numeric_dtype(self.frame[column]))


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes:
        title: heading.
        text: paragraphs.
        figures: what is drawn.
        tables: what is counted.
    """

    title: str
    text: list[str]
    figures: list[Drawn] = field(default_factory=list)
    tables: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class LeftOut:
    """A part that the table does not allow.

    Attributes:
        title: of the section that is not there.
        reason: what is missing; one sentence.
    """

    title: str
    reason: str


def own_names(frame: pd.DataFrame, names: Mapping[str, str]) -> dict[str, str]:
    """Returns column -> name of its own; one that another column has already says what it is.

    Args:
        frame: a table.
        names: column -> name, where it is to have another one; ``y`` is the metric, the others are factors.
    """
    taken = {column for column in frame if column not in names}
    own = {}
    for column, name in names.items():
        while name in taken:
            name += " (metric)" if column == "y" else " (factor)"
        taken.add(name)
        own[column] = name
    return own


def _format(column: pd.Series) -> Callable[[object], str]:
    """Returns how the numbers of a column are shown: with equal decimals, so that they can be compared at a glance.

    The upper quartile has four significant digits, or up to two more, so that the smallest has one; where that is not
    enough, each number has decimals of its own.
    """
    sizes = column.abs() if pd.api.types.is_float_dtype(column) else pd.Series(dtype=float)
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if sizes.empty:
        return cell
    large, small = (int(np.floor(np.log10(sizes.quantile(q, "higher")))) for q in (0.75, 0))
    needed, wanted = 3 - large, -small
    if wanted > needed + 2 or not -5 <= needed <= 8:
        return cell
    return lambda value: _signed(f"{value:,.{max(0, needed, wanted)}f}") if pd.notna(value) else cell(value)


def cell(value: object) -> str:
    """Returns a value as the page shows it: four significant digits, a dash for what is not there."""
    if isinstance(value, float | np.floating):
        return "—" if np.isnan(value) else number(float(value))
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return "—" if value is None or value is pd.NA else str(value)


def number(value: float) -> str:
    """Returns four significant digits, with a true minus sign; ``1.500`` stays as precise as it is."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    places = 3 - int(np.floor(np.log10(abs(value))))
    return _signed(f"{value:,.{max(0, places)}f}" if -4 <= places <= 8 else f"{value:.3e}")


def _signed(text: str) -> str:
    """Returns a number with a true minus sign."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def capital(text: str) -> str:
    """Returns a text as the start of a sentence; a path or another identifier stays as it is written."""
    first = text.partition(" ")[0].rstrip(".,:;")
    return text if any(sign in first for sign in "./_") else text[:1].upper() + text[1:]


def percent(share: float) -> str:
    """Returns a share as per cent, with one decimal below ten."""
    if np.isnan(share):
        return "—"
    if share in (0, 1):
        return f"{100 * share:.0f}\u00a0%"
    if 0 < share < 0.0005:
        return "< 0.1\u00a0%"
    return f"{100 * share:.1f}\u00a0%" if share < 0.0995 else f"{100 * share:.0f}\u00a0%"
