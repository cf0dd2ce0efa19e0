"""Finds and reads pairs of micrographs: ``<root>/<domain>/input/a.tif`` and ``<root>/<domain>/target/a.tif``."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import mrcfile
import numpy as np
import numpy.typing as npt
import tifffile

from tlkit.errors import NonFinite, UserError, suggest

T = TypeVar("T")
SUFFIXES = (".tif", ".tiff", ".mrc")


class Pair(NamedTuple):
    """One micrograph with what is to be restored from it.

    Attributes:
        stem: the files' common name, without suffix.
        input: the file of the recorded image.
        target: the file of the wanted image.
    """

    stem: str
    input: Path
    target: Path


def find_domains(root: Path) -> list[str]:
    """Returns the names of the folders in `root` that have a folder ``input``, sorted.

    Raises:
        UserError: there is none.
    """
    found = sorted(folder.parent.name for folder in root.glob("*/input") if folder.is_dir())
    if not found:
        raise UserError(
            f"expected folders <domain>/input and <domain>/target in {root}, got none; remedy: one folder per domain "
            f"(say '+10nm'), each micrograph under the same name in both"
        )
    return found


def find_pairs(root: Path, domain: str) -> list[Pair]:
    """Returns a domain's pairs, sorted by stem.

    Raises:
        UserError: no such domain, no micrographs, a file without its partner, or a stem that occurs twice.
    """
    valid = find_domains(root)
    if domain not in valid:
        raise UserError(f"expected a folder of {root}, got domain '{domain}'; valid: {valid}{suggest(domain, valid)}")
    inputs, targets = (_by_stem(root / domain / kind) for kind in ("input", "target"))
    for stem in sorted(inputs.keys() ^ targets.keys()):
        here, there = (inputs[stem], "target") if stem in inputs else (targets[stem], "input")
        raise UserError(
            f"expected a partner of {here} in {root / domain / there}, got none; "
            f"remedy: add {stem} with a suffix of {', '.join(SUFFIXES)}, or remove the file"
        )
    if not inputs:
        raise UserError(f"expected micrographs ({', '.join(SUFFIXES)}) in {root / domain / 'input'}, got none")
    return [Pair(stem, inputs[stem], targets[stem]) for stem in sorted(inputs)]


def shape_of(pair: Pair, least: int) -> tuple[int, int]:
    """Returns height and width of a pair in pixels, from the files' headers.

    Args:
        pair: the files.
        least: pixels that each edge must have.

    Raises:
        UserError: a file is damaged, is no single grey image, is too small, or the two differ in size.
    """
    shape, target = _decoded(pair.input, _header), _decoded(pair.target, _header)
    if shape != target:
        raise UserError(
            f"expected two micrographs of one size, got {shape} in {pair.input} and {target} in {pair.target}; "
            f"remedy: crop both to the same field"
        )
    if min(shape) < least:
        raise UserError(
            f"expected a micrograph of at least {least} x {least} pixels, got {shape} in {pair.input}; "
            f"remedy: a smaller image_size"
        )
    return shape


def read_micrograph(path: Path) -> npt.NDArray[np.float32]:
    """Reads one grey image from TIFF or MRC.

    Args:
        path: the file.

    Returns:
        ``(H, W)`` float32 in the file's unit, rows in the file's order.

    Raises:
        UserError: the file is damaged or is no single grey image of real numbers.
        NonFinite: it has NaN or infinity.
    """
    data = np.squeeze(_decoded(path, mrcfile.read if path.suffix.lower() == ".mrc" else tifffile.imread))
    if data.ndim != 2 or data.dtype.kind not in "uif":
        raise _no_image(path, f"{data.dtype} of shape {data.shape}")
    result: npt.NDArray[np.float32] = data.astype(np.float32)
    if not np.isfinite(result).all():
        raise NonFinite(
            f"expected finite pixels, got NaN or infinity in {path}; remedy: replace dead pixels beforehand"
        )
    return result


def _header(path: Path) -> tuple[int, int]:
    """Returns height and width without reading the pixels."""
    if path.suffix.lower() == ".mrc":
        with mrcfile.open(path, header_only=True) as file:
            shape = [int(file.header[axis]) for axis in ("nz", "ny", "nx")]
    else:
        with tifffile.TiffFile(path) as file:
            shape = [int(length) for length in file.series[0].shape]
    edges = [length for length in shape if length != 1]
    if len(edges) != 2:
        raise _no_image(path, f"shape {tuple(shape)}")
    return edges[0], edges[1]


def _decoded(path: Path, read: Callable[[Path], T]) -> T:
    """Calls a decoder and says which file it failed on."""
    try:
        return read(path)
    except UserError:
        raise
    except Exception as error:  # decoders raise whatever they like on a damaged file
        raise UserError(
            f"expected a readable micrograph, got {path}: {error}; remedy: copy it again, or remove the pair"
        ) from error


def _no_image(path: Path, got: str) -> UserError:
    return UserError(
        f"expected one grey image of real numbers, got {got} in {path}; remedy: sum a stack's frames, split a volume"
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    """Returns a folder's micrographs by stem; other files may lie beside them."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"expected one file per name, got {found[path.stem]} and {path}; remedy: remove one")
        found[path.stem] = path
    return found
