"""Errors that a user can cause, and names for what was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A user's mistake: what was expected, what was got, the valid names, the remedy.

    Attributes:
        exit_code: what the command line exits with.
    """

    exit_code = 2


class Unavailable(UserError):
    """Something that this machine lacks and the one that trains may have: no reason to refuse a plan."""


class NonFinite(UserError):
    """NaN or infinity in an input or a loss: the run cannot go on."""

    exit_code = 3


def suggest(name: str, valid: Iterable[str]) -> str:
    """Returns ``; did you mean 'conv1'?`` for the nearest valid name, or an empty string."""
    close = get_close_matches(name, list(valid), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
