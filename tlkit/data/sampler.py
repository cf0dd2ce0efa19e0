"""Which rows form which batch: whole batches at a time, resumable, shared out among ranks."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from tlkit.data.batch import Batch
from tlkit.data.random import key


def seed() -> int:
    """Returns the seed that Lightning's ``seed_everything`` left in ``PL_GLOBAL_SEED``, 0 if it was never called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def epoch_of(trainer: Trainer | None) -> int:
    """Returns the epoch that is trained or about to be, counted from 0; 0 without a trainer.

    ``trainer.current_epoch`` still names the previous epoch when the loader of a resumed run is set up, since a
    checkpoint from an epoch's end counts it as processed, not as completed. Later on it is right, and the count of
    processed epochs may not be: with ``max_steps`` Lightning counts the last epoch before the checkpoint twice.
    """
    if trainer is None:
        return 0
    return _processed(trainer.fit_loop.epoch_progress) if trainer.fit_loop.is_resuming else trainer.current_epoch


def position_of(trainer: Trainer | None) -> int:
    """Returns how many batches of the current epoch have been trained on; 0 without a trainer."""
    if trainer is None or not trainer.fit_loop.is_resuming:
        return 0
    epochs = trainer.fit_loop.epoch_progress
    if epochs.current.ready == _processed(epochs):  # a checkpoint from an epoch's end counts that epoch's batches
        return 0
    return _processed(trainer.fit_loop.epoch_loop.batch_progress)


def _processed(progress: Any) -> int:
    """Returns how many epochs or batches Lightning has gone through, whether or not their end was announced."""
    return int(progress.current.processed)


class Rows(Dataset[Batch]):
    """Reads whole batches: by their rows, or by the number of the batch in row order."""

    def __init__(self, rows: np.ndarray, batch_size: int, read: Callable[[np.ndarray], Batch]) -> None:
        """Stores what to read.

        Args:
            rows: ``(n,)`` rows of the store.
            batch_size: rows per batch.
            read: turns ``(B,)`` rows into a batch.
        """
        self.rows = rows
        self.batch_size = batch_size
        self.read = read

    def __len__(self) -> int:
        """Returns the number of batches, the last one possibly short."""
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, index: np.ndarray | int) -> Batch:
        """Returns the batch of these rows; an integer, as Lightning's ``overfit_batches`` asks for, counts batches."""
        if isinstance(index, int):
            index = self.rows[index * self.batch_size : (index + 1) * self.batch_size]
        return self.read(index)


class RowSampler(DistributedSampler[np.ndarray]):
    """Yields arrays of rows.

    Training: every epoch in an order of its own, a function of seed and epoch; a run resumed in mid-epoch goes on with
    the next batch. Evaluation: in the order of rows. Under several ranks each gets every ``world_size``-th row and all
    have equally many batches: training repeats the first rows where the number does not divide; evaluation sees each
    row once. (It is a ``DistributedSampler`` so that Lightning does not shard it a second time.)
    """

    def __init__(self, data: Rows, trainer: Trainer | None, shuffle: bool) -> None:
        """Reads ranks from the trainer; epoch and position are read from it when an iteration begins.

        Args:
            data: what is sampled.
            trainer: None outside of a trainer.
            shuffle: whether this is training.
        """
        world, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
        super().__init__(data, num_replicas=world, rank=rank, shuffle=shuffle)
        self._rows = data.rows
        self._batch_size = data.batch_size
        self._trainer = trainer

    def __len__(self) -> int:
        """Returns the number of batches per epoch and rank."""
        return -(-self._share() // self._batch_size)

    def _share(self) -> int:
        """Returns the number of rows of the rank that has most."""
        return -(-len(self._rows) // self.num_replicas)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Returns the batches left in this epoch; the order is fixed now, not when the first batch is asked for."""
        if not self.shuffle:
            return iter(self._evaluation_batches())
        generator = torch.Generator().manual_seed(key("order", seed(), epoch_of(self._trainer)) >> 1)
        order = self._rows[torch.randperm(len(self._rows), generator=generator).numpy()]
        mine = np.resize(order, self._share() * self.num_replicas)[self.rank :: self.num_replicas]
        return iter(self._cut(mine)[position_of(self._trainer) :])

    def _evaluation_batches(self) -> list[np.ndarray]:
        """Returns this rank's batches; all ranks have equally many."""
        batches = self._cut(self._rows[self.rank :: self.num_replicas])
        if len(batches) == len(self):
            return batches
        if batches and len(batches[-1]) > 1:  # one row short of a further batch: share the last one
            return batches[:-1] + np.array_split(batches[-1], 2)
        return [*batches, self._rows[-1:]]  # fewer rows than batches: nothing is left but to see one row twice

    def _cut(self, rows: np.ndarray) -> list[np.ndarray]:
        return [rows[start : start + self._batch_size] for start in range(0, len(rows), self._batch_size)]


class BatchLoader(DataLoader[Batch]):
    """A loader of whole batches that holds no state: where to resume stands in the trainer's progress."""

    def state_dict(self) -> dict[str, Any]:
        """Returns nothing; that the method exists tells Lightning that resuming in mid-epoch is exact."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores nothing."""


def loader(data: Rows, trainer: Trainer | None, shuffle: bool, num_workers: int) -> BatchLoader:
    """Returns a loader whose batches are the same for any number of workers.

    A daemonic process, as some engines run tasks in, may have no children and loads by itself.

    Args:
        data: what is loaded.
        trainer: None outside of a trainer.
        shuffle: whether this is training.
        num_workers: data processes, started by fork; 0 loads in the training process.
    """
    if multiprocessing.current_process().daemon:
        num_workers = 0
    return BatchLoader(
        data,
        batch_size=None,
        sampler=RowSampler(data, trainer, shuffle),
        num_workers=num_workers,
        multiprocessing_context="fork" if num_workers else None,
        persistent_workers=num_workers > 0,
        pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
    )
