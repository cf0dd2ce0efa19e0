"""What a stage writes while it trains: checkpoints, one row of metrics per epoch, rates and momenta, seconds."""

import csv
import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from tlkit.data.random import key
from tlkit.runs import write_text
from tlkit.schedules import momentum_of

log = logging.getLogger("tlkit")

Row = dict[str, float]

PACE = 1.0  # seconds of training that may be lost: short epochs would spend as long on files as on training


class TimedCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints as Lightning does, under a temporary name first, and counts the seconds."""

    def __init__(self) -> None:
        """Starts at 0 seconds."""
        super().__init__()
        self.seconds = 0.0

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        start = time.perf_counter()
        temporary = Path(path).with_name(f".{Path(path).name}.tmp")
        try:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self.seconds += time.perf_counter() - start


class Recorder(ModelCheckpoint):
    """Keeps the best and the last checkpoint and the history of a run.

    The last one, and ``metrics.csv`` with it, is written after an epoch that is better than those before it, after the
    last one, and after any other `PACE` seconds after it was written before.

    The history is part of the checkpoint, so that a resumed run has one history without gaps or repeats. Before each
    batch the global generator is seeded from (seed, number of the batch), so that what is random in the network does
    not depend on where a run was cut off.

    Args:
        directory: of the run.
        monitor: metric that selects the best checkpoint; None: there is only the last one.
        mode: ``max`` or ``min``.
        stage: identity and name of the stage, written into each checkpoint.
        seed: of the run.
    """

    def __init__(self, directory: Path, monitor: str | None, mode: str, stage: dict[str, str], seed: int) -> None:
        """Stores the arguments; see the class."""
        super().__init__(
            dirpath=directory / "checkpoints",
            filename="best",
            monitor=monitor,
            mode=mode,
            save_top_k=1 if monitor else 0,
            save_last=False,  # Lightning writes `last` only where it writes `best`; see on_train_epoch_end
            auto_insert_metric_name=False,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.directory = directory
        self.stage = stage
        self.seed = seed
        self.history: list[Row] = []
        self.seconds = {"train": 0.0, "validate": 0.0}
        self._epoch_start = self._validation_start = self._validated = self._written = 0.0

    @property
    @override
    def state_key(self) -> str:
        """Lightning reads it around every hook of every batch; `ModelCheckpoint` spells its arguments out each time."""
        return "Recorder"

    @override
    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"history": self.history, "seconds": self.seconds}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history, self.seconds = state_dict.pop("history"), state_dict.pop("seconds")
        # the run may have been moved, or goes on in a directory of its own: Lightning would forget the best score then
        best = str(Path(self.dirpath or "", "best.ckpt"))
        here = {key: best for key in ("best_model_path", "kth_best_model_path") if state_dict[key]}
        models = {best: state_dict["best_model_score"]} if state_dict["best_k_models"] else {}
        super().load_state_dict(state_dict | here | {"dirpath": self.dirpath, "best_k_models": models})

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["tlkit"] = self.stage

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._epoch_start, self._validated = time.perf_counter(), 0.0

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        _seed(key("batch", self.seed, trainer.fit_loop.epoch_loop.total_batch_idx) % (1 << 32), pl_module.device)
        if batch_idx == 0 or trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            for logger in trainer.loggers:
                logger.log_metrics(_rates(trainer) | _momenta(trainer), step=trainer.global_step)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves nothing within an epoch, so there is nothing to look up after each batch."""

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_start = time.perf_counter()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated += time.perf_counter() - self._validation_start
        super().on_validation_end(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds["validate"] += self._validated
        self.seconds["train"] += time.perf_counter() - self._epoch_start - self._validated
        metrics = {key: value.item() for key, value in sorted(trainer.callback_metrics.items())}
        self.history.append({"epoch": trainer.current_epoch, "step": trainer.global_step} | metrics | _rates(trainer))
        log.debug("%s", ", ".join(f"{key} {value:.4g}" for key, value in self.history[-1].items()))
        before = self.best_model_score
        super().on_train_epoch_end(trainer, pl_module)
        # A best checkpoint must not be of a later epoch than the last one, from which a run that is cut off goes on.
        due = self.best_model_score is not before or _ends(trainer) or time.perf_counter() - self._written > PACE
        if trainer.strategy.reduce_boolean_decision(due, all=False):  # all processes save, or none
            write_csv(self.directory / "metrics.csv", self.history)
            trainer.save_checkpoint(self.directory / "checkpoints" / "last.ckpt")
            self._written = time.perf_counter()


def _ends(trainer: Trainer) -> bool:
    """Returns whether the epoch that ends is the last one."""
    epochs, steps = trainer.max_epochs, trainer.max_steps  # None or -1: no limit
    return trainer.should_stop or trainer.current_epoch + 1 == epochs or 0 <= steps <= trainer.global_step


def write_csv(path: Path, rows: list[Row]) -> None:
    """Writes rows with the union of their columns, in the order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _seed(seed: int, device: torch.device) -> None:
    """Does for one device what ``torch.manual_seed`` does for every kind there is, which takes it 0.7 ms a batch."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def _rates(trainer: Trainer) -> Row:
    """Returns the learning rate of each parameter group, by its name or its number."""
    return {f"lr/{name}": float(group["lr"]) for name, group in _groups(trainer)}


def _momenta(trainer: Trainer) -> Row:
    """Returns the momentum (beta 1 of Adam's kin) of each parameter group that has one."""
    momenta = {f"momentum/{name}": momentum_of(group) for name, group in _groups(trainer)}
    return {name: momentum for name, momentum in momenta.items() if momentum is not None}


def _groups(trainer: Trainer) -> Iterator[tuple[Any, dict[str, Any]]]:
    for optimizer in trainer.optimizers:
        for number, group in enumerate(optimizer.param_groups):
            yield group.get("name", number), group
