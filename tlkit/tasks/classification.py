"""Classification of images."""

from functools import partial
from typing import Any

from lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from typing_extensions import override

from tlkit.data.batch import Batch
from tlkit.errors import UserError
from tlkit.models.network import Network
from tlkit.tasks.base import Task
from tlkit.tasks.from_data import network_argument
from tlkit.tasks.meter import Meter
from tlkit.tasks.pictures import confusion_figure, publish


class Classification(Task):
    """Cross-entropy over logits; accuracy, top-5, macro precision, recall and F1, confusion matrix.

    Macro averages run over the classes that occur in the targets or in the predictions; a class without predictions
    has precision 0. This is scikit-learn's ``average="macro", zero_division=0``. ``top5`` exists only where there are
    more than five classes. Targets are class indices ``(B,)``; in training also class probabilities ``(B, classes)``.
    """

    monitor = "val/accuracy"
    monitor_mode = "max"

    def __init__(self, network: Network | nn.Module, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        """Wires a network to an optimizer.

        Args:
            network: from normalised images ``(B, C, H, W)`` to logits ``(B, classes)``.
            label_smoothing: share of a target that is spread evenly over all classes, in training only.
            **kwargs: as in `Task`.
        """
        super().__init__(network, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise UserError(f"expected label_smoothing of at least 0 and below 1, got {label_smoothing}")
        self.label_smoothing = label_smoothing
        self.num_classes = 0
        self.class_names: list[str] = []

    @override
    def adapt(self, datamodule: LightningDataModule) -> None:
        """Takes the number of classes, and their names where the data module has ``class_names``."""
        self.num_classes = network_argument(datamodule, "num_classes", "give one for classification")
        names = getattr(datamodule, "class_names", None) or range(self.num_classes)
        self.class_names = [str(name) for name in names]

    @override
    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the mean cross-entropy of logits ``(B, classes)``, in nats."""
        if output.ndim != 2 or output.shape[1] != self.num_classes:
            raise UserError(
                f"expected logits of shape (batch, {self.num_classes}), one per class of the data, "
                f"got {tuple(output.shape)}; set model.network.num_classes to {self.num_classes}"
            )
        return F.cross_entropy(output, target, label_smoothing=self.label_smoothing if self.training else 0.0)

    @override
    def prediction(self, output: Tensor) -> Tensor:
        """Returns probabilities ``(B, classes)``."""
        return output.softmax(1)

    @override
    def metrics(self) -> MetricCollection:
        """Returns ``accuracy``, ``precision``, ``recall``, ``f1``, ``confusion`` maybe ``top5``."""
        accuracy = partial(MulticlassAccuracy, self.num_classes, average="micro")
        metrics: dict[str, Metric | MetricCollection] = {
            "accuracy": accuracy(),
            "precision": MulticlassPrecision(self.num_classes),
            "recall": MulticlassRecall(self.num_classes),
            "f1": MulticlassF1Score(self.num_classes),
            "confusion": MulticlassConfusionMatrix(self.num_classes),
        }
        if self.num_classes > 5:
            metrics["top5"] = accuracy(top_k=5)
        # Given rather than found out at the first batch: a process without a batch must gather the same states.
        macro = ["precision", "recall", "f1"]
        groups = [macro, *([name] for name in metrics if name not in macro)]
        return MetricCollection(metrics, compute_groups=groups)

    @override
    def measure(self, meter: Meter, batch: Batch, output: Tensor) -> None:
        """Adds logits ``(B, classes)``."""
        meter.metrics.update(output, batch.target)

    @override
    def draw(self, part: str, meter: Meter) -> None:
        """Draws the confusion matrix of a test; that of the validation is drawn once, at the end of training."""
        if part != "val":
            self._draw_confusion(part, meter)

    @override
    def on_train_end(self) -> None:
        """Draws the last validation's confusion matrix."""
        if self._meters:
            self._draw_confusion("val", self._meters[0])

    def _draw_confusion(self, part: str, meter: Meter) -> None:
        matrix = meter.metrics["confusion"].compute().cpu().numpy()
        total = matrix.sum()
        if not self.trainer.is_global_zero or not total:
            return
        name = {"val": "validation"}.get(part, part)
        title = f"{name}: {matrix.trace() / total:.1%} of {total} images right"
        figure = partial(confusion_figure, matrix, self.class_names, title)
        # A test before the fit must not pass for the result.
        file = "confusion.png" if part in ("val", "test") else f"confusion-{part}.png"
        path = self.run_dir and self.run_dir / file
        publish(figure, f"{part}/confusion", self.trainer.global_step, self.trainer.loggers, path)
