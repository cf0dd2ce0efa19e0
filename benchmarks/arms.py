"""The four ways to train one workload: tlkit, a hand-written loop, Lightning with its defaults, Lightning barebones."""

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Sampler, TensorDataset
from workload import LEARNING_RATE, MEAN, MOMENTUM, STD, Workload, tensors

from tlkit.cli import main
from tlkit.models.alexnet import AlexNet

SGD_ARGUMENTS = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "foreach": True}


@dataclass
class Outcome:
    """One fit.

    Attributes:
        laps: seconds of each epoch.
        parameters: of the trained network, in its order.
    """

    laps: list[float]
    parameters: list[Tensor]


@dataclass
class Recording:
    """What a run of tlkit did, for the others to repeat.

    Attributes:
        initial: the network's parameters before the first step.
        orders: of each epoch, the ``(N,)`` samples in the order in which it took them.
    """

    initial: dict[str, Tensor]
    orders: list[Tensor]


class Stopwatch(Callback):
    """Seconds of each epoch from before its first batch is fetched to after its last step; no hook per step."""

    latest: ClassVar["Stopwatch"]

    def __init__(self) -> None:
        """Starts without laps; the newest stopwatch is `latest`, since tlkit builds its own from the YAML."""
        Stopwatch.latest = self
        self.laps: list[float] = []
        self.parameters: list[Tensor] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts a lap."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends it; it is called before checkpoints are written."""
        self.laps.append(time.perf_counter() - self._start)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the trained parameters."""
        self.parameters = _copy(pl_module.network)

    @property
    def outcome(self) -> Outcome:
        """The fit that it has seen."""
        return Outcome(self.laps, self.parameters)


class Witness(Stopwatch):
    """Records what the other arms are to repeat."""

    def __init__(self) -> None:
        """Starts empty."""
        super().__init__()
        self.initial: dict[str, Tensor] = {}
        self.batches: list[list[Tensor]] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keeps the initial parameters."""
        self.initial = deepcopy(pl_module.network.state_dict())

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins an order."""
        self.batches.append([])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Notes a batch."""
        self.batches[-1].append(batch.sample)


class Bench:
    """Trains one workload in each way, from the same parameters, on the same batches."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        """Lets tlkit train once, uncounted, and records what it does.

        Args:
            workload: what is trained.
            folder: for the store, runs and logs.
        """
        self.workload = workload
        self.folder = folder
        self.images, self.target = tensors(workload)  # (N, 3, H, W) float32, (N,) int64
        self.tlkit("Witness")
        witness = Stopwatch.latest
        assert isinstance(witness, Witness)
        self.recording = Recording(witness.initial, [torch.cat(batches) for batches in witness.batches])

    def tlkit(self, callback: str = "Stopwatch") -> Outcome:
        """Runs ``tlkit fit``: packed store, task, recorder, TensorBoard, progress bar; batch conversion in the loop."""
        w, path = self.workload, self.folder / "tlkit.yaml"
        data = {"samples": w.samples, "image_size": w.image_size, "batch_size": w.batch_size}
        task = {
            "network": {"class_path": "AlexNet", "init_args": w.network},
            "optimizer": {"class_path": "SGD", "init_args": SGD_ARGUMENTS},
            "normalisation": {"mean": [MEAN] * 3, "std": [STD] * 3},
        }
        config = {
            "model": {"class_path": "Classification", "init_args": task},
            "data": {
                "class_path": "workload.NoiseImages",
                "init_args": {**data, "cache_dir": str(self.folder / "cache")},
            },
            "trainer": {
                "max_epochs": w.epochs,
                "accelerator": "cpu",
                "callbacks": [{"class_path": f"arms.{callback}"}],
            },
            "runs": str(self.folder / "runs"),
        }
        path.write_text(yaml.safe_dump(config))
        code = main(["fit", "--config", str(path)])
        assert code == 0, f"tlkit fit --config {path}: exit code {code}"
        return Stopwatch.latest.outcome

    def by_hand(self) -> Outcome:
        """Runs the loop that one would write: normalised images in memory, one indexing operation per batch."""
        network = self._network()
        optimizer = torch.optim.SGD(network.parameters(), **SGD_ARGUMENTS)
        laps = []
        for order in self.recording.orders:
            start = time.perf_counter()
            for rows in order.split(self.workload.batch_size):
                loss = F.cross_entropy(network(self.images[rows]), self.target[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            laps.append(time.perf_counter() - start)
        return Outcome(laps, _copy(network))

    def lightning_defaults(self) -> Outcome:
        """Runs a plain Trainer on a TensorDataset, the loss logged to the progress bar as in Lightning's tutorials."""
        return self._lightning(log=True)

    def lightning_barebones(self) -> Outcome:
        """Runs ``Trainer(barebones=True)`` on the same loader: no logging, no progress bar, no checkpoints."""
        return self._lightning(log=False, barebones=True)

    def _lightning(self, log: bool, **arguments: Any) -> Outcome:
        stopwatch = Stopwatch()
        trainer = Trainer(
            max_epochs=self.workload.epochs,
            accelerator="cpu",
            callbacks=[stopwatch],
            default_root_dir=str(self.folder / "lightning"),
            **arguments,
        )
        loader = DataLoader(
            TensorDataset(self.images, self.target),
            batch_size=self.workload.batch_size,
            sampler=Replay(self.recording.orders),
        )
        trainer.fit(Plain(self._network(), log), loader)
        return stopwatch.outcome

    def _network(self) -> nn.Module:
        """Returns AlexNet's modules in a plain sequence, with the recorded initial parameters."""
        alexnet = AlexNet(**self.workload.network)
        alexnet.load_state_dict(self.recording.initial)
        return nn.Sequential(alexnet.features, alexnet.avgpool, nn.Flatten(), alexnet.classifier)


class Plain(LightningModule):
    """A module as in Lightning's tutorials."""

    def __init__(self, network: nn.Module, log: bool) -> None:
        """Stores the network.

        Args:
            network: from images to logits.
            log: whether to log the loss; barebones does not allow it.
        """
        super().__init__()
        self.network = network
        self.logs = log

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Returns the loss."""
        images, target = batch
        loss = F.cross_entropy(self.network(images), target)
        if self.logs:
            self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns SGD over all parameters."""
        return torch.optim.SGD(self.parameters(), **SGD_ARGUMENTS)


class Replay(Sampler[int]):
    """Gives the recorded order of each epoch, sample by sample, as a random sampler would."""

    def __init__(self, orders: list[Tensor]) -> None:
        """Starts before the first epoch.

        Args:
            orders: ``(N,)`` samples per epoch.
        """
        self._orders = iter(orders)
        self._samples = len(orders[0])

    def __len__(self) -> int:
        """Returns the number of samples per epoch."""
        return self._samples

    def __iter__(self) -> Iterator[int]:
        """Returns the next epoch's order."""
        return iter(next(self._orders).tolist())


def _copy(network: Any) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]
