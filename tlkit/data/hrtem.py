"""High-resolution transmission electron micrographs, simulated: restore a nanoparticle from what the camera counted."""

from collections.abc import Sequence
from dataclasses import astuple
from hashlib import sha256
from json import dumps
from typing import Any, Literal, get_args

import numpy as np
from typing_extensions import override

from tlkit.data.batch import Batch
from tlkit.data.hrtem_generate import GENERATOR_VERSION, Recipe, Role, Target, numbers, open_structures
from tlkit.data.hrtem_imaging import APERTURE, standardised
from tlkit.data.hrtem_multislice import PIXEL
from tlkit.data.hrtem_structures import Material
from tlkit.data.packed import Store
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.errors import UserError, suggest

DOMAINS = (-20.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)  # nm
# Largest minus smallest value over all pixels of 100 structures at DOMAINS, rounded up; 128 px.
DATA_RANGE: dict[str, dict[str, float]] = {
    "phase": {"CdSe": 1.6, "Au": 3.2},  # rad
    "clean": {"CdSe": 2.8, "Au": 4.6},  # fraction of the incident intensity
    "mask": {"CdSe": 1.0, "Au": 1.0},
}
LEAST_SIZE = 32  # px; less than that holds no particle worth the name
MOST_COUNTS = 10_000  # mean electrons per pixel: the brightest pixels stay below uint16's 65,535


