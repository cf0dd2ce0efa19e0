"""Simulates numbered structures in parallel: an image depends on its own numbers only, never on the order of work."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from tlkit.data.hrtem_imaging import MASK_THRESHOLD, counts, image, least_contrast, phase
from tlkit.data.hrtem_multislice import PIXEL, exit_waves
from tlkit.data.hrtem_structures import CARBON_DEPTH, Material, generator, structure

GENERATOR_VERSION = 1  # raised when the same arguments give other images

Target = Literal["phase", "clean", "mask"]


@dataclass(frozen=True)
class Recipe:
    """What determines the images of a structure, besides its number and the defocus.

    Attributes:
        material: of the particle.
        image_size: pixels of `PIXEL` Å along an edge.
        dose: electrons per Å².
        defocus_sd: nm, standard deviation of the true defocus around its nominal value.
        target: what is to be restored.
    """

    material: Material
    image_size: int
    dose: float
    defocus_sd: float
    target: Target

    @property
    def target_dtype(self) -> type[np.generic]:
        """How targets are stored: float32, masks as uint8."""
        return np.uint8 if self.target == "mask" else np.float32


def simulate(
    recipe: Recipe, number: int, defoci: Sequence[float]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.generic]]:
    """Simulates one structure at several defoci.

    Args:
        recipe: what else determines the images.
        number: the structure.
        defoci: D nominal values in nm, positive is underfocus.

    Returns:
        Counts ``(D, S, S)`` uint16 in electrons per pixel, and targets ``(D, S, S)``: phase in rad or intensity as a
        fraction of the incident beam (float32), or mask (uint8, 1 in the particle). Phase and mask are the same for
        all defoci.
    """
    model = structure(number, recipe.material, recipe.image_size * PIXEL)
    vacuum, both = (torch.fft.fft2(wave) for wave in exit_waves(model, recipe.image_size))
    zero = least_contrast(vacuum, model.particle_depth / 2)
    restored = phase(vacuum, zero)
    recorded, targets = [], []
    for nominal in (float(defocus) for defocus in defoci):
        true = nominal + recipe.defocus_sd * float(generator("defocus", number, nominal).normal())
        clean = image(both, 10 * true + zero + CARBON_DEPTH)
        noise = generator("counts", number, recipe.material, recipe.image_size, nominal, recipe.dose)
        recorded.append(counts(clean, recipe.dose, noise))
        wanted = {"phase": restored, "clean": clean, "mask": restored > MASK_THRESHOLD}[recipe.target]
        targets.append(wanted.numpy().astype(recipe.target_dtype))
    return np.stack(recorded), np.stack(targets)


def simulate_all(
    recipe: Recipe, numbers: Sequence[int], defoci: Sequence[float], workers: int | None = None
) -> Iterator[tuple[npt.NDArray[np.uint16], npt.NDArray[np.generic]]]:
    """Simulates structures in parallel threads.

    Args:
        recipe: what else determines the images.
        numbers: the structures.
        defoci: nominal values in nm.
        workers: threads; None: as many as torch uses. The result does not depend on it, not in a single bit.

    Yields:
        What `simulate` returns, in the order of `numbers`.
    """
    workers = workers or torch.get_num_threads()
    # Threads rather than processes: nearly all time passes in FFTs and array arithmetic, which release the
    # interpreter's lock, and a thread can be started from anywhere: a notebook, a daemonic worker, beside CUDA.
    with _one_torch_thread(), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda number: simulate(recipe, number, defoci), numbers)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Confines every operation to one thread: its result could otherwise depend on how many share in it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
