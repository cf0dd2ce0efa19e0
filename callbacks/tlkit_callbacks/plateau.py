"""A metric that gets no better: what it means, where its values come from, and how long that has been so."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

from tlkit.errors import UserError, suggest
from tlkit.tasks.base import TRAIN_LOSS, Task


@dataclass(frozen=True)
class Plateau:
    """A metric that has not become better for a while: ``{metric: val/loss, patience: 3}``.

    Attributes:
        metric: name it is logged under.
        mode: ``min``: less of it is better; ``max``: more is.
        patience: epochs without a better value; an epoch without a validation does not count.
        min_delta: in the metric's unit; a value is better if it is so by more than this.

    Raises:
        UserError: one of them is out of range.
    """

    metric: str
    mode: Literal["min", "max"] = "min"
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        """Checks; see the class."""
        if self.mode not in ("min", "max"):
            raise UserError(f"plateau: expected mode min or max, got {self.mode}")
        if self.patience < 1:
            raise UserError(f"plateau: expected patience of at least 1 epoch, got {self.patience}")
        if not 0 <= self.min_delta < math.inf:
            raise UserError(f"plateau: expected min_delta of at least 0, got {self.min_delta}")


class PlateauWatch:
    """Counts the epochs without a better value.

    Attributes:
        best: the best value so far; infinite before the first.
        wait: values since the best one, or since somebody set it to 0.
    """

    best: float
    wait: int

    def __init__(self, plateau: Plateau) -> None:
        """Starts without a value."""
        self.plateau = plateau
        self.reset()

    def update(self, value: float) -> bool:
        """Takes an epoch's value, NaN being no better than any; returns whether `patience` of them were no better."""
        sign = 1 if self.plateau.mode == "min" else -1
        if sign * value < sign * self.best - self.plateau.min_delta:
            self.best, self.wait = value, 0
        else:
            self.wait += 1
        return self.wait >= self.plateau.patience

    def reset(self) -> None:
        """Forgets all values."""
        self.best = math.inf if self.plateau.mode == "min" else -math.inf
        self.wait = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold."""
        return {"best": self.best, "wait": self.wait}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a checkpoint was written."""
        self.best, self.wait = state["best"], state["wait"]


def check_metric(pl_module: LightningModule, metric: str, who: str, mode: str | None = None) -> None:
    """Refuses a metric that will not be logged; call it in `check`, and in ``on_fit_start``.

    Only tlkit's tasks tell beforehand what they log; for other modules see `check_sanity` and `fresh_value`.

    Args:
        pl_module: what is trained.
        metric: that is to be watched.
        who: wants to watch it, for the message.
        mode: ``min`` or ``max``, refused where the task is known to mean the other.

    Raises:
        UserError: the metric is not among those that are logged, or has the other mode.
    """
    if not isinstance(pl_module, Task):
        return
    if metric not in (names := pl_module.logged()):
        raise _unknown(metric, names, who)
    if mode is not None and metric == pl_module.monitor and mode != pl_module.monitor_mode:
        raise UserError(f"{who}: expected mode {pl_module.monitor_mode} for {metric}, got {mode}")


def check_sanity(trainer: Trainer, metric: str, who: str) -> None:
    """Refuses a metric called ``val…`` that the first validation does not log; call it in ``on_sanity_check_end``.

    What training logs is not known yet, so that another name may still turn out to be right.

    Raises:
        UserError: see above; with the names of those that are logged.
    """
    names = trainer.callback_metrics
    if metric.startswith("val") and metric not in names:
        raise _unknown(metric, list(names), who)


def check_validates(trainer: Trainer, metric: str, who: str) -> None:
    """Refuses a metric called ``val…`` where nothing is validated; call it in ``on_train_start``.

    Raises:
        UserError: see above.
    """
    # a validation that is not due in the first epoch has not looked at its data yet; `fresh_value` will tell
    if metric.startswith("val") and trainer.check_val_every_n_epoch == 1 and not any(trainer.num_val_batches):
        raise UserError(f"{who}: expected a validation, which '{metric}' is of, got no data to validate on")


def fresh_value(trainer: Trainer, metric: str, who: str) -> float | None:
    """Returns a metric's value of the epoch that ends, the same in all processes; call it in ``on_train_epoch_end``.

    Args:
        trainer: in a fit.
        metric: that is watched.
        who: watches it, for the message.

    Returns:
        The value; None if it is of the validation, and there was none in this epoch, or it was before a resume.

    Raises:
        UserError: it is not logged.
    """
    module = trainer.lightning_module
    if metric == TRAIN_LOSS and isinstance(module, Task):  # it logs after the callbacks had their turn
        return module.mean_train_loss()
    results = trainer.fit_loop.epoch_loop._results.metrics(on_step=False)["callback"]
    metrics = trainer.callback_metrics
    if metric not in results and not _validated(trainer):
        return None
    if metric not in metrics:
        raise _unknown(metric, list(metrics), who)
    value = metrics[metric].detach().to(trainer.strategy.root_device)
    # a module may log without sync_dist: then each process has a value of its own, and they would part ways
    return float(trainer.strategy.reduce(value, reduce_op="mean"))


def _validated(trainer: Trainer) -> bool:
    """Whether there was a validation in the epoch that ends, in this process."""
    every, interval = trainer.check_val_every_n_epoch, trainer.val_check_batch
    loop = trainer.fit_loop.epoch_loop
    if trainer.fit_loop.restarting and not loop.val_loop._has_run:  # written after the validation: only the end is left
        return False
    if every is not None or interval is None:
        return every is None or (trainer.current_epoch + 1) % every == 0
    # every so many batches, across epochs
    batches = loop.total_batch_idx + 1
    return batches // interval > (batches - loop.batch_idx - 1) // interval


def _unknown(metric: str, names: list[str], who: str) -> UserError:
    logged = ", ".join(sorted(names)) or "nothing"
    return UserError(
        f"{who}: expected a metric that is logged, got '{metric}'{suggest(metric, names) or ';'} logged: {logged}"
    )