class HRTEM(TwoStageData):
    """Images of nanoparticles on amorphous carbon at 300 kV; a domain is a defocus.

    A particle of 3–5 nm (in images of 128 px or more; smaller in proportion below) is imaged at each defocus with 0.4 Å
    per pixel. Defocus is counted in nm from the plane at which the particle alone has least contrast; positive is
    underfocus, where atoms are dark.

    Splits are by structure. Test and validation structures are the same in both stages; the two stages train on
    *different* structures, so what a transfer learns from is new; no structure has two of these roles. Asking for more
    structures keeps the first ones. Training and validation see the stage's own defocus, the test sees all `domains`.

    Images are simulated on first use (about 0.2 s per structure on two cores) and kept in `cache_dir`, with all
    `domains`: in a study over defoci, list every one of them in `domains`, the same list in every run, and each
    structure is simulated once.

    Example:
        >>> data = HRTEM(stage="pretrain", defocus=10.0, domains=[0.0, 10.0])
        >>> list(data.rows("test"))
        ['+10nm', '0nm']
    """

    def __init__(
        self,
        stage: Literal["pretrain", "transfer"] = "transfer",
        defocus: float = 0.0,
        domains: list[float] | None = None,
        dose: float = 400.0,
        train_structures: int = 64,
        validation_structures: int = 16,
        test_structures: int = 32,
        image_size: int = 128,
        material: Material = "CdSe",
        target: Target = "phase",
        defocus_sd: float = 0.0,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        """Checks the arguments; nothing is simulated yet.

        Args:
            stage: ``pretrain`` and ``transfer`` train on different structures.
            defocus: nm, of the stage's own domain.
            domains: nm, every defocus that is tested; None: −20, −10, −5, 0, 5, 10, 20. `defocus` is added if missing.
            dose: electrons per Å²; the shot noise is 1/√(dose · 0.16 Å²) of the mean.
            train_structures: images to train on, one per structure.
            validation_structures: images to select the checkpoint on; 0: none.
            test_structures: images to test on, per domain.
            image_size: pixels of 0.4 Å along an edge.
            material: wurtzite cadmium selenide or fcc gold, which scatters more strongly.
            target: ``phase`` (rad) of the particle's exit wave in vacuum, at zero defocus and to 1 Å, the same for all
                domains; ``clean``: this image without noise; ``mask``: where the phase exceeds π/16.
            defocus_sd: nm, standard deviation of each image's true defocus around the nominal one.
            batch_size: images per batch.
            **kwargs: as in `TwoStageData`.
        """
        super().__init__(stage=stage, batch_size=batch_size, **kwargs)
        _check_name("material", material, get_args(Material))
        _check_name("target", target, get_args(Target))
        for name, count, least in (
            ("train_structures", train_structures, 1),
            ("validation_structures", validation_structures, 0),
            ("test_structures", test_structures, 1),
            ("image_size", image_size, LEAST_SIZE),
        ):
            if count < least:
                raise UserError(f"expected {name} of at least {least}, got {count}")
        if not 0 < dose * PIXEL**2 <= MOST_COUNTS:
            raise UserError(
                f"expected a dose above 0 and at most {MOST_COUNTS / PIXEL**2:.0f} electrons per Å², got {dose}"
            )
        self.target = target
        self.image_size: int = image_size
        self.defocus = float(defocus) + 0.0  # -0.0 is no domain of its own
        self.counts: dict[Role, int] = {
            stage: train_structures,
            "val": validation_structures,
            "test": test_structures,
        }
        defoci = {self.defocus, *(float(domain) + 0.0 for domain in (DOMAINS if domains is None else domains))}
        self.recipe = Recipe(material, image_size, float(dose), float(defocus_sd), target, tuple(sorted(defoci)))
        _check_defocus(self.recipe)

    @property
    def data_range(self) -> float:
        """Span of the targets' values for PSNR and SSIM, in the targets' unit: a constant per target and material."""
        return DATA_RANGE[self.recipe.target][self.recipe.material]

    @property
    def input_unit(self) -> str:
        """Unit of the converted input."""
        return "standard deviations"

    @property
    def target_unit(self) -> str:
        """Unit of the target."""
        return {"phase": "rad", "clean": "incident intensity", "mask": ""}[self.target]

    @override
    def open(self) -> Store:
        return open_structures(self.cache_dir, self.recipe, self.counts)

    @override
    def rows(self, part: Part) -> dict[str, np.ndarray]:
        role = self._role(part)
        before = sum(count for other, count in list(self.counts.items())[: list(self.counts).index(role)])
        first = (before + np.arange(self.counts[role], dtype=np.int64)) * len(self.recipe.defoci)
        others = [d for d in self.recipe.defoci if d != self.defocus] if part == "test" else []
        return {domain_name(d): first + self.recipe.defoci.index(d) for d in (self.defocus, *others)}

    @override
    def convert(self, batch: Batch) -> Batch:
        """Standardises each image to mean 0 and deviation 1; masks become ``(B, H, W)`` int64 for the loss.

        Args:
            batch: counts ``(B, 1, H, W)``; phase or intensity ``(B, 1, H, W)``, or mask ``(B, H, W)``.
        """
        target = batch.target.long() if self.target == "mask" else batch.target
        return Batch(standardised(batch.input), target, batch.sample)

    @override
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean 0 and deviation 1: `convert` standardises every image."""
        return (0.0,), (1.0,)

    @override
    def network_arguments(self) -> dict[str, int]:
        return {"in_channels": 1, "out_channels": 2 if self.target == "mask" else 1}

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "domain": domain_name(self.defocus),
            "test_domains": list(self.rows("test")),
            **{part: self._numbers(part) for part in get_args(Part)},
        }

    @override
    def fingerprint(self) -> str:
        parts = {part: self._numbers(part) for part in get_args(Part)}
        known = dumps([GENERATOR_VERSION, astuple(self.recipe), self.defocus, parts])
        return sha256(known.encode()).hexdigest()

    def _role(self, part: Part) -> Role:
        return self.stage if part == "train" else part

    def _numbers(self, part: Part) -> list[int]:
        """Returns the numbers of a part's structures."""
        role = self._role(part)
        return numbers(role, self.counts[role])


def domain_name(defocus: float) -> str:
    """Returns ``'+10nm'``, ``'0nm'``, ``'-2.5nm'``."""
    return f"{defocus:+g}nm" if defocus else "0nm"


def _check_name(argument: str, name: str, valid: Sequence[str]) -> None:
    if name not in valid:
        raise UserError(f"expected {argument} to be one of {', '.join(valid)}, got {name!r}{suggest(name, valid)}")


def _check_defocus(recipe: Recipe) -> None:
    """Raises if a defocus is no number, or blurs so far that the image would wrap around onto itself."""
    if not 0 <= recipe.defocus_sd < np.inf:
        raise UserError(f"expected defocus_sd of 0 nm or more, got {recipe.defocus_sd}")
    most = recipe.image_size * PIXEL / 2 / APERTURE / 10  # nm: a beam at the aperture's edge goes half the field
    for defocus in recipe.defoci:
        if not abs(defocus) + 4 * recipe.defocus_sd <= most:
            raise UserError(
                f"expected a defocus (with 4 defocus_sd) between -{most:.0f} and {most:.0f} nm for image_size "
                f"{recipe.image_size}, got {defocus}; remedy: a larger image_size"
            )
