"""ILSVRC2012, the 1000 classes of ImageNet, as it is distributed."""

import csv
from functools import cached_property
from pathlib import Path

import numpy as np
from typing_extensions import override

from tlkit.data.file_images import FileImages, Listing, class_folders, files_below
from tlkit.errors import UserError

_SOLUTION = "LOC_val_solution.csv"  # of the Kaggle distribution: image id, then synset and box
_GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # of the development kit: one class number per image
_META = "meta.mat"  # of the development kit: class number -> synset
_WORDS = "LOC_synset_mapping.txt"  # of the Kaggle distribution: synset, then its words


class ILSVRC2012(FileImages):
    """ILSVRC2012: the official training images, tested on the official validation images.

    A class is identified by its synset (``n01440764``); ``title`` gives its words where a file lists them. Read are
    ``Data/CLS-LOC/train/<synset>/`` (or ``train/<synset>/``) and beside it ``val/``, either as folders of synsets or
    flat with the official listing: ``LOC_val_solution.csv``, or the development kit's
    ``ILSVRC2012_validation_ground_truth.txt`` with ``meta.mat`` (needs scipy), anywhere in the root or its ``data``,
    ``devkit`` or ``ILSVRC2012_devkit_t12`` folder.
    """

    def __init__(self, root: str, skip_broken: bool = False) -> None:
        """Stores the arguments.

        Args:
            root: the folder that holds ``Data``, ``ILSVRC/Data``, or ``train`` and ``val``.
            skip_broken: leave out files that cannot be read, and say how many, instead of refusing them.

        Raises:
            UserError: there is no such folder.
        """
        super().__init__(root, skip_broken)

    @override
    def list_files(self) -> Listing:
        """Returns training files by synset folder and validation files by the official listing.

        Raises:
            UserError: a folder or listing is missing, or the listing does not fit the files.
        """
        images = self._images
        synsets = class_folders(images / "train")
        if not synsets:
            raise UserError(f"expected one folder per synset in {images / 'train'}, got none")
        number = {synset: label for label, synset in enumerate(synsets)}
        train = [(name, number[s]) for s in synsets for name in files_below(self.root, images / "train" / s)]
        val = files_below(self.root, images / "val")
        if class_folders(images / "val"):
            truth = {Path(name).stem: Path(name).parent.name for name in val}
        else:
            truth = self._truth([Path(name).stem for name in val])
        unlisted = [name for name in val if truth.get(Path(name).stem) not in number]
        if unlisted or len(truth) != len(val):
            raise UserError(
                f"expected each validation image to be listed with one of the {len(synsets)} training synsets, got "
                f"{len(val)} images, {len(truth)} entries, {len(unlisted)} images without one: {unlisted[:3]}; "
                "use the listing that belongs to these images"
            )
        return Listing(synsets, train, [(name, number[truth[Path(name).stem]]) for name in val])

    @cached_property
    def _images(self) -> Path:
        """The folder that holds ``train`` and ``val``."""
        places = [self.root / part for part in ("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", ".")]
        for place in places:
            if (place / "train").is_dir() and (place / "val").is_dir():
                return place
        raise UserError(
            f"expected folders train and val in one of {', '.join(map(str, places))}, got none; "
            "name the folder that holds Data/CLS-LOC with --data.dataset.root"
        )

    def _find(self, name: str) -> Path | None:
        """Returns a file of the distribution, wherever it is usually unpacked."""
        kit = ("data", "devkit/data", "ILSVRC2012_devkit_t12/data", "ILSVRC/devkit/data")
        for part in (".", "ILSVRC", *kit):
            if (path := self.root / part / name).is_file():
                return path
        return None

    def _truth(self, stems: list[str]) -> dict[str, str]:
        """Returns image id -> synset of the flat validation images, whose sorted ids are ``stems``."""
        if path := self._find(_SOLUTION):
            with path.open(newline="") as file:
                return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        if path := self._find(_GROUND_TRUTH):
            numbers = [int(line) for line in path.read_text().split()]
            if len(numbers) != len(stems):
                raise UserError(f"expected {len(numbers)} validation images, as {path} lists, got {len(stems)}")
            synsets = self._synsets()
            return {stem: synsets[number][0] for stem, number in zip(stems, numbers, strict=True)}
        raise UserError(
            f"expected a listing of the validation images' classes below {self.root}: {_SOLUTION} (Kaggle) or "
            f"{_GROUND_TRUTH} with {_META} (development kit), got neither; copy one there, or sort the images into "
            "val/<synset>/"
        )

    def _synsets(self) -> dict[int, tuple[str, str]]:
        """Returns class number -> (synset, words) from the development kit."""
        path = self._find(_META)
        if path is None:
            raise UserError(f"expected {_META} beside {_GROUND_TRUTH}, got none; copy it from the development kit")
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise UserError(
                f"expected scipy to read {path}, which is not installed; pip install scipy, or use {_SOLUTION} instead"
            ) from error
        table = np.atleast_1d(loadmat(path, squeeze_me=True)["synsets"])
        return {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in table}

    @cached_property
    def _words(self) -> dict[str, str]:
        """Synset -> its words, as far as a file lists them."""
        if path := self._find(_WORDS):
            return dict(line.split(" ", 1) for line in path.read_text().splitlines() if " " in line)
        return {}

    @override
    def title(self, name: str) -> str:
        """Returns the synset's words, such as ``tench, Tinca tinca``, or the synset where they are not known."""
        return self._words.get(name, name)
