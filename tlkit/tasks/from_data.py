"""What a task asks its data module for, with an error that says what is missing."""

from collections.abc import Iterable

from lightning import LightningDataModule, Trainer

from tlkit.errors import UserError


def datamodule_of(trainer: Trainer) -> LightningDataModule:
    """Returns the trainer's data module; raises `UserError` if the trainer was given bare data loaders."""
    datamodule: LightningDataModule | None = getattr(trainer, "datamodule", None)
    if datamodule is None:
        raise UserError("expected a data module, got bare data loaders; call trainer.fit(task, datamodule=…)")
    return datamodule


def network_argument(datamodule: LightningDataModule, name: str, remedy: str) -> int:
    """Returns what the data dictate to a network's constructor; raises `UserError` with a remedy if they do not."""
    dictated = getattr(datamodule, "network_arguments", None)
    arguments: dict[str, int] = dictated() if dictated else {}
    if name not in arguments:
        got = ", ".join(arguments) or "nothing"
        raise UserError(
            f"expected network_arguments() of the data module {type(datamodule).__name__} to hold {name}, got {got}; "
            f"{remedy}"
        )
    return arguments[name]


def statistics_of(datamodule: LightningDataModule) -> tuple[Iterable[float], Iterable[float]]:
    """Returns mean and standard deviation per channel of the training images' converted inputs."""
    statistics = getattr(datamodule, "statistics", None)
    if statistics is None:
        raise UserError(
            f"expected the input's normalisation, got none: the data module {type(datamodule).__name__} has no "
            "statistics(); give model.normalisation or a checkpoint"
        )
    mean, std = statistics()
    return mean, std
