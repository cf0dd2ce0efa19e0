"""Finds and reads pairs of micrographs: ``<root>/<domain>/input/a.tif`` and ``<root>/<domain>/target/a.tif``."""

from pathlib import Path
from typing import NamedTuple

import mrcfile
import numpy as np
import numpy.typing as npt
import tifffile

from tlkit.errors import NonFinite, UserError, suggest

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


def read_pair(pair: Pair, least: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Reads both micrographs.

    Args:
        pair: their files.
        least: pixels that each edge must have.

    Returns:
        Input and target, ``(H, W)`` float32 in the files' units, rows in the files' order.

    Raises:
        UserError: a file cannot be read, is no single grey image, is too small, or the two differ in size.
        NonFinite: a file has NaN or infinity.
    """
    image, target = read_micrograph(pair.input), read_micrograph(pair.target)
    if image.shape != target.shape:
        raise UserError(
            f"expected two micrographs of one size, got {image.shape} in {pair.input} and {target.shape} in "
            f"{pair.target}; remedy: crop both to the same field"
        )
    if min(image.shape) < least:
        raise UserError(
            f"expected a micrograph of at least {least} x {least} pixels, got {image.shape} in {pair.input}; "
            f"remedy: a smaller image_size"
        )
    return image, target


def read_micrograph(path: Path) -> npt.NDArray[np.float32]:
    """Reads one grey image from TIFF or MRC.

    Args:
        path: the file.

    Returns:
        ``(H, W)`` float32.

    Raises:
        UserError: the file cannot be read or is no single grey image.
        NonFinite: it has NaN or infinity.
    """
    try:
        data = mrcfile.read(path) if path.suffix.lower() == ".mrc" else tifffile.imread(path)
    except Exception as error:  # decoders raise whatever they like on a damaged file
        raise UserError(
            f"expected a readable micrograph, got {path}: {error}; remedy: copy it again, or remove the pair"
        ) from error
    squeezed = np.squeeze(data)
    if squeezed.ndim != 2 or squeezed.dtype.kind not in "uif":
        raise UserError(
            f"expected one grey image of real numbers, got {data.dtype} of shape {data.shape} in {path}; "
            f"remedy: sum a stack of frames, split a volume"
        )
    result: npt.NDArray[np.float32] = squeezed.astype(np.float32)
    if not np.isfinite(result).all():
        raise NonFinite(f"expected finite pixels, got NaN or infinity in {path}; remedy: mask dead pixels beforehand")
    return result


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
