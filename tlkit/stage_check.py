"""What can be known to be wrong with an experiment before anything is trained or written."""

from collections.abc import Callable

from lightning.pytorch import LightningModule
from torch import nn

from tlkit.errors import UserError
from tlkit.experiment import Stage
from tlkit.layers import layers_of, network_of, select, transfer
from tlkit.stage_cli import StageCLI
from tlkit.weights import load_weights


def check(stage: Stage) -> nn.Module:
    """Builds the networks of all stages, tries each hand-over and names what callbacks would freeze.

    Returns:
        The network of the stage.

    Raises:
        UserError: layers that do not exist or do not fit, weights that cannot be read, nothing left to train.
    """
    before = check(stage.pretrain) if stage.pretrain else None
    cli = StageCLI(stage.config)
    cli.build()
    network = network_of(cli.model)
    try:
        names = select(network, stage.layers)
    except UserError as error:
        raise UserError(f"pretrain.layers: {error}") from error
    if before is not None:
        transfer(network, before.state_dict(), names)
    elif stage.checkpoint:
        transfer(network, load_weights(stage.checkpoint).network, names)
    _check_frozen(cli)
    _check_devices(stage)
    return network


def _check_devices(stage: Stage) -> None:
    """Lightning's launcher starts this command again for each further device, which would make a run of its own."""
    trainer = stage.config["trainer"]
    if str(trainer["devices"]) != "1" or trainer["num_nodes"] != 1:
        raise UserError(
            f"trainer: expected one device, got devices: {trainer['devices']}, num_nodes: {trainer['num_nodes']}; "
            "a stage is trained on one device, further ones serve further runs"
        )


def _check_frozen(cli: StageCLI) -> None:
    frozen: set[str] = set()
    for callback in cli.callbacks:
        names: Callable[[LightningModule], list[str]] | None = getattr(callback, "frozen", None)
        if names is None:
            continue
        try:
            frozen |= set(names(cli.model))
        except UserError as error:
            raise UserError(f"trainer.callbacks.{type(callback).__name__}.layers: {error}") from error
    layers = layers_of(network_of(cli.model))
    if frozen == set(layers):
        raise UserError(
            f"trainer.callbacks: expected at least one layer to train, got all of them frozen: {', '.join(layers)}; "
            "freeze fewer layers"
        )
