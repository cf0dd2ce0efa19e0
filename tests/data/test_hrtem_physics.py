"""Structures, multislice and imaging against numbers that were derived elsewhere."""

import numpy as np
import pytest
import torch

from tlkit.data import hrtem_imaging as imaging
from tlkit.data import hrtem_multislice as multislice
from tlkit.data.hrtem_structures import CARBON_DEPTH, Atoms, generator, structure

FIELD = 25.6  # Å: 64 px of 0.4 Å, or 128 of 0.2 Å


@pytest.fixture(scope="module")
def waves():
    """Spectra behind a small particle in vacuum and on carbon, its zero defocus, its phase."""
    model = structure(0, "CdSe", FIELD)
    vacuum, both = (torch.fft.fft2(wave) for wave in multislice.exit_waves(model, 64))
    zero = imaging.least_contrast(vacuum, model.particle_depth / 2)
    return vacuum, both, zero, imaging.phase(vacuum, zero)


def test_wavelength_at_300_kv():
    assert multislice.wavelength(300e3) == pytest.approx(0.01969, abs=5e-6)
    assert multislice.wavelength(100e3) == pytest.approx(0.03701, abs=5e-6)


# abTEM 1.0.11, LobatoParametrization().scattering_factor(symbol)(k²) in Å at g = 0, 0.5, 1, 2, 4 1/Å.
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (6, (2.50969733, 1.16915345, 0.41279388, 0.11715793, 0.03359544)),
        (34, (7.3288, 3.43844777, 1.56895042, 0.59942701, 0.17614229)),
        (48, (9.23449253, 4.59360152, 2.2160481, 0.77875593, 0.24458188)),
        (79, (10.57580019, 6.04021084, 3.06549532, 1.20957584, 0.38568369)),
    ],
)
def test_scattering_factors_agree_with_abtem(number, expected):
    g = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    np.testing.assert_allclose(multislice.scattering_factor(number, g**2).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("number", [6, 34, 48, 79])
def test_scattering_at_high_angles_is_rutherfords(number):
    # Mott-Bethe: f -> Z / (2 π² a0 g²) where the electrons no longer screen the nucleus; a0 = 0.529177 Å.
    g = 40.0
    rutherford = number / (2 * np.pi**2 * 0.529177 * g**2)
    assert float(multislice.scattering_factor(number, torch.tensor(g**2))) == pytest.approx(rutherford, rel=0.05)


def test_vacuum_conserves_the_wave():
    nothing = Atoms(np.zeros(0, dtype=np.int64), np.zeros((0, 3)))
    wave = torch.fft.ifft2(torch.randn(128, 128, generator=torch.Generator().manual_seed(0)).to(torch.complex64))
    inside = multislice._inside_band(128, FIELD).to(torch.complex64)
    wave = torch.fft.ifft2(torch.fft.fft2(wave) * inside)
    left = multislice.through(wave, nothing, 0.0, 20.0, FIELD)
    assert float(left.abs().square().sum()) == pytest.approx(float(wave.abs().square().sum()), rel=1e-5)
    assert not torch.allclose(left, wave, atol=0.1 * float(wave.abs().max()))


def test_matter_hardly_absorbs(waves):
    vacuum, both, _, _ = waves
    for spectrum in (vacuum, both):
        intensity = float(torch.fft.ifft2(spectrum).abs().square().mean())
        assert 0.99 < intensity <= 1.0 + 1e-5


def test_one_atoms_phase_shift_integrates_to_its_forward_scattering():
    # ∫ φ d²r = γ λ f(0); a delta anywhere on the grid keeps its weight, also across the periodic border.
    atom = Atoms(np.array([79]), np.array([[25.55, 3.33, 0.0]]))
    total = float(multislice.phase_shift(atom, 128, FIELD).double().sum()) * (FIELD / 128) ** 2
    assert total == pytest.approx(1.58709 * 0.0196875 * 10.5758, rel=1e-4)


def test_phase_shift_follows_the_atom():
    here = multislice.phase_shift(Atoms(np.array([48]), np.array([[4.0, 6.0, 0.0]])), 128, FIELD)
    assert divmod(int(here.argmax()), 128) == (20, 30)
    between = multislice.phase_shift(Atoms(np.array([48]), np.array([[4.1, 6.0, 0.0]])), 128, FIELD)
    assert float(between[20, 30]) == pytest.approx(float(between[21, 30]), rel=1e-4)


def test_underfocus_makes_atoms_dark(waves):
    vacuum, _, zero, restored = waves
    inside = restored > 0.3
    outside = restored < 0.02

    def contrast(defocus: float) -> float:
        picture = imaging.image(vacuum, zero + defocus)
        return float(picture[inside].mean() - picture[outside].mean())

    assert contrast(50.0) < -0.05
    assert contrast(-50.0) > 0.05


def test_defocus_sign_is_that_of_a_weak_phase_object():
    # I = 1 + 2 φ sin χ(g) for ψ = 1 + iφ cos(2πgx): underfocus has χ < 0 at small angles.
    size, field, cycles = 128, FIELD, 4
    x = torch.arange(size) / size
    wave = torch.polar(torch.ones(size), 0.01 * torch.cos(2 * torch.pi * cycles * x))[:, None].repeat(1, size)
    picture = imaging.image(torch.fft.fft2(wave), 500.0)
    alpha = cycles / field * 0.0196875
    chi = 2 * np.pi / 0.0196875 * (-0.5 * alpha**2 * 500.0 + 0.25 * 1e4 * alpha**4)
    envelope = np.exp(-((0.5 * np.pi / 0.0196875 * 10.0 * alpha**2) ** 2))
    crest = 0.02 * np.sin(chi) * envelope  # at x = 0
    binned = float(np.mean([np.cos(2 * np.pi * cycles * k / size) for k in (0, 1)]))
    assert float(picture[0, 0]) - 1 == pytest.approx(crest * binned, abs=1e-4)
    assert abs(crest) > 0.01 and crest < 0


def test_zero_defocus_is_least_contrast(waves):
    vacuum, _, zero, _ = waves
    contrast = {d: float(imaging.image(vacuum, zero + d).std()) for d in (-10.0, -2.0, 0.0, 2.0, 10.0)}
    assert min(contrast, key=contrast.__getitem__) == 0.0
    assert contrast[10.0] > 1.5 * contrast[0.0] and contrast[-10.0] > 1.5 * contrast[0.0]


def test_phase_of_a_known_wave_is_found():
    wave = torch.polar(torch.ones(64, 64), torch.full((64, 64), 0.7))
    assert torch.allclose(imaging.phase(torch.fft.fft2(wave), 123.0), torch.full((32, 32), 0.7), atol=1e-5)


def test_counts_have_the_dose_as_their_mean():
    recorded = imaging.counts(torch.ones(200, 200), 400.0, generator("test"))
    assert recorded.dtype == np.uint16
    # 400 e/Å² · 0.16 Å² = 64 electrons; standard error of the mean 8 / 200, of the variance 64 √2 / 200
    assert recorded.mean() == pytest.approx(64.0, abs=4 * 8 / 200)
    assert recorded.var() == pytest.approx(64.0, abs=4 * 64 * 2**0.5 / 200)


@pytest.mark.parametrize(("material", "density"), [("Au", 4 / 4.0782**3), ("CdSe", 4 / 112.2)])
def test_particle_has_its_crystals_density_and_lies_inside(material, density):
    model = structure(5, material, 51.2)
    position = model.particle.position
    assert position[:, :2].min() >= 0 and position[:, :2].max() <= 51.2
    assert position[:, 2].min() >= 0 and position[:, 2].max() <= model.particle_depth
    diameter = np.ptp(position, axis=0).mean()
    assert 28 < diameter < 50
    assert len(position) == pytest.approx(density * np.pi / 6 * (diameter + 1.5) ** 3, rel=0.12)


def test_neighbours_in_the_crystal_are_at_their_distance():
    for material, nearest in (("Au", 4.0782 / 2**0.5), ("CdSe", 2.63)):
        position = structure(1, material, FIELD).particle.position
        distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
        np.fill_diagonal(distance, np.inf)
        assert distance.min() == pytest.approx(nearest, abs=0.01)


def test_carbon_keeps_its_distance_and_its_density_across_the_border():
    model = structure(2, "Au", 12.8)
    position = model.carbon.position
    assert len(position) == round(0.11 * 12.8**2 * CARBON_DEPTH)
    assert position[:, 2].min() >= model.particle_depth
    assert position[:, 2].max() <= model.particle_depth + CARBON_DEPTH
    images = [position + np.array([12.8 * i, 12.8 * j, 0.0]) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    distance = np.linalg.norm(position[:, None] - np.concatenate(images)[None], axis=-1)
    assert distance[distance > 0].min() >= 1.4


def test_structures_differ_in_place_size_and_orientation():
    first, again, second = (structure(n, "CdSe", FIELD) for n in (0, 0, 1))
    np.testing.assert_array_equal(first.particle.position, again.particle.position)
    np.testing.assert_array_equal(first.carbon.position, again.carbon.position)
    assert len(first.particle.position) != len(second.particle.position)
    assert not np.array_equal(first.carbon.position[:10], second.carbon.position[:10])
