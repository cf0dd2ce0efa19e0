"""Classes split at random into those to pretrain on and those to transfer to."""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torchvision.transforms.v2.functional import center_crop
from typing_extensions import override

from tlkit.data.augmentation import Augmentation
from tlkit.data.batch import Batch
from tlkit.data.class_images import ClassImages, Side, pack, packed_fingerprint, read_images, readable
from tlkit.data.fashion_mnist import FashionMNIST
from tlkit.data.file_images import FileImages
from tlkit.data.fractals import Fractals
from tlkit.data.ilsvrc2012 import ILSVRC2012
from tlkit.data.image_folder import ImageFolder
from tlkit.data.packed import Store
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.errors import UserError, suggest

_NATURAL_SIZE = 224  # side in pixels where neither network nor data set asks for one: ImageNet's
_DATASETS: Mapping[str, type[ClassImages]] = {
    "fractals": Fractals,
    "fashion_mnist": FashionMNIST,
    "image_folder": ImageFolder,
    "ilsvrc2012": ILSVRC2012,
}


class ClassSplit(TwoStageData):
    """Images of one half of the classes: the source's or the target's.

    Which class is on which side depends on the names of the classes and on ``split`` alone. Within a stage, labels are
    0 … n-1 in the order of names. Validation images are the last of each class's training images, test images the
    data set's own test side; neither depends on ``examples_per_class``.
    """

    not_identity: ClassVar[frozenset[str]] = TwoStageData.not_identity | {"root", "download"}

    def __init__(
        self,
        dataset: str | ClassImages = "fractals",
        split: int = 0,
        stage: Literal["pretrain", "transfer"] = "transfer",
        examples_per_class: int | None = None,
        validation_per_class: int = 50,
        test_per_class: int | None = None,
        pretrain_classes: int | None = None,
        image_size: int | None = None,
        store_size: int | None = None,
        batch_size: int = 32,
        augment: list[Augmentation] | None = None,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/tlkit",
        memory_map_budget_gb: float = 64.0,
    ) -> None:
        """Stores the arguments; nothing is read or built yet.

        Args:
            dataset: ``fractals``, ``fashion_mnist``, or a data set with its own arguments.
            split: which of the random splits of the classes.
            stage: ``pretrain`` (the source's classes) or ``transfer`` (the target's).
            examples_per_class: the first x training images of each class; None: all but those validated on.
            validation_per_class: the last training images of each class, never trained on.
            test_per_class: the first test images of each class; None: all.
            pretrain_classes: how many classes are the source's; None: half of them, rounded down.
            image_size: side in pixels of what the network gets; None: the data set's own, or 224.
            store_size: side in pixels of the packed images, for augmentations that crop; None: ``image_size``.
            batch_size: samples per batch and device.
            augment: applied in order to training batches, on the device.
            num_workers: data processes; 0 loads in the training process.
            cache_dir: where packed data sets are kept.
            memory_map_budget_gb: gigabytes above which images are packed as JPEG (quality 95) instead of raw.

        Raises:
            UserError: an argument out of its range, or an unknown data set.
        """
        super().__init__(stage, batch_size, augment, num_workers, cache_dir)
        for name, value, least in (
            ("examples_per_class", examples_per_class, 1),
            ("validation_per_class", validation_per_class, 0),
            ("test_per_class", test_per_class, 1),
            ("pretrain_classes", pretrain_classes, 0),
            ("image_size", image_size, 1),
            ("store_size", store_size, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"expected {name} to be at least {least}, got {value}")
        self.dataset = _resolved(dataset)
        self.split = split
        self.examples_per_class = examples_per_class
        self.validation_per_class = validation_per_class
        self.test_per_class = test_per_class
        self.pretrain_classes = pretrain_classes
        self.image_size: int = image_size or self.dataset.size or _NATURAL_SIZE
        self.store_size = store_size or self.image_size
        if self.store_size < self.image_size:
            raise UserError(f"expected store_size of at least image_size ({self.image_size}), got {self.store_size}")
        self.budget = int(memory_map_budget_gb * 1e9)

    @property
    def class_names(self) -> list[str]:
        """Names of this stage's classes; a label is an index into them."""
        return self.stage_classes()

    def image_names(self, rows: np.ndarray) -> list[str]:
        """Returns the names of the images in some rows, for tables of predictions."""
        return [self.dataset.image_name(int(row)) for row in rows]

    def stage_classes(self) -> list[str]:
        """Returns the names of this stage's classes, sorted; a label is an index into them.

        Raises:
            UserError: fewer than two classes are left for the stage.
        """
        names = self.dataset.classes
        order = sorted(names, key=lambda name: hashlib.sha256(f"{self.split}/{name}".encode()).digest())
        source = len(names) // 2 if self.pretrain_classes is None else self.pretrain_classes
        mine = order[:source] if self.stage == "pretrain" else order[source:]
        if source > len(names) or len(mine) < 2:
            raise UserError(
                f"expected at least 2 of the {len(names)} classes in stage {self.stage}, got {len(mine)} with "
                f"{source} classes to pretrain on; set --data.pretrain_classes, or use a data set of more classes"
            )
        return sorted(mine)

    @override
    def open(self) -> Store:
        """Returns the packed data set, all classes of it."""
        return pack(self.dataset, Path(self.cache_dir).expanduser(), self.store_size, self.budget)

    @override
    def rows(self, part: Part) -> dict[str, np.ndarray]:
        """Returns ``{"": rows}``, ``(n,)`` int64, ascending.

        Raises:
            UserError: a class has fewer images than asked for.
        """
        return {"": np.sort(np.concatenate([self._rows_of(name, part) for name in self.stage_classes()]))}

    def _rows_of(self, name: str, part: Part) -> np.ndarray:
        """Returns the rows ``(n,)`` of one class in one part, in the data set's own order."""
        side: Side = "test" if part == "test" else "train"
        rows = np.flatnonzero(self.dataset.labels(side) == self.dataset.classes.index(name))
        rows += len(self.dataset.labels("train")) if side == "test" else 0
        if self.dataset.skip_broken:
            rows = rows[readable(self.store)[rows]]
        if side == "test":
            self._require(name, "test images", len(rows), self.test_per_class or 1, "lower --data.test_per_class")
            return rows[: self.test_per_class]
        train, val = self.examples_per_class or 1, self.validation_per_class
        remedy = "lower --data.examples_per_class or --data.validation_per_class"
        what = f"training images ({train} to train on, {val} to validate on)"
        self._require(name, what, len(rows), train + val, remedy)
        first_validated = len(rows) - val
        return rows[first_validated:] if part == "val" else rows[:first_validated][: self.examples_per_class]

    def _require(self, name: str, what: str, got: int, least: int, remedy: str) -> None:
        """Raises if a class has too few images."""
        if got < least:
            title = self.dataset.title(name)
            raise UserError(f"expected at least {least} {what} of class {title!r}, got {got}; {remedy}")

    @override
    def read(self, rows: np.ndarray) -> Batch:
        """Reads ``(B,)`` rows: uint8 images ``(B, C, H, W)`` and labels within the stage."""
        labels = self.store.take("target", rows)
        return Batch(read_images(self.store, rows), self._stage_labels[labels], torch.from_numpy(rows))

    @cached_property
    def _stage_labels(self) -> torch.Tensor:
        """The data set's label -> the stage's, -1 for other classes."""
        place = {name: label for label, name in enumerate(self.stage_classes())}
        return torch.tensor([place.get(name, -1) for name in self.dataset.classes])

    @override
    def convert(self, batch: Batch) -> Batch:
        """Turns uint8 into float32 in [0, 1]."""
        return batch._replace(input=batch.input.float() / 255)

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Converts, augments while training, and cuts out the centre if images are still larger than the network's."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch._replace(input=center_crop(batch.input, [self.image_size, self.image_size]))

    @override
    def network_arguments(self) -> dict[str, int]:
        """Returns the number of this stage's classes and of colour channels."""
        return {"num_classes": len(self.stage_classes()), "in_channels": self.dataset.channels}

    @override
    def fingerprint(self) -> str:
        """Returns the sha256 hex digest of the whole data set's content."""
        return packed_fingerprint(self.dataset, Path(self.cache_dir).expanduser())

    @override
    def describe(self) -> dict[str, Any]:
        """Returns the classes of both stages, and the images of each part.

        Images are named where a number of them was asked for, else counted; so are those left out, of all classes.
        """
        mine = self.stage_classes()
        named = {"train": self.examples_per_class, "val": self.validation_per_class, "test": self.test_per_class}
        parts: tuple[Part, ...] = ("train", "val", "test")
        images = {}
        for part in parts:
            rows = {name: self._rows_of(name, part) for name in mine}
            images[part] = {
                name: [self.dataset.image_name(int(row)) for row in some] if named[part] else len(some)
                for name, some in rows.items()
            }
        left_out = {"left_out": int((~readable(self.store)).sum())} if self.dataset.skip_broken else {}
        return left_out | {
            "dataset": type(self.dataset).__name__,
            "split": self.split,
            "stage": self.stage,
            "classes": {name: self.dataset.title(name) for name in mine},
            "classes_of_other_stage": sorted(set(self.dataset.classes) - set(mine)),
            "images": images,
        }


def _resolved(dataset: str | ClassImages) -> ClassImages:
    """Returns the data set of that name, with default arguments."""
    if not isinstance(dataset, str):
        return dataset
    if dataset not in _DATASETS:
        raise UserError(
            f"expected data.dataset to be one of {', '.join(_DATASETS)} or a class_path, got {dataset!r}"
            f"{suggest(dataset, _DATASETS)}"
        )
    kind = _DATASETS[dataset]
    if issubclass(kind, FileImages):
        raise UserError(
            f"expected the folder of data set {dataset}, got none; "
            f"name it with --data.dataset {kind.__name__} --data.dataset.root FOLDER"
        )
    return kind()
