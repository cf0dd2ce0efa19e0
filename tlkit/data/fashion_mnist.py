"""Fashion-MNIST: 70,000 photographs of clothes, 28 x 28, 10 classes (Xiao et al. 2017)."""

import gzip
import hashlib
import struct
import zlib
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import FashionMNIST as Download
from typing_extensions import override

from tlkit.data.class_images import ClassImages, Side
from tlkit.data.hashes import tree_hash
from tlkit.data.picture import fit
from tlkit.errors import UserError

_DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
_DOWNLOADS = Path("~/.cache/tlkit/downloads")
_IMAGES, _LABELS = 2051, 2049  # magic numbers of IDX files: unsigned bytes, three and one dimensions
_PREFIX = {"train": "train", "test": "t10k"}
_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class FashionMNIST(ClassImages):
    """Fashion-MNIST from its four IDX files, compressed or not."""

    def __init__(self, root: str | None = None, download: bool = False) -> None:
        """Finds the files.

        Args:
            root: folder with the IDX files; None: that of Debian's package ``dataset-fashion-mnist``.
            download: fetch missing files through torchvision, to ``root`` or else below ``~/.cache/tlkit``.

        Raises:
            UserError: there are no files.
        """
        self.channels = 1
        self.size = 28
        self._files = _find(root, download)

    @property
    @override
    def classes(self) -> list[str]:
        """``T-shirt/top`` … ``Ankle boot``."""
        return list(_CLASSES)

    @override
    def labels(self, side: Side) -> np.ndarray:
        """Returns ``(n,)`` int64 labels in the order of the file."""
        return self._labels[side]

    @cached_property
    def _labels(self) -> dict[str, np.ndarray]:
        return {side: self._read_labels(side) for side in _PREFIX}

    def _read_labels(self, side: str) -> np.ndarray:
        path = self._files[f"{_PREFIX[side]}-labels"]
        labels = read_idx(path, _LABELS).astype(np.int64)
        if len(labels) and labels.max() >= len(_CLASSES):
            raise UserError(f"expected labels 0 … {len(_CLASSES) - 1} in {path}, got {labels.max()}")
        return labels

    @cached_property
    def _pixels(self) -> np.ndarray:
        """``(N, 28, 28)`` uint8, training images first."""
        sides = [read_idx(self._files[f"{prefix}-images"], _IMAGES) for prefix in _PREFIX.values()]
        for side, pixels in zip(_PREFIX, sides, strict=True):
            if len(pixels) != len(self._labels[side]):
                path = self._files[f"{_PREFIX[side]}-images"]
                raise UserError(
                    f"expected one label per image in {path} and its labels file, got {len(pixels)} images and "
                    f"{len(self._labels[side])} labels; fetch both files again"
                )
        return np.concatenate(sides)

    @override
    def images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns ``(n, 1, size, size)`` uint8, all readable."""
        pixels = torch.from_numpy(self._pixels[start:stop, None])
        return fit(pixels, size).numpy(), np.ones(stop - start, dtype=bool)

    @override
    def fingerprint(self, cache_dir: Path) -> str:
        """Returns the sha256 hex digest of what is in the files, compressed or not."""
        names = {name: path.name for name, path in self._files.items()}
        hashes = tree_hash(next(iter(self._files.values())).parent, list(names.values()), cache_dir, _content_hash)[1]
        parts = [f"{name} {hashes[file]}" for name, file in sorted(names.items())]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Reads an IDX file of unsigned bytes.

    Args:
        path: the file, gzip-compressed if its name ends in ``.gz``.
        magic: the number it must begin with, big-endian; its last byte is the number of dimensions.

    Raises:
        UserError: another magic number, a wrong length, or a damaged compression.
    """
    content = _content(path)
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    got = int.from_bytes(content[:4], "big")
    if len(content) < header or got != magic:
        raise UserError(f"expected magic number {magic} at the start of {path}, got {got}; fetch the file again")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    length = header + int(np.prod(shape))
    if len(content) != length:
        raise UserError(
            f"expected {length} bytes in {path}, as its header says, got {len(content)}; fetch the file again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _content(path: Path) -> bytes:
    """Returns a file's bytes, decompressed."""
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"expected a complete gzip file, got {path} ({error}); fetch the file again") from error


def _content_hash(path: Path) -> str:
    """Returns the sha256 hex digest of a file's decompressed bytes."""
    return hashlib.sha256(_content(path)).hexdigest()


def _find(root: str | None, download: bool) -> dict[str, Path]:
    """Returns ``train-images``, ``train-labels``, ``t10k-images``, ``t10k-labels`` -> file."""
    folder = Path(root).expanduser() if root else _DEBIAN
    if files := _files_in(folder):
        return files
    if download:
        folder = Path(root).expanduser() if root else _DOWNLOADS.expanduser()
        for train in (True, False):
            Download(str(folder), train=train, download=True)
        if files := _files_in(folder):
            return files
    raise UserError(
        f"expected the four IDX files of Fashion-MNIST (train-images-idx3-ubyte, …, plain or .gz) in {folder}, got "
        "none or not all of them; install Debian's package dataset-fashion-mnist, or name their folder with "
        "--data.dataset.root, or fetch them with --data.dataset.download true"
    )


def _files_in(folder: Path) -> dict[str, Path] | None:
    """Returns the four files if all are in the folder, or below it where torchvision puts them."""
    for place in (folder, folder / "FashionMNIST" / "raw"):
        found = {}
        for prefix in _PREFIX.values():
            for part, kind in (("images", "idx3"), ("labels", "idx1")):
                plain = place / f"{prefix}-{part}-{kind}-ubyte"
                present = [path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()]
                if present:
                    found[f"{prefix}-{part}"] = present[0]
        if len(found) == 4:
            return found
    return None
