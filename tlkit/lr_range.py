"""The learning-rate range test (Smith, 2015, arXiv:1506.01186): train at rising rates, watch where it goes well."""

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers.logger import DummyLogger

from tlkit.errors import NonFinite, UserError
from tlkit.lr_curve import LRRange, Mode
from tlkit.lr_sweep import Sweep
from tlkit.tasks.base import Task
from tlkit.untouched import untouched

__all__ = ["LRRange", "Mode", "Spacing", "check_sweep", "lr_range_test"]

Spacing = Literal["exponential", "linear"]

FEWEST = 10
"""Points a curve needs."""
BARE: dict[str, Any] = {
    "devices": 1,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}
"""A trainer that only trains."""


def lr_range_test(
    module: LightningModule,
    data: Any = None,
    val_data: Any = None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    updates: int = 100,
    sweep: Spacing = "exponential",
    metric: str | None = None,
    metric_mode: Mode | None = None,
    every: int = 5,
    callbacks: Sequence[Callback] = (),
    **trainer: Any,
) -> LRRange:
    """Trains a copy of a module at a learning rate that rises with each update, and reads off a useful band of rates.

    A parameter group has the swept rate times its ratio: what it has relative to the optimizer's own ``lr``. The
    module's own schedulers, callbacks and loggers do nothing. Nothing of the caller's changes: the module, its
    optimizer and trainer, and, whatever ends the sweep, the global generators of Python, NumPy and torch, and
    generators, samplers and loaders that the data hold.

    Args:
        module: any that optimizes automatically, with one optimizer.
        data: a data module, or training batches, gone round as often as needed; None: the module brings them.
        val_data: validation batches, where ``data`` is no data module.
        min_lr: first rate.
        max_lr: rate of the last update.
        updates: optimizer updates from the first rate to the last.
        sweep: whether the rate grows by equal factors or by equal steps.
        metric: a validation metric to watch in place of the training loss. It costs a validation every few updates;
            ``limit_val_batches`` bounds it.
        metric_mode: whether less or more of the metric is better; None: as the module's ``monitor_mode`` says if the
            metric is its ``monitor``, else less.
        every: updates from one validation to the next.
        callbacks: act on the sweep as copies; those that freeze layers belong here, schedules do not. Of one that
            freezes other layers in the course of a run (``changes``), those of its start are frozen.
        **trainer: arguments of Lightning's Trainer that shape an update: ``accelerator``, ``precision``,
            ``accumulate_grad_batches``, ``gradient_clip_val``, ….

    Raises:
        UserError: rates or numbers that cannot be, manual optimization, no optimizer, a metric that is not logged.
        NonFinite: the loss is not finite before the first update, or an input is not.
    """
    check_sweep(min_lr, max_lr, updates, metric, every)
    rates = (np.geomspace if sweep == "exponential" else np.linspace)(min_lr, max_lr, updates).tolist()
    steady = [callback for callback in callbacks if not getattr(callback, "changes", False)]
    model, sweeping = _copied(module), Sweep(rates, metric, [c for c in callbacks if c not in steady])
    copies = [*copy.deepcopy(steady), sweeping]
    interval = every * int(trainer.get("accumulate_grad_batches") or 1)
    watch = {"val_check_interval": interval, "check_val_every_n_epoch": None} if metric else {"limit_val_batches": 0}
    given = {"datamodule": copy.copy(data)} if isinstance(data, LightningDataModule) else {"train_dataloaders": data}
    with untouched(data, val_data), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You defined a `validation_step` but have no")  # none is wanted
        runner = Trainer(
            **BARE | trainer | watch,
            max_steps=updates,
            max_epochs=-1,
            logger=DummyLogger(),
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in copies),
            callbacks=copies,
        )
        try:
            runner.fit(model, val_dataloaders=val_data, **given)
        except NonFinite:  # tlkit's tasks raise it
            if not sweeping.blames_the_rate():
                raise
        except SystemExit as stop:  # Lightning makes one of Ctrl-C
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
            raise
    mode: Mode = metric_mode or "min"
    if metric and not metric_mode and getattr(model, "monitor", None) == metric:
        mode = cast(Mode, getattr(model, "monitor_mode", mode))
    return sweeping.result(updates // every if metric else updates, mode)


def check_sweep(min_lr: float, max_lr: float, updates: int, metric: str | None, every: int) -> None:
    """Refuses rates and numbers that cannot be; the arguments are those of `lr_range_test`."""
    if not 0 < min_lr < max_lr < math.inf:
        raise UserError(f"expected 0 < min_lr < max_lr, got min_lr {min_lr:g} and max_lr {max_lr:g}")
    if every < 1:
        raise UserError(f"expected every to be at least 1 update, got {every}")
    fewest = FEWEST * every if metric else FEWEST
    if updates < fewest:
        why = f" ({FEWEST} validations, one every {every})" if metric else ""
        raise UserError(f"expected at least {fewest} updates{why}, got {updates}")


def _copied(module: LightningModule) -> LightningModule:
    """Returns a copy that belongs to no trainer, brings no callbacks and writes no pictures."""
    if not module.automatic_optimization:
        raise UserError(
            f"expected a module that optimizes automatically, got {type(module).__name__} with "
            "automatic_optimization = False: only it knows when and at which rates it updates"
        )
    try:
        model = copy.deepcopy(module)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"expected a module that copy.deepcopy can copy, got {type(module).__name__}, which fails: {error}; "
            "it holds something that is no weight: a tensor with its graph (detach it), a running loader, a lock"
        ) from error
    for mine, theirs in zip(model.parameters(), module.parameters(), strict=True):
        vars(mine).update(vars(theirs))  # what callbacks note on parameters, which deepcopy leaves out
    model.configure_callbacks = list  # type: ignore[method-assign]
    if isinstance(model, Task):
        model.run_dir = None
    return model
