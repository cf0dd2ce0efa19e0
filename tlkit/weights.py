"""Read pretrained weights: a run directory, a checkpoint, or a plain state dict. Data, never code."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from tlkit.errors import UserError

NORMALISATION = ("input_mean", "input_std")
PREFIX = "network."


@dataclass(frozen=True)
class Weights:
    """Pretrained weights.

    Attributes:
        network: the network's state dict.
        normalisation: ``input_mean`` and ``input_std`` ``(C, 1, 1)`` of the images it was trained on; empty if unknown.
    """

    network: dict[str, Tensor]
    normalisation: dict[str, Tensor]


def checkpoint_file(path: Path) -> Path:
    """Returns the file that a path means: of a run directory, its best checkpoint.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    for candidate in (path / "checkpoints" / "best.ckpt", path / "checkpoints" / "last.ckpt"):
        if candidate.is_file():
            return candidate
    raise UserError(
        f"expected a run directory, a .ckpt or a state_dict file at {path}, got "
        + ("a directory without checkpoints/best.ckpt or last.ckpt" if path.is_dir() else "nothing")
    )


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint file, read as data.

    Raises:
        UserError: it is truncated, is no checkpoint, or holds code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"expected {path} to hold tensors and plain values, got something else in it (code, or not a checkpoint): "
            f"{str(error).splitlines()[0]}; save it anew as torch.save(network.state_dict(), path)"
        ) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"expected a readable checkpoint, got {path}, which is truncated or not a checkpoint "
            f"({str(error).splitlines()[0]}); copy or download it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"expected {path} to hold a state dict, got a {type(content).__name__}")
    return content


def load_weights(path: Path) -> Weights:
    """Returns the weights in a checkpoint of tlkit, in one of another LightningModule, or in a plain state dict.

    Raises:
        UserError: as `load_checkpoint`, or there are no tensors.
    """
    content = load_checkpoint(path)
    state = content.get("state_dict", content)
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"expected tensors in {path}, got the keys {', '.join(map(str, list(content)[:8]))}")
    network = {key.removeprefix(PREFIX): value for key, value in tensors.items() if key.startswith(PREFIX)}
    normalisation = {key: tensors[key] for key in NORMALISATION if key in tensors}
    return Weights(network or tensors, normalisation)
