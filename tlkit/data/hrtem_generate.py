"""Simulates numbered structures and keeps them in blocks: an image depends on its own numbers, never on its neighbours.

A block is one cache entry: 16 structures of one role at all domains. More training structures, the other stage, or
another domain to train on read the same blocks, and only those that are missing are simulated.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm
from typing_extensions import override

from tlkit.data.hrtem_imaging import MASK_THRESHOLD, counts, image, least_contrast, phase
from tlkit.data.hrtem_multislice import PIXEL, exit_waves
from tlkit.data.hrtem_structures import CARBON_DEPTH, Material, generator, structure
from tlkit.data.packed import Store, build

GENERATOR_VERSION = 1  # raised when the same arguments give other images
BLOCK = 16  # structures

Role = Literal["test", "val", "pretrain", "transfer"]
Target = Literal["phase", "clean", "mask"]

# Each role owns every fourth structure, so however many are asked for, none is shared and the first ones stay.
_ROLES: tuple[Role, ...] = ("test", "val", "pretrain", "transfer")


@dataclass(frozen=True)
class Recipe:
    """What determines the images of a structure, besides its number.

    Attributes:
        material: of the particle.
        image_size: S, pixels of `PIXEL` Å along an edge.
        dose: electrons per Å².
        defocus_sd: nm, standard deviation of the true defocus around its nominal value.
        target: what is to be restored.
        defoci: D nominal values in nm, positive is underfocus, ascending.
    """

    material: Material
    image_size: int
    dose: float
    defocus_sd: float
    target: Target
    defoci: tuple[float, ...]


@dataclass(frozen=True)
class StructureStore(Store):
    """Structures in several blocks, seen as one store.

    Row ``position · D + domain`` is the structure at that position at the D defoci's ``domain``-th.

    Attributes:
        blocks: cache entry of each position.
        slots: place of each position in its block.
        domains: D.
    """

    blocks: tuple[Store, ...]
    slots: tuple[int, ...]
    domains: int

    @override
    def take(self, name: str, rows: npt.NDArray[np.int64]) -> Tensor:
        """Reads ``(B,)`` rows of ``input`` or ``target``; uint16 as int32, which torch computes with."""
        images = []
        for position, domain in zip(*np.divmod(rows, self.domains), strict=True):
            array = self.blocks[position].arrays[name]  # (BLOCK, D, …), or (BLOCK, 1, …) where all domains share it
            images.append(array[self.slots[position], domain % array.shape[1]])
        taken = np.stack(images)
        return torch.from_numpy(taken.astype(np.int32) if taken.dtype == np.uint16 else taken)


def numbers(role: Role, count: int) -> list[int]:
    """Returns the numbers of a role's first structures; no two roles share one."""
    return [len(_ROLES) * index + _ROLES.index(role) for index in range(count)]


def open_structures(cache_dir: str, recipe: Recipe, counts_of: dict[Role, int]) -> StructureStore:
    """Opens the first structures of several roles, one role after another, and simulates what is missing.

    Args:
        cache_dir: where blocks are kept.
        recipe: of the images.
        counts_of: role -> how many structures.
    """
    blocks, slots = [], []
    for role, count in counts_of.items():
        of_role = [_block(cache_dir, recipe, role, first) for first in range(0, count, BLOCK)]
        blocks += [of_role[index // BLOCK] for index in range(count)]
        slots += [index % BLOCK for index in range(count)]
    arrays = {f"{block.folder.name}/{name}": array for block in blocks for name, array in block.arrays.items()}
    rows = len(blocks) * len(recipe.defoci)
    return StructureStore(Path(cache_dir).expanduser(), arrays, rows, tuple(blocks), tuple(slots), len(recipe.defoci))


def simulate(recipe: Recipe, number: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.generic]]:
    """Simulates one structure at all defoci; bit for bit the same anywhere inside `one_torch_thread`.

    Args:
        recipe: of the images.
        number: the structure.

    Returns:
        Counts ``(D, S, S)`` uint16 in electrons per pixel. Targets: phase in rad ``(1, S, S)`` float32, mask
        ``(1, S, S)`` uint8, 1 in the particle, or noise-free intensity as a fraction of the incident beam's
        ``(D, S, S)`` float32.
    """
    model = structure(number, recipe.material, recipe.image_size * PIXEL)
    vacuum, both = (torch.fft.fft2(wave) for wave in exit_waves(model, recipe.image_size))
    zero = least_contrast(vacuum, model.particle_depth / 2)
    clean = [image(both, 10 * true + zero + CARBON_DEPTH) for true in _true_defoci(recipe, number)]
    restored = phase(vacuum, zero)
    recorded = []
    for nominal, intensity in zip(recipe.defoci, clean, strict=True):
        noise = generator("counts", number, recipe.material, recipe.image_size, nominal, recipe.dose)
        recorded.append(counts(intensity, recipe.dose, noise))
    targets = {
        "phase": restored[None].numpy(),
        "clean": torch.stack(clean).numpy(),
        "mask": (restored[None] > MASK_THRESHOLD).numpy().astype(np.uint8),
    }
    return np.stack(recorded), targets[recipe.target]


def _true_defoci(recipe: Recipe, number: int) -> list[float]:
    """Returns the defoci in nm at which the microscope stood when it was set to the nominal ones."""
    jitter = (generator("defocus", number, nominal).normal() for nominal in recipe.defoci)
    return [n + recipe.defocus_sd * float(j) for n, j in zip(recipe.defoci, jitter, strict=True)]


def _block(cache_dir: str, recipe: Recipe, role: Role, first: int) -> Store:
    """Opens a role's block that begins with its ``first``-th structure."""
    known = json.dumps([GENERATOR_VERSION, BLOCK, astuple(recipe), role, first])
    size, domains = recipe.image_size, len(recipe.defoci)
    dtype = np.uint8 if recipe.target == "mask" else np.float32
    kept = domains if recipe.target == "clean" else 1
    channel = () if recipe.target == "mask" else (1,)
    members = numbers(role, first + BLOCK)[first:]

    # Threads: nearly all time passes in FFTs and array arithmetic, which release the interpreter's lock; forked
    # processes may hang in MKL's FFT once their parent has used it in several threads.
    workers = torch.get_num_threads()

    def fill(arrays: dict[str, np.memmap]) -> None:
        def work(slot: int) -> None:
            recorded, targets = simulate(recipe, members[slot])
            arrays["input"][slot, :, 0] = recorded
            arrays["target"][slot] = targets.reshape(kept, *channel, size, size)

        with one_torch_thread(), ThreadPoolExecutor(workers) as pool:
            bar = f"simulating HRTEM {role} structures {first}-{first + BLOCK - 1}"
            for _ in tqdm(pool.map(work, range(BLOCK)), total=BLOCK, desc=bar, leave=False, disable=None):
                pass

    spec = {
        "input": (np.uint16, (BLOCK, domains, 1, size, size)),
        "target": (dtype, (BLOCK, kept, *channel, size, size)),
    }
    return build(cache_dir, sha256(known.encode()).hexdigest(), spec, fill, name=f"hrtem-{role}")


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Confines every operation to one thread: its result could otherwise depend on how many share in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
