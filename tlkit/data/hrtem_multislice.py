"""Scattering of fast electrons by atoms: the multislice method (Kirkland, Advanced Computing in Electron Microscopy).

Wave functions follow ``exp(+2πi k·r)``: free flight over ``dz`` multiplies a wave's Fourier transform by
``exp(-πi λ dz g²)``, and a slice of matter multiplies the wave by ``exp(+iφ)``, φ > 0 for attraction.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tlkit.data.hrtem_structures import CARBON_DEPTH, SLICE, Atoms, Structure

ENERGY = 300e3  # eV
PIXEL = 0.4  # Å, an image's pixel
FINE = 2  # the waves' grid is this much finer, so that |ψ|² does not alias
BAND_LIMIT = 2 / 3  # of the Nyquist frequency: products of two waves do not wrap around (Kirkland, section 6.8)
REST_ENERGY = 510998.95  # eV, of the electron (CODATA 2018)

# a and b of f(g) = Σ aᵢ (2 + bᵢ g²) / (1 + bᵢ g²)², f in Å, g in 1/Å: Lobato & Van Dyck, Acta Cryst. A70 (2014) 636.
LOBATO: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    6: (
        (124.466088621343, -220.352857078963, 195.235352280479, -98.1079361269799, 0.0142023041213623),
        (2.42120849256005, 2.30537943752425, 2.04851932106564, 1.93352552917547, 0.0768976818478339),
    ),
    34: (
        (3.64905047801926, -43.6851662221238, 43.6920288601154, 0.00844902284199144, 3.7861147411e-05),
        (3.25043267112593, 0.609666201650289, 0.596971300802123, 0.0148554512740362, 0.00133625587356563),
    ),
    48: (
        (61.530785199286, -78.6016741201582, 21.550129260277, 0.137685015664191, 0.00032464493094652),
        (3.11468102533247, 2.76016983388574, 1.93551312324722, 0.0722468347260293, 0.00117001629624684),
    ),
    79: (
        (1.6759346706487, 3.00486602969729, 0.595340013161635, 0.0117163186623094, 4.296782976398e-05),
        (5.52231093211402, 1.38007223007196, 0.162229237655945, 0.00901814890416575, 0.00037927766747767),
    ),
}

# B of exp(-B g² / 4) in Å², B = 8π²⟨u²⟩: rounded values for room temperature, in place of frozen phonons.
DEBYE_WALLER: dict[int, float] = {6: 0.6, 34: 1.5, 48: 1.5, 79: 0.6}


def wavelength(energy: float = ENERGY) -> float:
    """Returns the relativistic de Broglie wavelength in Å of an electron of an energy in eV."""
    return float(12.2643 / np.sqrt(energy * (1 + 0.978476e-6 * energy)))


def scattering_factor(number: int, g2: Tensor) -> Tensor:
    """Returns an atom's electron scattering factor in Å (without relativistic correction).

    Args:
        number: atomic number, one of `LOBATO`.
        g2: squared spatial frequencies in 1/Å², any shape.
    """
    total = torch.zeros_like(g2)
    for a, b in zip(*LOBATO[number], strict=True):
        total += a * (2 + b * g2) / (1 + b * g2) ** 2
    return total


def frequencies(size: int, field: float) -> Tensor:
    """Returns ``(size,)`` float64 spatial frequencies in 1/Å, in the order of an FFT."""
    result: Tensor = torch.fft.fftfreq(size, field / size, dtype=torch.float64)
    return result


@lru_cache(maxsize=8)
def _propagator(size: int, field: float) -> Tensor:
    """Returns ``(size, size)`` complex64: free flight through one slice, cut off at the band limit."""
    g = frequencies(size, field)
    g2 = g[:, None] ** 2 + g[None, :] ** 2
    phase = -torch.pi * wavelength() * SLICE * g2
    return torch.polar(_inside_band(size, field), phase).to(torch.complex64)


def _inside_band(size: int, field: float) -> Tensor:
    """Returns ``(size, size)`` float64: one where a frequency lies inside the band limit, else zero."""
    g = frequencies(size, field)
    return (g[:, None] ** 2 + g[None, :] ** 2 < (BAND_LIMIT * 0.5 * size / field) ** 2).double()


@lru_cache(maxsize=16)
def _form(number: int, size: int, field: float) -> Tensor:
    """Returns ``(size, size // 2 + 1)`` float32: Fourier transform of one atom's phase shift, on the grid.

    The phase shift of a thin object is γλ times the Fourier transform of its scattering factor. Depositing an atom
    bilinearly on the grid multiplies by sinc² along each axis, which is divided out.
    """
    step = field / size
    g = frequencies(size, field)
    gx, gy = g[:, None], torch.fft.rfftfreq(size, step, dtype=torch.float64)[None, :]
    g2 = gx**2 + gy**2
    lorentz = 1 + ENERGY / REST_ENERGY
    form = lorentz * wavelength() / step**2 * scattering_factor(number, g2) * torch.exp(-DEBYE_WALLER[number] * g2 / 4)
    form = form / (torch.sinc(gx * step) * torch.sinc(gy * step)) ** 2
    return (form * _inside_band(size, field)[:, : size // 2 + 1]).float()


def phase_shift(atoms: Atoms, size: int, field: float) -> Tensor:
    """Returns the phase that a thin slice of matter adds to the wave.

    Args:
        atoms: the slice's atoms; z is ignored; x and y are periodic in the field.
        size: pixels along an edge of the grid.
        field: the grid's edge in Å.

    Returns:
        ``(size, size)`` float32 in rad, x along the first axis.
    """
    total = torch.zeros(size, size // 2 + 1, dtype=torch.complex64)
    for number in np.unique(atoms.number):
        place = atoms.position[atoms.number == number, :2] / (field / size)
        low = np.floor(place).astype(np.int64)
        part = place - low
        grid = np.zeros(size * size)
        for dx, dy in ((0, 0), (0, 1), (1, 0), (1, 1)):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            cell = (low[:, 0] + dx) % size * size + (low[:, 1] + dy) % size
            grid += np.bincount(cell, weight, minlength=size * size)
        deposited = torch.from_numpy(grid.reshape(size, size)).float()
        total += torch.fft.rfft2(deposited) * _form(int(number), size, field)
    result: Tensor = torch.fft.irfft2(total, s=(size, size))
    return result


def through(wave: Tensor, atoms: Atoms, start: float, depth: float, field: float) -> Tensor:
    """Sends a wave through atoms, slice by slice.

    Args:
        wave: ``(N, N)`` complex64, the wave that enters at z = `start`.
        atoms: atoms with ``start <= z <= start + depth``.
        start: Å.
        depth: Å, a multiple of `SLICE`.
        field: the grid's edge in Å.

    Returns:
        ``(N, N)`` complex64, the wave that leaves at z = `start + depth`, inside the band limit.
    """
    size = wave.shape[-1]
    slices = round(depth / SLICE)
    member = np.clip((atoms.position[:, 2] - start) // SLICE, 0, slices - 1)
    propagator = _propagator(size, field)
    inside = (propagator != 0).to(torch.complex64)
    for index in range(slices):
        here = member == index
        phase = phase_shift(Atoms(atoms.number[here], atoms.position[here]), size, field)
        transmission = torch.fft.ifft2(torch.fft.fft2(torch.polar(torch.ones_like(phase), phase)) * inside)
        wave = torch.fft.ifft2(torch.fft.fft2(wave * transmission) * propagator)
    return wave


def exit_waves(structure: Structure, image_size: int) -> tuple[Tensor, Tensor]:
    """Computes the waves behind a structure for a plane wave of amplitude one.

    Args:
        structure: what the beam goes through.
        image_size: pixels along an edge of the image; the waves' grid is `FINE` times finer.

    Returns:
        Two waves ``(N, N)`` complex64, N = `FINE` · `image_size`: behind the particle in vacuum, at
        z = ``particle_depth``, and behind the particle and its support, at z = ``particle_depth + CARBON_DEPTH``.
    """
    plane = torch.ones(FINE * image_size, FINE * image_size, dtype=torch.complex64)
    vacuum = through(plane, structure.particle, 0.0, structure.particle_depth, structure.field)
    both = through(vacuum, structure.carbon, structure.particle_depth, CARBON_DEPTH, structure.field)
    return vacuum, both
