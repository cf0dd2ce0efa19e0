"""What every command does about messages, and about what can go wrong in it. Imports nothing heavy."""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import TextIO

from tlkit.errors import FULL_DISK, UserError, behind, mistake_behind

log = logging.getLogger("tlkit")

INTERRUPTED = 130
REFUSED = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
"""Numbers of an `OSError` for a place that a user may not, or cannot, read or write."""


def guard(action: Callable[[], None], again: str, resumes: bool, debug: bool) -> int:
    """Carries out a command and returns its exit code; what a user can mend is one message without a traceback.

    Args:
        action: the command.
        again: the words that start it again.
        resumes: whether it then goes on where it stopped.
        debug: whether to show the traceback as well.
    """
    try:
        action()
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error), error.exit_code, debug)
    except (ValueError, TypeError) as error:
        cause = mistake_behind(error)
        if cause is None:
            raise
        return _fail(str(cause), cause.exit_code, debug)
    except KeyboardInterrupt:
        return _interrupted(again, resumes, debug)
    except BrokenPipeError:  # whoever reads the output has seen enough: tlkit plugins | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        said = _of_a_file(error)
        if said is None:
            raise
        return _fail(f"{said}, then {'go on with' if resumes else 'start again'}: {again}", 2, debug)
    except Exception as error:  # such as of what an interrupt left half-done
        if not any(isinstance(one, KeyboardInterrupt) for one in behind(error)):
            raise
        return _interrupted(again, resumes, debug)
    return 0


def set_up_messages(stream: TextIO, level: int = logging.INFO) -> None:
    """Says on a standard stream what tlkit does; leaves out warnings that are none, or go to the wrong address."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(f"{_cleared(stream)}%(message)s"))
    handler.setLevel(level)
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.DEBUG)  # for log.txt
    for message in (
        r".*does not have many workers.*",  # batches are taken by index from memory: workers slow them down
        r".*smaller than the logging interval.*",  # metrics are logged once an epoch
        r".*`instantiate_classes` was deprecated.*",  # called by LightningCLI
        r".*instantiate_classes.*deprecated.*",
        r".*LeafSpec.*deprecated.*",  # called by Lightning
        r".*module\(s\) in eval mode at the start of training.*",  # that is what freezing means
        r".*`srun` command is available.*",  # a stage is one process, wherever it runs
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its directory
    ):
        warnings.filterwarnings("ignore", message=message)


def quieten_lightning() -> None:
    """Leaves out what Lightning says of itself, which is in log.txt; after it has been imported."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.setLevel(logging.WARNING)


def _of_a_file(error: OSError) -> str | None:
    """Returns what was expected of a file, and the remedy; None: no user can mend that."""
    if error.errno in REFUSED and error.filename:
        place = error.filename2 or error.filename
        return f"expected to read or write {place}, got '{error.strerror}'; mend that or name another place"
    if error.errno in FULL_DISK:
        where = f" while writing {error.filename}" if error.filename else ""
        return (
            f"expected room on the disk, got '{error.strerror}'{where}; nothing half-written is left. Free some space"
        )
    return None


def _interrupted(again: str, resumes: bool, debug: bool) -> int:
    return _fail(f"interrupted{f'; to go on: {again}' if resumes else ''}", INTERRUPTED, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stdout.flush()
    print(f"{_cleared(sys.stderr)}tlkit: {message}", file=sys.stderr)
    return code


def _cleared(stream: TextIO) -> str:
    """Returns what clears a terminal's line, for there may be one of progress."""
    return "\r\x1b[K" if stream.isatty() else ""
