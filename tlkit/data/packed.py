"""Packed data sets: memory-mapped arrays below a cache directory, built once.

An entry is a folder ``<name>-<fingerprint>`` with one ``.npy`` file per array and ``meta.json``, which records every
file's size. It is written under a temporary name and renamed, so it exists when it is complete; one that was damaged
afterwards is noticed by its sizes and built again.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from tlkit.errors import UserError

log = logging.getLogger(__name__)

Spec = Mapping[str, tuple[Any, tuple[int, ...]]]  # name -> (dtype, shape with the rows first)
Fill = Callable[[dict[str, np.memmap]], None]
Blobs = Mapping[str, Callable[[], Iterator[bytes]]]  # name -> one byte string per row, in the order of rows
_META = "meta.json"


@dataclass(frozen=True)
class Store:
    """A packed data set: named arrays that share their first dimension, the rows.

    Attributes:
        folder: the cache entry.
        arrays: name -> read-only memory map ``(rows, …)``.
        rows: how many samples the store holds.
    """

    folder: Path
    arrays: dict[str, np.ndarray]
    rows: int

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self.rows

    def take(self, name: str, rows: np.ndarray) -> Tensor:
        """Reads some rows of an array, all at once.

        Args:
            name: the array.
            rows: ``(B,)`` integers, in any order.

        Returns:
            ``(B, …)`` in the stored type, but uint16 as int32, which torch computes with.
        """
        taken = np.take(self.arrays[name], rows, axis=0)
        return torch.from_numpy(taken.astype(np.int32) if taken.dtype == np.uint16 else taken)

    def take_bytes(self, name: str, rows: np.ndarray) -> list[Tensor]:
        """Reads some rows of a byte array: one ``(n,)`` uint8 tensor for each of the ``(B,)`` rows."""
        data, offsets = self.arrays[f"{name}.bytes"], self.arrays[f"{name}.offsets"]
        return [torch.from_numpy(np.array(data[offsets[row] : offsets[row + 1]])) for row in rows]


def build(
    cache_dir: str | Path,
    fingerprint: str,
    spec: Spec,
    fill: Fill,
    name: str = "data",
    blobs: Blobs | None = None,
) -> Store:
    """Opens the entry of ``fingerprint``, building it first if it is missing or damaged.

    Several processes may call this at once: one builds, the others wait. ``fill`` may write from forked processes
    (``tlkit.data.parallel``): the arrays are shared memory maps.

    Args:
        cache_dir: where entries are kept; ``~`` is expanded.
        fingerprint: hex digest of everything that determines the content.
        spec: array name -> (dtype, shape), rows first.
        fill: called once with the zero-filled arrays to write into.
        name: what the entry's folder begins with.
        blobs: name -> function that yields one byte string per row; read back with ``Store.take_bytes``.

    Raises:
        UserError: the disk is full or the cache directory cannot be written; nothing is left behind.
    """
    folder = Path(cache_dir).expanduser() / f"{name}-{fingerprint[:24]}"
    if (store := _open(folder, fingerprint)) is not None:
        return store
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if (store := _open(folder, fingerprint)) is not None:
                return store
            if folder.exists():
                log.warning("cache entry %s is incomplete or damaged; building it again", folder)
            _write(folder, fingerprint, spec, fill, blobs or {})
    except OSError as error:
        need = sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for dtype, shape in spec.values())
        raise explained(error, folder.parent, f"{need / 1e9:.2f} GB or more of free space to pack {name}") from error
    store = _open(folder, fingerprint)
    if store is None:
        raise RuntimeError(f"cache entry {folder} was removed or damaged right after it was built")
    return store


def _open(folder: Path, fingerprint: str) -> Store | None:
    """Returns the entry if it is complete, else None."""
    try:
        meta = json.loads((folder / _META).read_text())
        if meta["fingerprint"] != fingerprint:
            return None
        arrays, rows = {}, int(meta["rows"])
        for name, file in meta["files"].items():
            path = folder / f"{name}.npy"
            if path.stat().st_size != file["bytes"]:
                return None
            array = np.load(path, mmap_mode="r")
            if [str(array.dtype), list(array.shape)] != [file["dtype"], file["shape"]]:
                return None
            arrays[name] = array
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Store(folder, arrays, rows)


def _write(folder: Path, fingerprint: str, spec: Spec, fill: Fill, blobs: Blobs) -> None:
    """Builds an entry under a temporary name and renames it; the caller holds the lock."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        arrays = {name: _allocate(partial / f"{name}.npy", dtype, shape) for name, (dtype, shape) in spec.items()}
        fill(arrays)
        for array in arrays.values():
            array.flush()
        for name, rows in blobs.items():
            _write_blobs(partial, name, rows())
        files = {path.stem: _record(path) for path in sorted(partial.glob("*.npy"))}
        counts = {shape[0] for _, shape in spec.values()} | {
            file["shape"][0] - 1 for name, file in files.items() if name.endswith(".offsets")
        }
        if len(counts) != 1:
            raise ValueError(f"arrays of one store share their first dimension, got {sorted(counts)} rows")
        meta = {"fingerprint": fingerprint, "rows": counts.pop(), "files": files}
        (partial / _META).write_text(json.dumps(meta, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _allocate(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.memmap:
    """Creates a zero-filled array whose blocks exist on disk: a sparse file would kill the process when it is full."""
    array: np.memmap = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write_blobs(folder: Path, name: str, rows: Iterator[bytes]) -> None:
    """Writes byte strings one after another, and where each begins."""
    raw, offsets = folder / f"{name}.raw", [0]
    with raw.open("wb") as file:
        for row in rows:
            file.write(row)
            offsets.append(offsets[-1] + len(row))
    data = np.memmap(raw, dtype=np.uint8, mode="r", shape=(offsets[-1],))
    np.save(folder / f"{name}.bytes.npy", data)
    np.save(folder / f"{name}.offsets.npy", np.array(offsets, dtype=np.int64))
    del data
    raw.unlink()


def _record(path: Path) -> dict[str, Any]:
    """Returns what must hold for a file to be whole."""
    array = np.load(path, mmap_mode="r")
    return {"dtype": str(array.dtype), "shape": list(array.shape), "bytes": path.stat().st_size}


def explained(error: OSError, cache_dir: Path, space: str) -> Exception:
    """Returns the user's error for what the file system refused in the cache directory; else the error itself.

    Args:
        error: what was raised.
        cache_dir: the cache directory.
        space: how much space was needed for what.
    """
    if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(cache_dir):
        return error  # about the data, not about the cache
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"expected {space} in {cache_dir}, got a full disk; nothing was left there; "
            "free some space or choose another folder with --data.cache_dir"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return UserError(
            f"expected a writable cache directory, got {cache_dir} ({error.strerror}); "
            "choose another one with --data.cache_dir"
        )
    return error
