"""Hashes of files' content, remembered for as long as size and time of change stay the same."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tlkit.data.packed import explained
from tlkit.data.parallel import each
from tlkit.errors import UserError

_CHUNK = 256  # files per piece of work


def sha256(path: Path) -> str:
    """Returns the sha256 hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(
    root: Path, names: Sequence[str], cache_dir: Path, hash_file: Callable[[Path], str] = sha256
) -> tuple[str, dict[str, str]]:
    """Hashes files by name and content, so that the same files give the same hash in any folder.

    Args:
        root: the folder they lie in.
        names: paths below it; their order does not matter.
        cache_dir: remembers each file's hash with its size and time of change.
        hash_file: what a file's content is hashed by; called in several processes.

    Returns:
        The sha256 hex digest of all names and hashes, and name -> hash.

    Raises:
        UserError: a file cannot be read, or the cache directory cannot be written.
    """
    names = sorted(names)
    place = hashlib.sha256(f"{root.resolve()} {hash_file.__name__}".encode("utf-8", "surrogateescape")).hexdigest()
    memory = cache_dir / "hashes" / f"{place[:24]}.tsv"
    known = _read(memory)
    states = [_readable(_state, root / name) for name in names]
    hashes = {name: known.get((name, state), "") for name, state in zip(names, states, strict=True)}
    if missing := [name for name in names if not hashes[name]]:
        chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]

        def work(index: int) -> list[str]:
            return [_readable(hash_file, root / name) for name in chunks[index]]

        for chunk, digests in zip(chunks, each(work, len(chunks), f"hashing {root.name}"), strict=True):
            hashes.update(zip(chunk, digests, strict=True))
        _write(memory, [(name, state, hashes[name]) for name, state in zip(names, states, strict=True)])
    whole = hashlib.sha256()
    for name in names:
        whole.update(f"{name}\0{hashes[name]}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest(), hashes


def _readable(read: Callable[[Path], str], path: Path) -> str:
    """Returns what ``read`` tells of a file; that it cannot be read is the user's error."""
    try:
        return read(path)
    except OSError as error:
        raise UserError(
            f"expected to read {path}, got {error.strerror}; remove it, or change its permissions"
        ) from error


def _state(path: Path) -> str:
    """Returns what changes when a file is written again."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _read(memory: Path) -> dict[tuple[str, str], str]:
    """Returns (name, state) -> hash; nothing if there is no memory yet."""
    if not memory.exists():
        return {}
    lines = memory.read_text("utf-8", "surrogateescape").splitlines()
    fields = [line.split("\t", 2) for line in lines if line.count("\t") >= 2]
    return {(name, state): digest for digest, state, name in fields if len(digest) == 64}


def _write(memory: Path, entries: Sequence[tuple[str, str, str]]) -> None:
    """Replaces the memory at once, so that a reader never sees half of it."""
    partial = memory.with_suffix(f".{os.getpid()}")
    text = "".join(f"{digest}\t{state}\t{name}\n" for name, state, digest in entries if "\n" not in name)
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, "utf-8", "surrogateescape")
        partial.replace(memory)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise explained(error, memory.parent.parent, f"{len(text) / 1e9:.2f} GB of free space for hashes") from error
