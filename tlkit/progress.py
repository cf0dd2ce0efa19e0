"""One progress bar for a whole stage."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm
from typing_extensions import override

TERMINAL_SECONDS, FILE_SECONDS = 0.2, 20.0
"""How often the bar is drawn: on a terminal, and where each drawing is a line in a log."""


class StageProgress(ProgressBar):
    """Counts the batches of all epochs in one bar, with the last epoch's loss and selecting metric beside it.

    Args:
        stage: name that stands before the bar.
    """

    def __init__(self, stage: str) -> None:
        """Stores the arguments; see the class."""
        super().__init__()
        self.stage = stage
        self.bar: tqdm[Any] | None = None

    @override
    def disable(self) -> None:
        """Lightning calls this on all ranks but the first, which then draw nothing."""
        self.stage = ""

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.stage:
            return
        epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
        total = int(batches * epochs) if epochs > 0 and batches != float("inf") else None
        if trainer.max_steps > 0:
            steps = trainer.max_steps * trainer.accumulate_grad_batches
            total = steps if total is None else min(total, steps)
        interval = TERMINAL_SECONDS if sys.stderr.isatty() else FILE_SECONDS
        done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        self.bar = tqdm(
            total=total, initial=done, desc=self.stage, mininterval=interval, unit="batch", dynamic_ncols=True
        )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.bar is not None:
            self.bar.update()

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._show(trainer)
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _show(self, trainer: Trainer) -> None:
        """Puts the metrics of the epoch before beside the bar; this epoch's are not known yet."""
        if self.bar is not None:
            shown = {key: f"{value:.4g}" for key, value in trainer.progress_bar_metrics.items()}
            self.bar.set_postfix({"epoch": trainer.current_epoch, **shown}, refresh=False)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
