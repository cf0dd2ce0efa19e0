"""What every task shares: normalisation, the training step, metrics of an epoch, and the check for NaN."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning import LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torchmetrics import MetricCollection
from typing_extensions import override

from tlkit.data.batch import Batch
from tlkit.models.network import Network
from tlkit.optim import build_optimizer
from tlkit.paths import Config
from tlkit.tasks.diagnosis import explain
from tlkit.tasks.from_data import datamodule_of, statistics_of
from tlkit.tasks.loss_meter import LossMeter
from tlkit.tasks.meter import Meter, named, names
from tlkit.tasks.normalisation import Normalisation, checked

TRAIN_LOSS = "train/loss"


class Task(LightningModule, ABC):
    """A network, its loss and its metrics.

    Attributes:
        monitor: the validation metric that selects the checkpoint; final once `adapt` has seen the data.
        monitor_mode: whether more of it is better.
        default_optimizer: as YAML has it; what trains where none is given.
        evaluate_before: whether a transfer stage is tested before its fit as well.
        transferred: names of the layers copied from a pretrain; None: unknown.
        run_dir: where pictures are written; None: nowhere.
        phase_prefix: what a test's metrics are logged under: ``test``, or ``before`` for a test before the fit.
        normalised: whether `input_mean` and `input_std` are final: given, copied from a pretrain, or from a checkpoint.
    """

    monitor: str
    monitor_mode: Literal["min", "max"]
    evaluate_before: bool = False
    # not in the signature: the parser would hand its arguments on to whichever class the YAML names
    default_optimizer: ClassVar[Config] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}
    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self,
        network: Network | nn.Module,
        optimizer: OptimizerCallable | None = None,
        lr_scale: dict[str, float] | None = None,
        decay_norm_and_bias: bool = True,
        normalisation: Normalisation | None = None,
    ) -> None:
        """Wires a network to an optimizer.

        Args:
            network: from normalised inputs ``(B, C, H, W)`` to the task's output.
            optimizer: takes parameter groups, returns an optimizer; `default_optimizer` if None.
            lr_scale: layer, group or glob -> its rate relative to ``lr``; 1 where not named.
            decay_norm_and_bias: whether weight decay also pulls normalisation parameters and biases.
            normalisation: of the input; None: the pretrain's, or from scratch that of the training images.
        """
        super().__init__()
        self.network = network
        self.optimizer = optimizer or partial(SGD, **self.default_optimizer["init_args"])
        self.lr_scale = lr_scale
        self.decay_norm_and_bias = decay_norm_and_bias
        self.transferred: list[str] | None = None
        self.run_dir: Path | None = None
        self.phase_prefix = "test"
        self.normalised = False
        self.register_buffer("input_mean", torch.zeros(1, 1, 1))
        self.register_buffer("input_std", torch.ones(1, 1, 1))
        if normalisation is not None:
            self.set_normalisation(normalisation.mean, normalisation.std)
        self._train_loss = LossMeter()
        self._meters: list[Meter] = []
        self._last_logged_step = -1

    @abstractmethod
    def adapt(self, datamodule: LightningDataModule) -> None:
        """Takes from the data module what the metrics need. Idempotent; `setup` calls it."""

    @abstractmethod
    def criterion(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of the network's output, a scalar: the mean over the batch."""

    @abstractmethod
    def prediction(self, output: Tensor) -> Tensor:
        """Turns the network's output into what a user asks for: probabilities, or an image."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Returns fresh metrics, by name without a prefix."""

    @abstractmethod
    def measure(self, meter: Meter, batch: Batch, output: Tensor) -> None:
        """Adds the network's output for one batch, float32, to the metrics."""

    @abstractmethod
    def draw(self, part: str, meter: Meter) -> None:
        """Draws what the metrics of the stage's own domain show, after each validation (``val``) and test."""

    def set_normalisation(self, mean: Iterable[float] | Tensor, std: Iterable[float] | Tensor) -> None:
        """Fixes the normalisation of the input: one mean and one positive standard deviation per channel."""
        means, stds = checked(mean, std)
        with torch.inference_mode(False):  # a test may come first; buffers made in it could not be trained with
            self.input_mean = means.clone().to(self.input_mean).view(-1, 1, 1)
            self.input_std = stds.clone().to(self.input_std).view(-1, 1, 1)
        self.normalised = True

    def normalise(self, x: Tensor) -> Tensor:
        """Normalises inputs ``(B, C, H, W)`` per channel."""
        return (x - self.input_mean).div_(self.input_std)  # in place: on a CPU new memory costs more than arithmetic

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Applies the network to inputs ``(B, C, H, W)``, float32, as the data module converts them."""
        out: Tensor = self.network(self.normalise(x))
        return out

    @override
    def configure_optimizers(self) -> Optimizer:
        """Builds the optimizer over named groups, once."""
        return build_optimizer(self.network, self.optimizer, self.lr_scale, self.decay_norm_and_bias)

    @override
    def setup(self, stage: str) -> None:
        """Takes what it needs from the data module; measures the normalisation for a fit from scratch."""
        if stage != "predict":
            self.adapt(datamodule_of(self.trainer))
        if stage == "fit":
            self._require_normalisation()

    @override
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss; a check on an accelerator waits for it only every ``log_every_n_steps`` steps."""
        loss = self.criterion(self(batch.input), batch.target)
        trainer, step = self.trainer, self.trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        due = every > 0 and (step + 1) % every == 0
        self._train_loss.add(loss, batch, step)
        if due or loss.device.type == "cpu" or trainer.is_last_batch:
            self._flush(self._train_loss, "training loss", batch)
        if due and step != self._last_logged_step:  # several batches share a step where gradients accumulate
            self._last_logged_step = step
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": self._train_loss.latest}, step=step)
        return loss

    @override
    def on_train_epoch_start(self) -> None:
        """Starts the epoch's mean loss."""
        self._train_loss = LossMeter()
        self._last_logged_step = -1

    @override
    def on_train_epoch_end(self) -> None:
        """Logs the mean loss over the epoch's samples."""
        mean = self.mean_train_loss()
        if mean is not None:
            self._log({TRAIN_LOSS: mean})

    def mean_train_loss(self) -> float | None:
        """Returns the mean loss over the epoch's samples of all processes so far; None before the first."""
        self._flush(self._train_loss, "training loss", None)
        return self._train_loss.mean(self.trainer.strategy)

    def logged(self) -> list[str]:
        """Returns the names of what training and validation log, once `adapt` has seen the data."""
        return [TRAIN_LOSS, *names("val", self.metrics())]

    @override
    def on_validation_epoch_start(self) -> None:
        """Starts the epoch's metrics."""
        self._start([""])

    @override
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the metrics."""
        self._evaluate(self._meters[0], batch, "validation loss")

    @override
    def on_validation_epoch_end(self) -> None:
        """Logs ``val/…``."""
        self._finish("val", "validation loss")

    @override
    def on_test_epoch_start(self) -> None:
        """Starts one set of metrics per domain."""
        loaders = self.trainer.test_dataloaders
        self._start([str(name) for name in loaders] if isinstance(loaders, Mapping) else [""])

    @override
    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics of its domain."""
        self._evaluate(self._meters[dataloader_idx], batch, "test loss")

    @override
    def on_test_epoch_end(self) -> None:
        """Logs ``test/…`` of the stage's own domain and, if there are several, ``test/…/<domain>`` of each."""
        self._finish(self.phase_prefix, "test loss")

    @override
    def on_predict_start(self) -> None:
        """Makes sure that a network that was never trained sees normalised inputs."""
        self._require_normalisation()

    @override
    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Returns probabilities ``(B, classes, …)`` or restored images ``(B, C, H, W)``."""
        return self.prediction(self(batch.input).float())

    def _require_normalisation(self) -> None:
        if not self.normalised:
            self.set_normalisation(*statistics_of(datamodule_of(self.trainer)))

    def _start(self, domains: list[str]) -> None:
        self._require_normalisation()
        # Those of the epoch before, if there are as many: building them takes as long as validating some batches.
        kept = [meter.metrics for meter in self._meters] if len(self._meters) == len(domains) else []
        for metrics in kept:
            metrics.reset()
        new = kept or [self.metrics() for _ in domains]
        self._meters = [Meter(domain, some.to(self.device)) for domain, some in zip(domains, new, strict=True)]

    def _evaluate(self, meter: Meter, batch: Batch, what: str) -> None:
        output = self(batch.input)
        meter.loss.add(self.criterion(output, batch.target), batch, self.trainer.global_step)
        if output.device.type == "cpu":
            self._flush(meter.loss, what, batch)
        with torch.autocast(output.device.type, enabled=False):  # metrics are exact whatever the network's precision
            self.measure(meter, batch, output.float())

    def _finish(self, prefix: str, what: str) -> None:
        for meter in self._meters:
            self._flush(meter.loss, what, None)
        results = named(prefix, self._meters, self.trainer.strategy)
        self._log(results)
        if results and not self.trainer.sanity_checking:
            self.draw(prefix, self._meters[0])

    def _flush(self, meter: LossMeter, what: str, batch: Batch | None) -> None:
        bad = meter.flush()
        if bad is not None:
            with self.trainer.precision_plugin.forward_context():
                raise explain(what, bad, batch, self.normalise, self.network)

    def _log(self, values: Mapping[str, float | Tensor]) -> None:
        several = self.trainer.world_size > 1
        for name, value in values.items():
            self.log(name, value, prog_bar=name in (self.monitor, TRAIN_LOSS), sync_dist=several)

    @override
    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Takes the normalisation's number of channels from the checkpoint, and with it the normalisation as final."""
        for name in ("input_mean", "input_std"):
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
                self.normalised = True
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
