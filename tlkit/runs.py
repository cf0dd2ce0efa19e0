"""Run directories: ``runs/<experiment>/<stage>-<id8>[-n]/``, found by identity, locked while they run."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tlkit.errors import UserError

RESULT = "result.json"
LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """One executed stage on disk.

    Attributes:
        path: its directory.
        id: identity of the stage, sha256 in hex.
        stage: ``pretrain`` or ``transfer``.
    """

    path: Path
    id: str
    stage: str

    @property
    def last(self) -> Path:
        """The checkpoint a resumed run starts from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint that validation selected; the last one where there was no validation."""
        best = self.path / "checkpoints" / "best.ckpt"
        return best if best.exists() else self.last

    @property
    def finished(self) -> bool:
        """Whether the run came to its end: only then there is a result."""
        return (self.path / RESULT).exists()

    def result(self) -> dict[str, Any]:
        """Returns ``result.json``."""
        return read_result(self.path)


def read_result(path: Path) -> dict[str, Any]:
    """Returns the result of a run directory.

    Raises:
        UserError: the directory holds no finished run.
    """
    try:
        result: dict[str, Any] = json.loads((path / RESULT).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"expected a finished run in {path}, got: {error}") from error
    return result


def write_text(path: Path, text: str) -> None:
    """Writes a file under a temporary name beside it, then renames it: nobody sees it half-written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create(root: Path, experiment: str, stage: str, identity: str) -> Run:
    """Makes a fresh directory for a run; an existing one is never used again."""
    name = f"{stage}-{identity[:8]}"
    parent = root / experiment
    parent.mkdir(parents=True, exist_ok=True)
    n = 1
    while True:
        path = parent / (name if n == 1 else f"{name}-{n}")
        try:
            path.mkdir()
        except FileExistsError:
            n += 1
            continue
        write_text(path / "identity.json", json.dumps({"id": identity, "stage": stage}))
        return Run(path, identity, stage)


def find(root: Path, stage: str, identity: str) -> list[Run]:
    """Returns all runs of an identity below ``root``, in whichever experiment, the newest first."""
    found = [
        Run(path, identity, stage) for path in root.glob(f"*/{stage}-{identity[:8]}*") if identity_of(path) == identity
    ]
    return sorted(found, key=lambda run: run.path.stat().st_mtime, reverse=True)


def find_finished(root: Path, stage: str, identity: str) -> Run | None:
    """Returns the newest finished run of an identity, if there is one with its checkpoint."""
    return next((run for run in find(root, stage, identity) if run.finished and run.best.exists()), None)


def find_unfinished(root: Path, stage: str, identity: str) -> Run | None:
    """Returns the newest run of an identity that was cut off: without a result and without a living owner."""
    return next((run for run in find(root, stage, identity) if not run.finished and not is_running(run.path)), None)


@contextmanager
def running(path: Path) -> Iterator[None]:
    """Holds the lock of a run directory, with its owner's host and process in it."""
    with lock(path / LOCK):
        yield
    (path / LOCK).unlink(missing_ok=True)


def is_running(path: Path, name: str = LOCK) -> bool:
    """Tells whether a living process holds the lock of a run directory, or another one in it by its name."""
    if not (path / name).exists():
        return False
    try:
        with FileLock(path / name, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Waits for a lock file, says whose it is while waiting, and puts this process's name into it.

    The operating system releases it when its owner dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(path)
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"waiting for {owner(path)}, which holds {path}")
        held.acquire()
    try:
        path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        yield
    finally:
        held.release()


def owner(path: Path) -> str:
    """Returns who holds a lock file: host and process."""
    try:
        held = json.loads(path.read_text())
        return f"process {held['pid']} on {held['host']}"
    except (OSError, ValueError, KeyError):
        return "another process"


def identity_of(path: Path) -> str | None:
    """Returns the identity of the stage that a run directory is of; None: it does not say so."""
    try:
        identity: str = json.loads((path / "identity.json").read_text())["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity
