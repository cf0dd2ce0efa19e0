"""Labelled images that lie in files."""

import hashlib
import os
from abc import abstractmethod
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import override

from tlkit.data.class_images import ClassImages, Side
from tlkit.data.hashes import tree_hash
from tlkit.data.picture import fit, read_rgb
from tlkit.errors import UserError


class Listing(NamedTuple):
    """The files of a data set.

    Attributes:
        classes: names of the classes.
        train: file (a path below the root) and label of each training image, in order.
        test: the same of each test image.
    """

    classes: list[str]
    train: list[tuple[str, int]]
    test: list[tuple[str, int]]


class FileImages(ClassImages):
    """RGB images in files below one folder; listed on first use, in an order that no file system decides."""

    def __init__(self, root: str, skip_broken: bool = False) -> None:
        """Stores the arguments.

        Args:
            root: the folder.
            skip_broken: leave out files that cannot be read, and say how many, instead of refusing them.

        Raises:
            UserError: there is no such folder.
        """
        self.channels = 3
        self.size = None
        self.skip_broken = skip_broken
        self.root = Path(root).expanduser()
        self._fingerprint: str | None = None  # of the files as they were first seen
        if not self.root.is_dir():
            raise UserError(f"expected a folder of images, got {self.root}; name it with --data.dataset.root")

    @abstractmethod
    def list_files(self) -> Listing:
        """Returns the files; called once."""

    @cached_property
    def listing(self) -> Listing:
        """The files, listed once."""
        listing = self.list_files()
        with_images = {label for _, label in listing.train}
        if empty := [name for label, name in enumerate(listing.classes) if label not in with_images]:
            raise UserError(f"expected training images of every class in {self.root}, got none of {empty[:10]}")
        return listing

    @property
    @override
    def classes(self) -> list[str]:
        """Names of the classes, sorted."""
        return self.listing.classes

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, _ in self.listing.train + self.listing.test]

    @override
    def labels(self, side: Side) -> np.ndarray:
        """Returns ``(n,)`` int64 labels, in the order of class and file names."""
        return self._labels[side]

    @cached_property
    def _labels(self) -> dict[Side, np.ndarray]:
        sides: dict[Side, list[tuple[str, int]]] = {"train": self.listing.train, "test": self.listing.test}
        return {side: np.array([label for _, label in files], dtype=np.int64) for side, files in sides.items()}

    @override
    def images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads, resizes and crops some files: ``(n, 3, size, size)`` uint8, ``(n,)`` bool: readable."""
        out = np.zeros((stop - start, self.channels, size, size), dtype=np.uint8)
        readable = np.zeros(stop - start, dtype=bool)
        for place, name in enumerate(self._names[start:stop]):
            image = read_rgb(self.root / name)
            if image is not None:
                out[place], readable[place] = fit(image, size).numpy(), True
        return out, readable

    @override
    def image_name(self, row: int) -> str:
        """Returns the file's path below the root."""
        return self._names[row]

    @override
    def fingerprint(self, cache_dir: Path) -> str:
        """Returns the sha256 hex digest of names, contents and labels of all files."""
        if self._fingerprint is None:
            self._fingerprint = self._hash(cache_dir)
        return self._fingerprint

    def _hash(self, cache_dir: Path) -> str:
        content, _ = tree_hash(self.root, self._names, cache_dir)
        whole = hashlib.sha256(f"{content} {self.listing.classes}".encode("utf-8", "surrogateescape"))
        whole.update(self.labels("train").tobytes())
        whole.update(self.labels("test").tobytes())
        return whole.hexdigest()


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, hidden ones left out."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def files_below(root: Path, folder: Path) -> list[str]:
    """Returns all files below ``folder`` as paths below ``root``, sorted, hidden ones left out."""
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)
