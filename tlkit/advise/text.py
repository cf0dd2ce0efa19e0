"""How advice is laid out on a terminal."""

from collections.abc import Sequence
from textwrap import fill

WIDTH = 100
NAMED = 19
"""Characters before the text of an entry."""


def amount(number: float) -> str:
    """Returns a number with as many digits as matter: three, and all before the point."""
    return f"{number:,.0f}" if abs(number) >= 99.95 else f"{number:.3g}"


def entry(name: str, *sentences: str) -> str:
    """Returns sentences behind a name, lines broken; those that are empty are left out."""
    start = f"  {name}".ljust(NAMED)
    return fill(" ".join(filter(None, sentences)), WIDTH, initial_indent=start, subsequent_indent=" " * NAMED)


def paragraph(*sentences: str) -> str:
    """Returns sentences with lines broken; those that are empty are left out."""
    return fill(" ".join(filter(None, sentences)), WIDTH)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table, indented: the first column stands left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  "
        + row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )
