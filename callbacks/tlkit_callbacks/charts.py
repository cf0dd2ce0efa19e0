"""Charts of several curves in TensorBoard (its page "Custom Scalars")."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

CATEGORY = "tlkit"

_charts: "WeakKeyDictionary[Any, dict[str, list[Any]]]" = WeakKeyDictionary()


def add_chart(trainer: Trainer, title: str, tags: Sequence[str]) -> None:
    """Adds a chart to every TensorBoard log of a run. Idempotent; call it when training starts.

    TensorBoard shows the last layout of a log only, so each chart is written together with those added before it.

    Args:
        trainer: in a fit.
        title: of the chart.
        tags: regular expressions, matched from the beginning of a tag; what they match is a curve of the chart.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            charts = _charts.setdefault(logger.experiment, {})
            charts[title] = ["Multiline", list(tags)]
            logger.experiment.add_custom_scalars({CATEGORY: charts})
