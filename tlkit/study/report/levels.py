"""A column as levels: text in order, however its cells are written; very many numbers are cut into bins."""

from itertools import pairwise

import numpy as np
import pandas as pd

from tlkit.study.expression import as_numbers

BINS = 5
NO_VALUES = ("nan", "na", "n/a", "<na>", "null")
EXACT = 2.0**53  # whole numbers from here on are not told apart as floats


def as_levels(column: pd.Series, label: str, remarks: list[str], most: int) -> tuple[pd.Series, bool]:
    """Returns the levels of a column as ordered text, numbers by size, then words; and whether all are numbers.

    Args:
        column: one cell per run.
        label: what remarks call it.
        remarks: added to.
        most: how many different numbers are not cut into bins.
    """
    numbers, text = as_numbers(column), _text(column)
    if numbers is None:
        return _words(text, label, remarks), False
    if numbers.nunique() > most:
        return _bins(numbers, label, remarks), True
    return _spelled(numbers, text, label, remarks), True


def as_replicates(column: pd.Series, label: str, remarks: list[str]) -> pd.Series:
    """Returns the replicate of each run as text, cleaned as levels are; see `as_levels`."""
    numbers, text = as_numbers(column), _text(column)
    told_apart = numbers is not None and bool((numbers.dropna().abs() < EXACT).all())
    found = _spelled(numbers, text, label, remarks) if told_apart else _words(text, label, remarks)
    return found.astype(object)


def _text(column: pd.Series) -> pd.Series:
    return column.astype("object").map(lambda value: None if pd.isna(value) else str(value).strip() or None)


def _words(text: pd.Series, label: str, remarks: list[str]) -> pd.Series:
    single = {word: pd.to_numeric(word, errors="coerce") for word in text.dropna().unique()}
    words = sorted(single, key=lambda word: np.inf if np.isnan(single[word]) else single[word])
    if odd := [word for word in words if word.lower() in NO_VALUES]:
        remarks.append(f"{label} has levels called {', '.join(odd)}; where that means no value, leave the cell empty")
    return text.astype(pd.CategoricalDtype(words, ordered=True))


def _spelled(numbers: pd.Series, text: pd.Series, label: str, remarks: list[str]) -> pd.Series:
    """Returns numbers as they are written first; equal ones are one level."""
    spelled: dict[float, str] = {}
    for value, word in zip(numbers, text, strict=True):
        if not np.isnan(value):
            spelled.setdefault(float(value), word if isinstance(word, str) and "." not in word else f"{value:.15g}")
    several = pd.DataFrame({"number": numbers, "text": text}).dropna().drop_duplicates()
    if len(several) > len(spelled):
        remarks.append(f"{label}: numbers that are written in several ways (as 1e-3 and 0.001) are one level")
    order = [spelled[value] for value in sorted(spelled)]
    return numbers.map(spelled).astype(pd.CategoricalDtype(order, ordered=True))


def _bins(numbers: pd.Series, label: str, remarks: list[str]) -> pd.Series:
    """Returns bins of equal count; of equally many numbers where that is one bin, for most runs have the same."""
    places, edges = pd.qcut(numbers, BINS, labels=False, retbins=True, duplicates="drop")
    of = " of equal count" if len(edges) > BINS else ""
    if len(edges) == 2:
        _, edges = pd.qcut(numbers.drop_duplicates(), BINS, retbins=True)
        places = pd.cut(numbers, edges, labels=False, include_lowest=True)
        of = " of equally many numbers, for most runs have the same one"
    digits = next(d for d in (3, 6, 17) if len({f"{edge:.{d}g}" for edge in edges}) == len(edges))
    names = [f"{low:.{digits}g} – {high:.{digits}g}" for low, high in pairwise(edges)]
    remarks.append(f"{label} has {numbers.nunique()} different numbers: cut into {len(names)} bins{of}")
    return places.map(dict(enumerate(names))).astype(pd.CategoricalDtype(names, ordered=True))
