"""Validate, test or predict with the checkpoint of a stage."""

import csv
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from tlkit import runs
from tlkit.data.two_stage import TwoStageData
from tlkit.errors import UserError
from tlkit.experiment import Stage
from tlkit.paths import override
from tlkit.stage_cli import StageCLI
from tlkit.weights import checkpoint_file, load_checkpoint

log = logging.getLogger("tlkit")


def evaluate(command: str, stage: Stage, checkpoint: str | None) -> None:
    """Evaluates a checkpoint of a stage; ``predict`` writes its output beside the checkpoint's run.

    Args:
        command: ``validate``, ``test`` or ``predict``.
        stage: what the checkpoint is of.
        checkpoint: a file or a run directory; None: the best one of the last finished run.
    """
    path = _checkpoint(stage, checkpoint)
    print(f"{command} {path}")
    cli = StageCLI(override(stage.config, {"trainer.callbacks": []}))  # protocols act on training alone
    cli.build(lambda model, data: {"logger": False, "enable_checkpointing": False})
    load_checkpoint(path)
    warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
    trainer, arguments = cli.trainer, {"datamodule": cli.datamodule, "ckpt_path": path, "weights_only": True}
    if command == "predict":
        outputs = trainer.predict(cli.model, **arguments)
        _write_predictions(path, outputs or [], cli.datamodule)
    else:
        getattr(trainer, command)(cli.model, verbose=False, **arguments)
        _print_metrics(trainer)


def _checkpoint(stage: Stage, given: str | None) -> Path:
    if given:
        return checkpoint_file(Path(given))
    run = runs.find_finished(stage.root, stage.name, stage.id)
    if run is None:
        raise UserError(
            f"expected a finished run of this experiment below {stage.root}, got none; "
            "train it with `tlkit fit`, or give its checkpoint with --ckpt_path"
        )
    return run.best


def _print_metrics(trainer: Trainer) -> None:
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
    width = max(map(len, metrics), default=0)
    for key, value in metrics.items():
        print(f"  {key:<{width}}  {value:.4f}")


def _write_predictions(checkpoint: Path, outputs: list[Any], data: Any) -> None:
    """Class probabilities become a CSV with one row per image and its true class, images an array."""
    if outputs and isinstance(outputs[0], list):
        outputs = [batch for domain in outputs for batch in domain]
    stacked: Tensor = torch.cat(outputs)
    directory = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    if stacked.ndim > 2:
        path = directory / "predictions.npy"
        np.save(path, stacked.numpy())
    else:
        path = directory / "predictions.csv"
        _write_probabilities(path, stacked.tolist(), data)
    print(f"{len(stacked)} predictions in {path}")


def _write_probabilities(path: Path, probabilities: list[list[float]], data: Any) -> None:
    """Writes image, true class where the data tell it, predicted class and the probability of each class."""
    names = getattr(data, "class_names", None) or [str(number) for number in range(len(probabilities[0]))]
    known = isinstance(data, TwoStageData)
    rows = next(iter(data.rows("test").values())) if known else np.arange(len(probabilities))
    images = data.image_names(rows) if hasattr(data, "image_names") else rows.tolist()
    true = [names[label] for label in data.read(rows).target.tolist()] if known else [""] * len(rows)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "true", "predicted", *(f"p({name})" for name in names)])
        for image, label, row in zip(images, true, probabilities, strict=True):
            writer.writerow([image, label, names[row.index(max(row))], *(f"{p:.6f}" for p in row)])
