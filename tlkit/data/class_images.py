"""What a data set of labelled images offers, and how it is packed."""

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tlkit.data.packed import Store, build
from tlkit.data.parallel import each
from tlkit.data.picture import decode_jpegs, encode_jpeg
from tlkit.errors import UserError

log = logging.getLogger(__name__)

Side = Literal["train", "test"]
_CHUNK = 64  # images per piece of work: a progress bar that moves, little overhead
_PACK_VERSION = 1  # raised when the same files are packed to other pixels


class ClassImages(ABC):
    """Labelled images, each on the training or the test side. Rows number them: training images first.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        size: side in pixels that suits the images; None: any.
        skip_broken: whether images that cannot be read are left out instead of refused.
    """

    channels: int
    size: int | None
    skip_broken: bool = False

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names that identify the classes; a label is an index into them."""

    @abstractmethod
    def labels(self, side: Side) -> np.ndarray:
        """Returns ``(n,)`` int64 labels of a side's images, in the data set's own order."""

    @abstractmethod
    def images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads rows ``start`` to ``stop - 1``; called in several processes.

        Args:
            start: first row.
            stop: row after the last.
            size: height and width of the result, pixels.

        Returns:
            ``(n, channels, size, size)`` uint8, and ``(n,)`` bool: which of them could be read.
        """

    @abstractmethod
    def fingerprint(self, cache_dir: Path) -> str:
        """Returns the sha256 hex digest of the content, wherever it is stored.

        Args:
            cache_dir: where hashes of files may be remembered.
        """

    def title(self, name: str) -> str:
        """Returns what people call the class ``name``."""
        return name

    def image_name(self, row: int) -> str:
        """Returns what identifies an image among its data set."""
        train = len(self.labels("train"))
        return f"train/{row}" if row < train else f"test/{row - train}"


def packed_fingerprint(images: ClassImages, cache_dir: Path) -> str:
    """Returns the sha256 hex digest of a data set's content and of how it is packed."""
    return hashlib.sha256(f"{images.fingerprint(cache_dir)} {_PACK_VERSION}".encode()).hexdigest()


def pack(images: ClassImages, cache_dir: Path, size: int, budget: int) -> Store:
    """Opens the packed data set, building it first if it is missing.

    Args:
        images: what to pack.
        cache_dir: where packed data sets are kept.
        size: side of the stored images, pixels.
        budget: bytes above which images are stored as JPEG (quality 95) instead of raw.

    Returns:
        A store with ``target`` ``(N,)`` int64 and either ``input`` ``(N, C, size, size)`` uint8 or bytes ``jpeg``.

    Raises:
        UserError: images that cannot be read, unless the data set skips them.
    """
    labels = np.concatenate([images.labels("train"), images.labels("test")])
    raw = len(labels) * images.channels * size * size
    kind = "raw" if raw <= budget else "jpeg"
    fingerprint = hashlib.sha256(f"{packed_fingerprint(images, cache_dir)} {size} {kind}".encode()).hexdigest()
    name = type(images).__name__
    spec: dict[str, tuple[Any, tuple[int, ...]]] = {"target": (np.int64, labels.shape)}
    if kind == "raw":
        spec |= {"input": (np.uint8, (len(labels), images.channels, size, size)), "readable": (np.bool_, labels.shape)}

    def fill(arrays: dict[str, np.memmap]) -> None:
        arrays["target"][:] = labels
        if kind == "raw":
            _fill_raw(images, arrays, size, f"packing {name}")
            _refuse_broken(images, np.flatnonzero(~arrays["readable"]))

    blobs = {"jpeg": partial(_encoded, images, len(labels), size)} if kind == "jpeg" else None
    store = build(cache_dir, fingerprint, spec, fill, name, blobs)
    if broken := len(labels) - int(readable(store).sum()):
        _say_left_out(name, broken, len(labels), store.folder)
    return store


@cache
def _say_left_out(name: str, broken: int, count: int, folder: Path) -> None:
    """Warns once per process: a store is opened for the check, the pretrain and the transfer."""
    log.warning("%s: %d of %d images cannot be read and are left out", name, broken, count)


def readable(store: Store) -> np.ndarray:
    """Returns ``(N,)`` bool: which rows hold an image."""
    if "readable" in store.arrays:
        return np.asarray(store.arrays["readable"])
    return np.diff(store.arrays["jpeg.offsets"]) > 0


def read_images(store: Store, rows: np.ndarray) -> torch.Tensor:
    """Reads ``(B,)`` rows as ``(B, C, size, size)`` uint8, decoding them if they are stored as JPEG."""
    if "input" in store.arrays:
        return store.take("input", rows)
    return decode_jpegs(store.take_bytes("jpeg", rows))


def _chunks(count: int) -> list[tuple[int, int]]:
    return [(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]


def _fill_raw(images: ClassImages, arrays: dict[str, np.memmap], size: int, description: str) -> None:
    """Writes all images into the shared array, from forked processes."""
    chunks = _chunks(len(arrays["target"]))

    def work(index: int) -> None:
        start, stop = chunks[index]
        arrays["input"][start:stop], arrays["readable"][start:stop] = images.images(start, stop, size)

    for _ in each(work, len(chunks), description):
        pass


def _encoded(images: ClassImages, count: int, size: int) -> Iterator[bytes]:
    """Yields each image as JPEG, and no bytes for one that cannot be read."""
    chunks = _chunks(count)

    def work(index: int) -> list[bytes]:
        pixels, good = images.images(*chunks[index], size)
        return [encode_jpeg(one) if keep else b"" for one, keep in zip(pixels, good, strict=True)]

    broken = []
    for index, coded in enumerate(each(work, len(chunks), f"packing {type(images).__name__}")):
        broken += [chunks[index][0] + i for i, one in enumerate(coded) if not one]
        yield from coded
    _refuse_broken(images, np.array(broken, dtype=np.int64))


def _refuse_broken(images: ClassImages, rows: np.ndarray) -> None:
    """Raises for images that cannot be read, unless they are to be skipped."""
    if not len(rows) or images.skip_broken:
        return
    names = ", ".join(images.image_name(int(row)) for row in rows[:10]) + (", …" if len(rows) > 10 else "")
    raise UserError(
        f"expected images that Pillow reads (JPEG, PNG, WebP, TIFF, …), got {len(rows)} files that are truncated or "
        f"of another type: {names}; repair or remove them, or leave them out with --data.dataset.skip_broken true"
    )
