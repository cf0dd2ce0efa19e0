"""Atomic models of one nanoparticle on amorphous carbon, numbered: structure 7 is the same everywhere and always.

The beam travels along +z, meets the particle first and leaves through the carbon:

    z = 0 ........ top of the particle's cell
    z = particle_depth ... the sphere's lowest point touches the carbon's surface
    z = particle_depth + CARBON_DEPTH ... exit plane
"""

import hashlib
import json
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Material = Literal["Au", "CdSe"]

SLICE = 2.0  # Å, thickness of one multislice slice
CARBON_DEPTH = 30.0  # Å, a thin support film; a multiple of SLICE
CARBON_DENSITY = 0.11  # atoms / Å³ (2.2 g / cm³)
CARBON_DISTANCE = 1.4  # Å, least distance of two carbon atoms
DIAMETER = (30.0, 50.0)  # Å, least and largest diameter in a field of at least FULL_FIELD
FULL_FIELD = (
    51.2  # Å, 128 px at 0.4 Å; in a smaller field the diameters shrink in proportion, so that the particle fits
)

# Primitive vectors in Å and basis (atomic number, fractional coordinates): Wyckoff, Crystal Structures 1 (1963).
_CRYSTALS: dict[str, tuple[list[list[float]], list[tuple[int, tuple[float, float, float]]]]] = {
    "Au": (
        [[0.0, 2.0391, 2.0391], [2.0391, 0.0, 2.0391], [2.0391, 2.0391, 0.0]],
        [(79, (0.0, 0.0, 0.0))],
    ),
    "CdSe": (
        [[4.299, 0.0, 0.0], [-2.1495, 4.299 * 0.75**0.5, 0.0], [0.0, 0.0, 7.010]],
        [
            (48, (1 / 3, 2 / 3, 0.0)),
            (48, (2 / 3, 1 / 3, 0.5)),
            (34, (1 / 3, 2 / 3, 0.375)),
            (34, (2 / 3, 1 / 3, 0.875)),
        ],
    ),
}


class Atoms(NamedTuple):
    """Atoms of one part of a structure.

    Attributes:
        number: ``(N,)`` int64, atomic numbers.
        position: ``(N, 3)`` float64, x, y, z in Å.
    """

    number: npt.NDArray[np.int64]
    position: Floats


class Structure(NamedTuple):
    """One particle on its support, periodic in x and y.

    Attributes:
        field: edge of the square field of view in Å.
        particle: the particle's atoms, ``0 <= z <= particle_depth``.
        particle_depth: Å, a multiple of `SLICE`.
        carbon: the support's atoms, ``particle_depth <= z <= particle_depth + CARBON_DEPTH``.
    """

    field: float
    particle: Atoms
    particle_depth: float
    carbon: Atoms


def generator(*key: int | float | str) -> np.random.Generator:
    """Returns a random generator that depends on nothing but the key."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def structure(number: int, material: Material, field: float) -> Structure:
    """Builds one structure.

    Args:
        number: which structure, 0 or more.
        material: fcc gold or wurtzite cadmium selenide.
        field: edge of the square field of view in Å.

    Returns:
        A particle with random orientation, diameter and place, that lies wholly inside the field, on random carbon.
    """
    random = generator("particle", number, material, field)
    diameter = float(random.uniform(*DIAMETER)) * min(1.0, field / FULL_FIELD)
    ball = _ball(material, diameter, random)
    depth = SLICE * float(np.ceil(diameter / SLICE))
    centre = np.append(random.uniform(diameter / 2, field - diameter / 2, 2), depth - diameter / 2)
    carbon = _amorphous(field, generator("carbon", number, material, field))
    carbon[:, 2] += depth
    return Structure(
        field=field,
        particle=Atoms(ball.number, ball.position + centre),
        particle_depth=depth,
        carbon=Atoms(np.full(len(carbon), 6, dtype=np.int64), carbon),
    )


def _ball(material: Material, diameter: float, random: np.random.Generator) -> Atoms:
    """Returns a sphere around the origin, cut from a crystal of random orientation and random origin."""
    vectors, basis = _CRYSTALS[material]
    lattice = np.array(vectors)
    fraction = np.array([place for _, place in basis]) + random.uniform(0, 1, 3)
    # A ball of this radius around the origin lies within these many cells: rows of the inverse bound the fractions.
    reach = int(np.ceil(diameter / 2 * np.linalg.norm(np.linalg.inv(lattice), axis=0).max())) + 2
    steps = np.arange(-reach, reach + 1)
    cells = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    position = ((cells + fraction) @ lattice).reshape(-1, 3)
    number = np.tile(np.array([z for z, _ in basis], dtype=np.int64), len(cells))
    inside = (position**2).sum(axis=1) <= (diameter / 2) ** 2
    return Atoms(number[inside], position[inside] @ _rotation(random).T)


def _rotation(random: np.random.Generator) -> Floats:
    """Returns a uniformly distributed rotation matrix, from a random unit quaternion (Shoemake 1992)."""
    quaternion = random.normal(size=4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _amorphous(field: float, random: np.random.Generator) -> Floats:
    """Inserts carbon at random where there is room, periodic in x and y.

    Returns:
        ``(N, 3)`` positions in Å, ``0 <= z <= CARBON_DEPTH``.
    """
    wanted = round(CARBON_DENSITY * field**2 * CARBON_DEPTH)
    box = np.array([field, field, CARBON_DEPTH])
    # A cell's diagonal is no longer than the least distance, so a cell holds one atom at most.
    shape = np.ceil(box * 3**0.5 / CARBON_DISTANCE).astype(np.int64)
    offsets = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    # Two layers of empty cells lie above and below the film.
    occupied = np.zeros((shape[0], shape[1], shape[2] + 4), dtype=bool)
    atom = np.zeros((*occupied.shape, 3))
    placed: list[Floats] = []
    count = 0
    while count < wanted:
        trial = random.uniform(0, 1, (400, 3)) * box
        cell = np.minimum((trial / box * shape).astype(np.int64), shape - 1)
        near = cell[:, None, :] + offsets
        x, y, z = near[..., 0] % shape[0], near[..., 1] % shape[1], near[..., 2] + 2
        who, which = np.nonzero(occupied[x, y, z])
        neighbour = atom[x[who, which], y[who, which], z[who, which]]
        crowded = who[_distance2(trial[who], neighbour, field) < CARBON_DISTANCE**2]
        trial, cell = np.delete(trial, crowded, axis=0), np.delete(cell, crowded, axis=0)
        # Among the new ones, whoever came first stays.
        close = _distance2(trial[:, None, :], trial[None, :, :], field) < CARBON_DISTANCE**2
        first = ~np.tril(close, -1).any(axis=1)
        trial, cell = trial[first][: wanted - count], cell[first][: wanted - count]
        occupied[cell[:, 0], cell[:, 1], cell[:, 2] + 2] = True
        atom[cell[:, 0], cell[:, 1], cell[:, 2] + 2] = trial
        placed.append(trial)
        count += len(trial)
    return np.concatenate(placed)


def _distance2(a: Floats, b: Floats, field: float) -> Floats:
    """Returns squared distances in Å² along the last axis, to the nearest periodic image in x and y."""
    difference = a - b
    flat = difference[..., :2]
    difference[..., :2] = flat - field * np.round(flat / field)
    result: Floats = (difference**2).sum(axis=-1)
    return result
