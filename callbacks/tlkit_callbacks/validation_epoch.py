"""A second epoch of validation within a validation."""

from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from typing_extensions import override


def validation_epoch(trainer: Trainer) -> dict[str, Tensor]:
    """Evaluates the module once more on the validation data; call it in ``on_validation_epoch_start`` of a fit.

    The module sees all hooks of an epoch, as in the validation that follows; callbacks and loggers see nothing of it,
    the metrics of the trainer and the global generators stay as they are.

    Returns:
        The metrics of the epoch, as ``trainer.callback_metrics`` has them after a validation.
    """
    parent = trainer.fit_loop.epoch_loop
    outer = parent.val_loop
    before = trainer.callbacks, trainer.loggers, trainer._logger_connector  # type: ignore[attr-defined]
    with isolate_rng():
        try:
            trainer.callbacks, trainer.loggers = [], []  # type: ignore[attr-defined]
            trainer._logger_connector = _LoggerConnector(trainer)
            parent.val_loop = _Epoch(trainer, outer)  # what the module logs goes to the loop that is found there
            parent.val_loop.run()
            metrics = dict(trainer.callback_metrics)
        finally:
            parent.val_loop = outer
            trainer.callbacks, trainer.loggers, trainer._logger_connector = before  # type: ignore[attr-defined]
        outer.reset()  # it had begun to fetch, and a loader with persistent workers has only one iterator
    return metrics


class _Epoch(_EvaluationLoop):
    """Takes over the data of a validation that has begun, and leaves its beginning and its end to it."""

    def __init__(self, trainer: Trainer, outer: _EvaluationLoop) -> None:
        super().__init__(trainer, TrainerFn.FITTING, RunningStage.VALIDATING, False, outer.inference_mode)
        self._combined_loader, self._max_batches = outer._combined_loader, outer._max_batches

    @override
    def setup_data(self) -> None: ...

    @override
    def _on_evaluation_model_eval(self) -> None: ...

    @override
    def _on_evaluation_start(self) -> None: ...

    @override
    def _on_evaluation_end(self) -> None:
        self.trainer._logger_connector.reset_results()

    @override
    def _on_evaluation_model_train(self) -> None: ...
