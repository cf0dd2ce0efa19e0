"""From an exit wave to what the camera counts, and to what a network is asked to restore.

Defocus Δf > 0 is underfocus: the image is that of a plane *upstream*, and atoms are dark on a brighter background
(abTEM's C10 is −Δf). A structure's zero defocus is the plane at which the particle, in vacuum, has least contrast.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tlkit.data.hrtem_multislice import FINE, PIXEL, frequencies, wavelength

SPHERICAL = 1e4  # Å, C_s = 1 µm: an aberration-corrected instrument
FOCAL_SPREAD = 10.0  # Å, 1/e width Δ of the focal-spread envelope
APERTURE = 0.030  # rad
TARGET_APERTURE = 0.020  # rad, the phase target's resolution: 1 Å at 300 kV
MASK_THRESHOLD = torch.pi / 16  # rad, a pixel whose phase exceeds this belongs to the particle
SEARCH = 25.0  # Å, least contrast is searched this far above and below the particle's middle plane


@lru_cache(maxsize=8)
def _angles2(size: int, field: float) -> Tensor:
    """Returns ``(size, size)`` float64, squared scattering angles α² in rad²."""
    g = frequencies(size, field)
    return (g[:, None] ** 2 + g[None, :] ** 2) * wavelength() ** 2


def aberration(alpha2: Tensor, defocus: float) -> Tensor:
    """Returns the aberration function χ in rad.

    Args:
        alpha2: squared scattering angles in rad².
        defocus: Å, positive is underfocus.
    """
    return 2 * torch.pi / wavelength() * (-0.5 * alpha2 * defocus + 0.25 * SPHERICAL * alpha2**2)


def transfer(size: int, field: float, defocus: float) -> Tensor:
    """Returns the objective lens' transfer function, ``(size, size)`` complex64.

    Args:
        size: pixels along an edge of the grid.
        field: the grid's edge in Å.
        defocus: Å from the exit plane, positive is underfocus.
    """
    alpha2 = _angles2(size, field)
    envelope = torch.exp(-((0.5 * torch.pi / wavelength() * FOCAL_SPREAD * alpha2) ** 2))
    return torch.polar(envelope * (alpha2 < APERTURE**2), -aberration(alpha2, defocus)).to(torch.complex64)


def binned(fine: Tensor) -> Tensor:
    """Averages ``(N, N)`` over blocks to ``(N / FINE, N / FINE)``."""
    size = fine.shape[-1] // FINE
    return fine.reshape(size, FINE, size, FINE).mean(dim=(1, 3))


def image(spectrum: Tensor, defocus: float) -> Tensor:
    """Images a wave, without noise.

    Args:
        spectrum: ``(N, N)`` complex64, Fourier transform of the exit wave.
        defocus: Å from the exit plane, positive is underfocus.

    Returns:
        ``(N / FINE, N / FINE)`` float32, intensity as a fraction of the incident beam's, pixel by pixel.
    """
    size = spectrum.shape[-1]
    wave = torch.fft.ifft2(spectrum * transfer(size, size * PIXEL / FINE, defocus))
    return binned(wave.real**2 + wave.imag**2)


def least_contrast(spectrum: Tensor, middle: float) -> float:
    """Finds the defocus of least contrast, in steps of 1 Å, then of 0.25 Å.

    Args:
        spectrum: ``(N, N)`` complex64, Fourier transform of the exit wave of a particle in vacuum.
        middle: Å from the exit plane back to the particle's middle, where the search is centred.

    Returns:
        Defocus in Å from the exit plane.
    """

    def best(candidates: npt.NDArray[np.float64]) -> float:
        contrast = [float(image(spectrum, float(defocus)).std()) for defocus in candidates]
        return float(candidates[int(np.argmin(contrast))])

    coarse = best(np.round(middle) + np.arange(-SEARCH, SEARCH + 1, 1.0))
    return best(coarse + np.arange(-0.75, 1.0, 0.25))


def phase(spectrum: Tensor, defocus: float) -> Tensor:
    """Returns a wave's phase at a plane, free of aberrations, at the targets' resolution.

    Args:
        spectrum: ``(N, N)`` complex64, Fourier transform of the exit wave.
        defocus: Å from the exit plane back to that plane.

    Returns:
        ``(N / FINE, N / FINE)`` float32 in rad, in (-π, π].
    """
    size = spectrum.shape[-1]
    alpha2 = _angles2(size, size * PIXEL / FINE)
    refocus = torch.polar((alpha2 < TARGET_APERTURE**2).double(), torch.pi / wavelength() * alpha2 * defocus)
    wave = torch.fft.ifft2(spectrum * refocus.to(torch.complex64))
    # Averaged before the angle is taken: angles do not average across ±π.
    return torch.complex(binned(wave.real), binned(wave.imag)).angle()


def counts(intensity: Tensor, dose: float, random: np.random.Generator) -> npt.NDArray[np.uint16]:
    """Draws what a perfect counting camera records.

    Args:
        intensity: ``(N, N)`` float32, fraction of the incident beam.
        dose: electrons per Å².
        random: source of the shot noise.

    Returns:
        ``(N, N)`` uint16, electrons per pixel.
    """
    expected = intensity.double().numpy() * dose * PIXEL**2
    return random.poisson(expected).astype(np.uint16)


def standardised(images: Tensor) -> Tensor:
    """Returns images ``(B, C, H, W)`` as float32 with mean 0 and standard deviation 1 each; constant ones are zero."""
    x = images.float()
    deviation, mean = torch.std_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
    constant = deviation <= 1e-6 * mean.abs()  # what float32 leaves of a constant's deviation
    return (x - mean) / deviation.masked_fill(constant, torch.inf)
