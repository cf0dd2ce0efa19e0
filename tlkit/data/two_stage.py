"""The base of all data modules: two stages over one packed store, whole batches, exact resume."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from typing_extensions import override

from tlkit.data.augmentation import Augmentation
from tlkit.data.batch import Batch
from tlkit.data.packed import Store
from tlkit.data.random import SampleRandom
from tlkit.data.sampler import BatchLoader, Rows, epoch_of, loader, seed
from tlkit.errors import UserError

Part = Literal["train", "val", "test"]
# mean and deviation of more images would differ in the third digit only, and cost a pass over the data
_STATISTICS_ROWS = 20_000


class TwoStageData(LightningDataModule, ABC):
    """Data to pretrain on and to transfer to.

    Results depend neither on the number of workers nor on what was loaded before: the order of an epoch is a function
    of (seed, epoch), the augmentation of a sample a function of (seed, epoch, sample).

    Attributes:
        not_identity: constructor arguments that cannot change a result.
        image_size: height and width in pixels of what the network gets; None: as stored.
    """

    not_identity: ClassVar[frozenset[str]] = frozenset({"cache_dir", "num_workers"})
    image_size: int | None = None

    def __init__(
        self,
        stage: Literal["pretrain", "transfer"] = "transfer",
        batch_size: int = 32,
        augment: list[Augmentation] | None = None,
        num_workers: int = 0,
        cache_dir: str = "~/.cache/tlkit",
    ) -> None:
        """Stores the arguments; nothing is read or built yet.

        Args:
            stage: which half of the data: the source (``pretrain``) or the target (``transfer``).
            batch_size: samples per batch and device; the last batch of an epoch may be smaller.
            augment: applied in order to training batches, on the device.
            num_workers: data processes; 0 loads in the training process.
            cache_dir: where packed data sets are kept.
        """
        super().__init__()
        if stage not in ("pretrain", "transfer"):
            raise UserError(f"expected stage 'pretrain' or 'transfer', got {stage!r}")
        if batch_size < 1:
            raise UserError(f"expected batch_size to be at least 1, got {batch_size}")
        if num_workers < 0:
            raise UserError(f"expected num_workers to be at least 0, got {num_workers}")
        self.stage = stage
        self.batch_size = batch_size
        self.augment = augment or []
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self._store: Store | None = None
        self._augment_prepared = False

    @abstractmethod
    def open(self) -> Store:
        """Returns the packed arrays, built on first use."""

    @abstractmethod
    def rows(self, part: Part) -> dict[str, np.ndarray]:
        """Returns domain -> ``(n,)`` int64 rows of the store, the stage's own domain first.

        ``train`` and ``val`` have one domain, ``test`` may have several. A function of names and seeds alone.
        """

    @abstractmethod
    def convert(self, batch: Batch) -> Batch:
        """Turns stored integers into float32 input, for a whole batch on its device."""

    @abstractmethod
    def network_arguments(self) -> dict[str, int]:
        """Returns what the data dictate to a network's constructor, as ``{"num_classes": 5, "in_channels": 1}``."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Returns splits and subsets as names, fit for JSON."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Returns the sha256 hex digest of what determines the data's content."""

    def read(self, rows: np.ndarray) -> Batch:
        """Reads the stored batch of ``(B,)`` rows; by default the arrays ``input`` and ``target``."""
        return Batch(self.store.take("input", rows), self.store.take("target", rows), torch.from_numpy(rows))

    @property
    def store(self) -> Store:
        """The packed arrays, opened once."""
        return self._opened()

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self.open()
        return self._store

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation per channel of the converted training inputs.

        Of more than 20,000 training images, 20,000 evenly spaced ones are measured.
        """
        (rows,) = self.rows("train").values()
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _STATISTICS_ROWS)).astype(np.int64)]
        total = square = torch.zeros(1, dtype=torch.float64)
        pixels = 0
        for start in range(0, len(rows), 256):
            x = self.convert(self.read(rows[start : start + 256])).input.double()  # (B, C, H, W)
            total, square = total + x.sum((0, 2, 3)), square + x.square().sum((0, 2, 3))
            pixels += x[:, 0].numel()
        mean = total / pixels
        deviation = (square / pixels - mean.square()).clamp_min(0).sqrt()
        if not bool((deviation > 0).all()):
            raise UserError(
                f"expected training images that vary in every channel, got standard deviations {deviation.tolist()}"
            )
        return tuple(mean.tolist()), tuple(deviation.tolist())

    @override
    def prepare_data(self) -> None:
        """Packs the data set on one process while the others wait."""
        self._opened()

    @override
    def setup(self, stage: str) -> None:
        """Switches validation off where there are no images to validate on: Lightning warns of an empty loader."""
        if self.trainer is not None and not any(len(rows) for rows in self.rows("val").values()):
            self.trainer.limit_val_batches = 0

    @override
    def train_dataloader(self) -> BatchLoader:
        """Returns the loader of the training part, shuffled."""
        self._prepare_augment()
        (rows,) = self.rows("train").values()
        return self._loader(rows, shuffle=True)

    @override
    def val_dataloader(self) -> BatchLoader:
        """Returns the loader of the validation part, in row order."""
        (rows,) = self.rows("val").values()
        return self._loader(rows, shuffle=False)

    @override
    def test_dataloader(self) -> BatchLoader | dict[str, BatchLoader]:
        """Returns the loader of the test part, in row order; of several domains: domain -> loader, own domain first."""
        loaders = {domain: self._loader(rows, shuffle=False) for domain, rows in self.rows("test").items()}
        return loaders if len(loaders) > 1 else next(iter(loaders.values()))

    @override
    def predict_dataloader(self) -> BatchLoader:
        """Returns the loader of the stage's own test images, in row order."""
        return self._loader(next(iter(self.rows("test").values())), shuffle=False)

    def _loader(self, rows: np.ndarray, shuffle: bool) -> BatchLoader:
        self._opened()  # before data workers are forked, so that they share it
        return loader(Rows(rows, self.batch_size, self.read), self.trainer, shuffle, self.num_workers)

    def _prepare_augment(self) -> None:
        """Tells the augmentations, once, what they need to know of the data."""
        if self._augment_prepared:
            return
        for augmentation in self.augment:
            augmentation.prepare(self.network_arguments().get("num_classes"), self.image_size)
        self._augment_prepared = True

    @override
    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Converts the batch and, while training, augments it."""
        batch = self.convert(batch)
        if self.trainer is None or not self.trainer.training:
            return batch
        return self.augmented(batch, epoch_of(self.trainer))

    def augmented(self, batch: Batch, epoch: int) -> Batch:
        """Returns a converted training batch as epoch ``epoch`` sees it, counted from 0."""
        self._prepare_augment()
        random = SampleRandom(seed(), epoch, batch.sample)
        for augmentation in self.augment:
            batch = augmentation(batch, random)
        return batch
