"""Cross-check against abTEM (GPL-3, therefore never a dependency), where a user has installed it."""

import numpy as np
import pytest
import torch

from tlkit.data import hrtem_imaging as imaging
from tlkit.data import hrtem_multislice as multislice
from tlkit.data.hrtem_structures import CARBON_DEPTH, structure

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.mark.parametrize("material", ["Au", "CdSe"])
def test_exit_wave_and_images_agree_with_abtem(material, monkeypatch):
    abtem, ase = pytest.importorskip("abtem"), pytest.importorskip("ase")
    abtem.config.set({"local_diagnostics.progress_bar": False})
    # abTEM moves atoms (frozen phonons) where we use a Debye-Waller factor: compare atoms at rest.
    monkeypatch.setattr(multislice, "DEBYE_WALLER", dict.fromkeys(multislice.LOBATO, 0.0))
    multislice._form.cache_clear()
    model = structure(0, material, 51.2)
    vacuum, both = multislice.exit_waves(model, 128)
    multislice._form.cache_clear()

    number = np.concatenate([model.particle.number, model.carbon.number])
    position = np.concatenate([model.particle.position, model.carbon.position])
    bare, full = (
        abtem.PlaneWave(energy=300e3)
        .multislice(
            abtem.Potential(
                ase.Atoms(numbers=number[:count], positions=position[:count], cell=[51.2, 51.2, depth], pbc=True),
                gpts=256,
                slice_thickness=2,
                parametrization="lobato",
                projection="infinite",
            )
        )
        .compute()
        for count, depth in (
            (len(model.particle.number), model.particle_depth),
            (len(number), model.particle_depth + CARBON_DEPTH),
        )
    )
    assert correlation(vacuum.numpy(), bare.array) > 0.99
    assert correlation(both.numpy(), full.array) > 0.99
    for defocus in (-200.0, -100.0, 0.0, 100.0, 200.0):
        lens = abtem.CTF(energy=300e3, C10=-defocus - 60, Cs=1e4, focal_spread=10, semiangle_cutoff=30, soft=False)
        theirs = np.asarray(full.apply_ctf(lens).intensity().compute().array)
        ours = imaging.image(torch.fft.fft2(both), defocus + 60).numpy()
        assert correlation(ours, theirs.reshape(128, 2, 128, 2).mean(axis=(1, 3))) > 0.99


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the absolute Pearson correlation, of complex or real arrays."""
    a, b = a - a.mean(), b - b.mean()
    return float(abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b)))
