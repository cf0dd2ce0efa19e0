"""What can be known to be wrong with an experiment before anything is trained or written."""

from collections.abc import Callable
from typing import get_args

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from tlkit import runs
from tlkit.data.two_stage import Part, TwoStageData
from tlkit.errors import UserError
from tlkit.experiment import Stage
from tlkit.layers import network_of, select, transfer
from tlkit.stage_cli import StageCLI
from tlkit.tasks.base import Task
from tlkit.weights import load_weights


def check(stage: Stage, with_data: bool = True) -> nn.Module:
    """Builds the networks of all stages, tries each hand-over, packs the data, names what callbacks would freeze.

    Args:
        stage: what is to be trained.
        with_data: whether its data will be needed: not those of a pretrain that is found.

    Returns:
        The network of the stage.

    Raises:
        UserError: layers that do not exist or do not fit, weights that cannot be read, nothing left to train, images
            that are too few, cannot be read or are too small.
    """
    before = check(stage.pretrain, not _is_found(stage, stage.pretrain)) if stage.pretrain else None
    cli = StageCLI(stage.config)
    cli.build(lambda model, data: {"logger": False, "enable_progress_bar": False})
    network = network_of(cli.model)
    try:
        names = select(network, stage.layers)
    except UserError as error:
        raise UserError(f"pretrain.layers: {error}") from error
    if before is not None:
        transfer(network, before.state_dict(), names)
    elif stage.checkpoint:
        transfer(network, load_weights(stage.checkpoint).network, names)
    if isinstance(cli.model, Task) and cli.datamodule is not None:
        cli.model.adapt(cli.datamodule)  # what it logs depends on the data
    _check_callbacks(cli)
    _check_devices(stage)
    if with_data:
        _check_data(cli.model, cli.datamodule)
    return network


def _is_found(stage: Stage, pretrain: Stage) -> bool:
    return (
        stage.config["pretrain"]["reuse"] and runs.find_finished(pretrain.root, pretrain.name, pretrain.id) is not None
    )


def _check_data(model: LightningModule, data: LightningDataModule | None) -> None:
    """Packs the data, counts the images of each part, and passes two of them through the network."""
    if not isinstance(data, TwoStageData):
        return
    data.prepare_data()
    rows = {part: next(iter(data.rows(part).values())) for part in get_args(Part)}
    if not isinstance(model, Task):  # whose forward pass may be anything
        return
    images = data.on_after_batch_transfer(data.read(rows["train"][:2]), 0).input  # (2, C, H, W)
    try:
        with torch.no_grad():
            model.network.eval()(images)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"model.network: expected a network that takes images of shape {tuple(images.shape[1:])}, got "
            f"{type(model.network).__name__}, which fails: {error}; change data.image_size or the network"
        ) from error


def _check_devices(stage: Stage) -> None:
    """Lightning's launcher starts this command again for each further device, which would make a run of its own."""
    trainer = stage.config["trainer"]
    if str(trainer["devices"]) != "1" or trainer["num_nodes"] != 1:
        raise UserError(
            f"trainer: expected one device, got devices: {trainer['devices']}, num_nodes: {trainer['num_nodes']}; "
            "a stage is trained on one device, further ones serve further runs"
        )


def _check_callbacks(cli: StageCLI) -> None:
    """Asks each callback that can tell what is wrong with it, with a trainer that is built but not fitting."""
    if isinstance(cli.model, Task) and cli.datamodule is not None:
        cli.model.adapt(cli.datamodule)  # what a task logs depends on its data
    for callback in cli.callbacks:
        check: Callable[[Trainer, LightningModule], None] | None = getattr(callback, "check", None)
        if check is None:
            continue
        try:
            check(cli.trainer, cli.model)
        except UserError as error:
            name = type(callback).__name__
            raise type(error)(f"trainer.callbacks.{name}: {str(error).removeprefix(f'{name}: ')}") from error
