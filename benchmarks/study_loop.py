"""The runs of a study in plain torch, as one would write them by hand: one loop, with weights and images in memory.

Run by ``study.py`` as ``python study_loop.py JOB.json OUT``; imports nothing of tlkit or Lightning. Like tlkit, it
keeps the weights of the epoch with the best validation accuracy and tests those, once; unlike tlkit, it writes nothing
but them and the accuracy. So that weights are comparable to the last bit, samples come in tlkit's order and dropout
draws from tlkit's seeds.
"""

import hashlib
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Run = dict[str, Any]


@dataclass
class Clock:
    """Seconds of a run's parts."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str):  # noqa: ANN204
        """Adds to the seconds of a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


@dataclass
class Trained:
    """What a transfer starts from: modules with weights, and the normalisation of the input."""

    layers: list[nn.Module]
    mean: Tensor
    std: Tensor


class Data:
    """Images ``(N, 1, H, W)`` uint8 and labels ``(N,)`` of the whole data set, memory-mapped."""

    def __init__(self, job: dict[str, Any]) -> None:
        """Opens both."""
        self.images = np.load(job["images"], mmap_mode="r")
        self.labels = np.load(job["labels"])
        self.kept: dict[tuple[float, ...], Tensor] = {}

    def pixels(self, rows: list[int]) -> Tensor:
        """Returns images ``(n, 1, H, W)`` float32 in [0, 1]."""
        return torch.from_numpy(np.take(self.images, rows, axis=0)).float() / 255

    def normalised(self, rows: list[int], mean: Tensor, std: Tensor) -> Tensor:
        """Returns images ``(n, 1, H, W)``, which the runs of a split share as far as they can."""
        key = (*rows, *mean.tolist())
        if key not in self.kept:
            self.kept[key] = self.pixels(rows).sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
        return self.kept[key]

    def targets(self, rows: list[int], classes: list[int]) -> Tensor:
        """Returns labels ``(n,)`` counted within the stage's classes."""
        place = {label: number for number, label in enumerate(classes)}
        return torch.tensor([place[int(label)] for label in self.labels[rows]])


def alexnet(channels: list[int], fc: int, pool: int, dropout: float, classes: int) -> nn.Sequential:
    """Returns a narrow AlexNet for grey images, with Kaiming normal weights and zero biases."""
    c1, c2, c3, c4, c5 = channels
    network = nn.Sequential(
        *(nn.Conv2d(1, c1, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(c2, c3, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c3, c4, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(c4, c5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2)),
        *(nn.AdaptiveAvgPool2d(pool), nn.Flatten()),
        *(nn.Dropout(dropout), nn.Linear(c5 * pool * pool, fc), nn.ReLU(inplace=True)),
        *(nn.Dropout(dropout), nn.Linear(fc, fc), nn.ReLU(inplace=True)),
        nn.Linear(fc, classes),
    )
    for layer in weighted(network):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    return network


def weighted(network: nn.Sequential) -> list[nn.Module]:
    """Returns conv1 to conv5 and fc6 to fc8."""
    return [module for module in network if isinstance(module, (nn.Conv2d, nn.Linear))]


def statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of images ``(n, 1, H, W)``, summed in tlkit's order."""
    total = square = torch.zeros(1, dtype=torch.float64)
    for chunk in pixels.split(256):
        x = chunk.double()
        total, square = total + x.sum((0, 2, 3)), square + x.square().sum((0, 2, 3))
    mean = total / pixels.numel()
    return mean.float(), (square / pixels.numel() - mean.square()).sqrt().float()


def draw(*parts: object) -> int:
    """Returns the 64 bits that tlkit draws for these names."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


@torch.no_grad()
def accuracy(network: nn.Sequential, images: Tensor, target: Tensor, batch: int) -> float:
    """Returns the share of images that are classified right, float32."""
    network.eval()
    batches = zip(images.split(batch), target.split(batch), strict=True)
    right = sum((network(some).argmax(1) == wanted).sum() for some, wanted in batches)
    network.train()
    return (right / torch.tensor(float(len(target)))).item()


def train(run: Run, data: Data, job: dict[str, Any], source: Trained | None, out: Path) -> tuple[Run, Trained]:
    """Carries a run out; returns its accuracy and seconds, and what others may start from."""
    clock, batch = Clock(), run["batch_size"]
    with clock("setup"):
        target = {part: data.targets(rows, run["classes"]) for part, rows in run["rows"].items()}
        mean, std = (source.mean, source.std) if source else statistics(data.pixels(run["rows"]["train"]))
        images = {part: data.normalised(rows, mean, std) for part, rows in run["rows"].items()}
        torch.manual_seed(run["seed"])
        network = alexnet(**job["network"], classes=len(run["classes"]))
        for layer, trained in zip(weighted(network)[: run["layers"]], source.layers if source else (), strict=False):
            layer.load_state_dict(trained.state_dict())
        optimizer = torch.optim.SGD(network.parameters(), foreach=True, **run["sgd"])
    best, best_weights, step = -1.0, {}, 0
    for epoch in range(run["epochs"]):
        with clock("train"):
            optimizer.param_groups[0]["lr"] = run["sgd"]["lr"] * run["decay_factor"] ** (epoch // run["decay_every"])
            generator = torch.Generator().manual_seed(draw("order", run["seed"], epoch) >> 1)
            for rows in torch.randperm(len(target["train"]), generator=generator).split(batch):
                torch.default_generator.manual_seed(draw("batch", run["seed"], step) % (1 << 32))
                loss = F.cross_entropy(network(images["train"][rows]), target["train"][rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
        with clock("validate"):
            reached = accuracy(network, images["val"], target["val"], batch)
        if reached > best:
            best, best_weights = reached, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(best_weights)
    with clock("test"):
        tested = accuracy(network, images["test"], target["test"], batch)
    with clock("checkpoint"):
        torch.save(best_weights, out / f"{run['id']}.pt")
    return {"accuracy": tested, "seconds": clock.seconds}, Trained(weighted(network), mean, std)


def main() -> None:
    """Trains each pretrain, and after it the runs that start from it or from nothing."""
    job, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    data, results = Data(job), {}
    for group in job["groups"]:
        run = group["pretrain"]
        results[run["id"]], pretrained = train(run, data, job, None, out)
        for run in group["transfers"]:
            source = pretrained if run["layers"] else None
            results[run["id"]], _ = train(run, data, job, source, out)
        data.kept.clear()
    (out / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
