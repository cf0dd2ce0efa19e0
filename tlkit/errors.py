"""Errors that a user can cause, and names for what was meant."""

import errno
import traceback
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an `OSError` for want of room."""


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


def mistake_behind(error: BaseException) -> UserError | None:
    """Returns the user's mistake that a constructor found and the parser wrapped into an error of its own."""
    return next((one for one in behind(error) if isinstance(one, UserError)), None)


def behind(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, those that it comes from, and those that the parser collected before it raised it."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop()
        yield error
        if id(error) not in seen:
            seen.add(id(error))
            pending += [other for other in (error.__context__, error.__cause__) if other is not None]
            pending += _set_aside(error)


def _set_aside(error: BaseException) -> list[BaseException]:
    """Returns the errors that the parser collected before it raised this one.

    It tries the types of a union in turn (``str | ClassImages``) and raises from the first one's error alone; the
    constructor's is in a list of its frames.
    """
    lists = [v for frame, _ in traceback.walk_tb(error.__traceback__) for v in frame.f_locals.values()]
    return [e for items in lists if isinstance(items, list) for e in items if isinstance(e, BaseException)]
