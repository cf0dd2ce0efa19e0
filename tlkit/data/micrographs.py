"""Recorded micrographs in pairs: what the camera saw, and what is to be restored from it."""

from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm
from typing_extensions import override

from tlkit.data.batch import Batch
from tlkit.data.hashes import tree_hash
from tlkit.data.hrtem_imaging import standardised
from tlkit.data.micrograph_files import Pair, find_domains, find_pairs, read_micrograph, shape_of
from tlkit.data.packed import Store, build
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.errors import UserError

PACKING_VERSION = 1  # raised when the same files are packed differently


class MicrographPairs(TwoStageData):
    """Patches of micrographs on disk; a domain (a defocus, a dose, a microscope) is a folder.

    The folders are ``<root>/<domain>/input`` and ``<root>/<domain>/target``; a micrograph has the same name in both,
    with the suffix ``.tif``, ``.tiff`` or ``.mrc``. Both show the same pixels: give a pair one format, since programs
    disagree on which row of an MRC file is the first. Targets are kept in their own unit; inputs are standardised patch
    by patch.

    Micrographs are cut into patches without overlap; what is left over at the right and the lower border is dropped.
    Splits are by micrograph, never by patch: the names of all domains, in the order of their sha256, are dealt out to
    test, validation and training. So a specimen recorded in several domains under one name has one role in all of them.
    """

    not_identity: ClassVar[frozenset[str]] = TwoStageData.not_identity | {"root"}

    def __init__(
        self,
        root: str,
        domain: str,
        data_range: float,
        stage: Literal["pretrain", "transfer"] = "transfer",
        domains: list[str] | None = None,
        image_size: int = 512,
        train_micrographs: int | None = None,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        """Stores the arguments; nothing is read yet.

        Args:
            root: the folder of domains.
            domain: the stage's own, trained and validated on.
            data_range: largest minus smallest value a target can take, in its unit; for PSNR and SSIM.
            stage: ``pretrain`` or ``transfer``.
            domains: folders to test on; None: all. `domain` is added if missing.
            image_size: pixels along an edge of a patch: of a 4k micrograph, 512 px make 64 patches.
            train_micrographs: how many to train on, the first in the order of the names' hashes; None: all.
            validation_fraction: share of the names to select the checkpoint on, at least one name; 0: none.
            test_fraction: share of the names to test on, at least one name.
            batch_size: patches per batch.
            **kwargs: as in `TwoStageData`.
        """
        super().__init__(stage=stage, batch_size=batch_size, **kwargs)
        if not 0 < data_range < np.inf:
            raise UserError(f"expected data_range above 0, in the targets' unit, got {data_range}")
        if image_size < 1:
            raise UserError(f"expected image_size of at least 1 pixel, got {image_size}")
        if train_micrographs is not None and train_micrographs < 1:
            raise UserError(f"expected train_micrographs of at least 1, got {train_micrographs}")
        if not (0 <= validation_fraction < 1 and 0 < test_fraction < 1 and validation_fraction + test_fraction < 1):
            raise UserError(
                f"expected validation_fraction of 0 or more and test_fraction above 0, together below 1, "
                f"got {validation_fraction} and {test_fraction}"
            )
        self.root = Path(root).expanduser()
        self.domain = domain
        self.data_range = float(data_range)
        self.domains = domains
        self.image_size: int = image_size
        self.train_micrographs = train_micrographs
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction

    @override
    def open(self) -> Store:
        pairs = [pair for _, pair in self._pairs()]
        sizes = [shape_of(pair, self.image_size) for pair in pairs]
        ends = np.cumsum([0, *((high // self.image_size) * (wide // self.image_size) for high, wide in sizes)])

        def fill(arrays: dict[str, np.memmap]) -> None:
            for index, pair in enumerate(tqdm(pairs, desc="packing micrographs", leave=False, disable=None)):
                rows = slice(ends[index], ends[index + 1])
                arrays["input"][rows, 0] = _patches(read_micrograph(pair.input), self.image_size)
                arrays["target"][rows, 0] = _patches(read_micrograph(pair.target), self.image_size)
                arrays["micrograph"][rows] = index

        shape = (int(ends[-1]), 1, self.image_size, self.image_size)
        spec = {"input": (np.float32, shape), "target": (np.float32, shape), "micrograph": (np.int64, shape[:1])}
        return build(self.cache_dir, self._content(), spec, fill, name="micrographs")

    @override
    def rows(self, part: Part) -> dict[str, np.ndarray]:
        pairs = self._pairs()
        micrograph = self.store.arrays["micrograph"]
        found = {}
        for domain in self._tested() if part == "test" else [self.domain]:
            stems = set(self._stems(part, domain))
            chosen = np.array([there == domain and pair.stem in stems for there, pair in pairs])
            found[domain] = np.flatnonzero(chosen[micrograph])
        return found

    @override
    def convert(self, batch: Batch) -> Batch:
        """Standardises each patch ``(1, H, W)`` to mean 0 and deviation 1."""
        return Batch(standardised(batch.input), batch.target, batch.sample)

    @override
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean 0 and deviation 1: `convert` standardises every patch."""
        return (0.0,), (1.0,)

    @override
    def network_arguments(self) -> dict[str, int]:
        return {"in_channels": 1, "out_channels": 1}

    @override
    def describe(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "train": self._stems("train", self.domain),
            "val": self._stems("val", self.domain),
            "test": {domain: self._stems("test", domain) for domain in self._tested()},
        }

    @override
    def fingerprint(self) -> str:
        return sha256(dumps([self._content(), self.describe()]).encode()).hexdigest()

    def _tested(self) -> list[str]:
        """Returns the domains to test on, the own one first."""
        given = find_domains(self.root) if self.domains is None else self.domains
        return [self.domain, *(domain for domain in dict.fromkeys(given) if domain != self.domain)]

    def _pairs(self) -> list[tuple[str, Pair]]:
        """Returns (domain, pair) in the order of the store, which is the same for every own domain."""
        return [(domain, pair) for domain in sorted(self._tested()) for pair in find_pairs(self.root, domain)]

    def _content(self) -> str:
        """Returns the sha256 hex digest of what the store holds."""
        names = [str(path.relative_to(self.root)) for _, pair in self._pairs() for path in (pair.input, pair.target)]
        content, _ = tree_hash(self.root, names, Path(self.cache_dir).expanduser())
        return sha256(dumps([PACKING_VERSION, self.image_size, content]).encode()).hexdigest()

    def _stems(self, part: Part, domain: str) -> list[str]:
        """Returns the names of a domain's micrographs in a part, in the order of their hashes."""
        everywhere = {pair.stem for folder in find_domains(self.root) for pair in find_pairs(self.root, folder)}
        ordered = sorted(everywhere, key=lambda stem: sha256(stem.encode()).digest())
        test = max(1, round(self.test_fraction * len(ordered)))
        val = max(1, round(self.validation_fraction * len(ordered))) if self.validation_fraction else 0
        parts = {"test": ordered[:test], "val": ordered[test : test + val], "train": ordered[test + val :]}
        here = {pair.stem for pair in find_pairs(self.root, domain)}
        stems = [stem for stem in parts[part] if stem in here]
        if not stems and (part != "val" or val):
            raise UserError(
                f"expected micrographs of domain '{domain}' for {part}, got none: of {len(ordered)} names {test} are "
                f"for test and {val} for validation, and {domain} has {len(here)}; remedy: more micrographs, or other "
                f"test_fraction and validation_fraction"
            )
        if part != "train" or self.train_micrographs is None:
            return stems
        if self.train_micrographs > len(stems):
            raise UserError(
                f"expected train_micrographs of at most {len(stems)} in domain '{domain}', got {self.train_micrographs}"
            )
        return stems[: self.train_micrographs]


def _patches(image: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Cuts ``(H, W)`` into ``(N, size, size)``, row by row; drops what is left over."""
    high, wide = image.shape[0] // size, image.shape[1] // size
    grid = image[: high * size, : wide * size].reshape(high, size, wide, size)
    return grid.swapaxes(1, 2).reshape(-1, size, size)
