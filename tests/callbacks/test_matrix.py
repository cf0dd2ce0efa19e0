"""Every protocol in every circumstance ends in the weights of a hand-written loop.

The loop below knows nothing of tlkit: it takes the rates of each update, what is frozen and what is pulled where from a
table that transcribes what each protocol says.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import loader, trainer
from lightning.pytorch import Callback, LightningModule
from tlkit_callbacks import (
    L2SP,
    ChainThaw,
    ConstantRate,
    CosineDecay,
    CyclicCosine,
    EMAWeights,
    EnergyMonitor,
    ExponentialDecay,
    GradualUnfreezing,
    InitialDecay,
    InverseSqrtDecay,
    LayerFreezing,
    LinearDecay,
    LinearProbeThenFineTune,
    Moment,
    OneCycle,
    Phase,
    PolyakMean,
    ReduceOnPlateau,
    SnapshotEnsemble,
    StepDecay,
    SurgicalFineTuning,
    WeightUpdateRatio,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader
from two_processes import gloo

from tlkit.optim import build_optimizer

EPOCHS, BATCHES = 6, 3
LAYERS = ("conv1", "conv2", "fc")
LR, MOMENTUM, DECAY = 0.1, 0.9, 0.01


class Network(LightningModule):
    """Layers conv1 (with norm1), conv2 and fc; one named group per layer, or one for all."""

    def __init__(self, named: bool = True, decay: float = DECAY) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(3)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.fc = nn.Linear(3, 2)
        self.named, self.decay = named, decay

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(x)))
        out: Tensor = self.fc(torch.tanh(self.conv2(x)).mean((2, 3)))
        return out

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]).float(), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]).float(), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        make = partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM, weight_decay=self.decay)
        return build_optimizer(self, make) if self.named else make(self.parameters())


@dataclass
class Now:
    """What a protocol looks at: the number of the update, of all updates, and of the epoch."""

    update: int
    updates: int
    epoch: int


Rates = Callable[[Now], dict[str, float]]


def everywhere(factor: Callable[[Now], float]) -> Rates:
    return lambda now: dict.fromkeys(LAYERS, LR * factor(now))


def nothing(now: Now) -> set[str]:
    return set()


@dataclass
class Protocol:
    """Callbacks, and what they must amount to."""

    callbacks: Callable[[], list[Callback]]
    rates: Rates = everywhere(lambda now: 1.0)
    frozen: Callable[[Now], set[str]] = nothing
    momentum: Callable[[Now], float] = lambda now: MOMENTUM
    pull: dict[str, float] = field(default_factory=dict)
    average: Callable[[int], float] | None = None  # number of the averaging, from 0 -> share of the weights in it
    needs_names: bool = False


def progress(now: Now) -> float:
    return now.update / (now.updates - 1)


def one_cycle(now: Now) -> float:
    peak, low, end = 0.2, 0.2 / 10, 0.2 / 1e4
    t, up = now.update, 0.3 * (now.updates - 1)
    if t <= up:
        return (low + (peak - low) * (1 - math.cos(math.pi * t / up)) / 2) / LR
    return (end + (peak - end) * (1 + math.cos(math.pi * (t - up) / (now.updates - 1 - up))) / 2) / LR


def one_cycle_momentum(now: Now) -> float:
    t, up = now.update, 0.3 * (now.updates - 1)
    if t <= up:
        return 0.95 - 0.1 * (1 - math.cos(math.pi * t / up)) / 2
    return 0.85 + 0.1 * (1 - math.cos(math.pi * (t - up) / (now.updates - 1 - up))) / 2


def cyclic(now: Now) -> float:
    half = now.updates // 2
    return (1 + math.cos(math.pi * (now.update % half) / (half - 1))) / 2


def thawing(now: Now) -> set[str]:
    return {"conv1", "conv2"} if now.epoch < 2 else {"conv1"} if now.epoch < 4 else set()


def thawed_rates(now: Now) -> dict[str, float]:
    return {"fc": LR, "conv2": 0.1 * LR, "conv1": 0.1 * 0.5 * LR}


def chain(now: Now) -> set[str]:
    trained = [{"fc"}, {"conv1"}, {"conv2"}, set(LAYERS)][min(now.epoch, 3)]
    return set(LAYERS) - trained


PHASES = [Phase("fc"), Phase("conv2", epoch=2), Phase("conv1", epoch=4, rate=0.05)]
PROTOCOLS = {
    "nothing": Protocol(lambda: []),
    "LayerFreezing": Protocol(lambda: [LayerFreezing(1)], frozen=lambda now: {"conv1"}),
    "LayerFreezing, a window": Protocol(
        lambda: [LayerFreezing(["conv1", "conv2"], start=Moment(epoch=1), end=Moment(fraction=0.5))],
        frozen=lambda now: {"conv1", "conv2"} if now.epoch >= 1 and now.update < now.updates / 2 else set(),
    ),
    "GradualUnfreezing": Protocol(
        lambda: [GradualUnfreezing(phases=PHASES)], frozen=thawing, rates=thawed_rates, needs_names=True
    ),
    "GradualUnfreezing, full rate": Protocol(
        lambda: [
            GradualUnfreezing([Phase("fc"), Phase("conv2", epoch=2, rate=1.0), Phase("conv1", epoch=4, rate=1.0)])
        ],
        frozen=thawing,
    ),
    "LinearProbeThenFineTune": Protocol(
        lambda: [LinearProbeThenFineTune(head="fc", probe_epochs=3, rate=1.0)],
        frozen=lambda now: {"conv1", "conv2"} if now.epoch < 3 else set(),
    ),
    "ChainThaw": Protocol(lambda: [ChainThaw(head="fc", epochs_per_phase=1, rate=1.0)], frozen=chain),
    "SurgicalFineTuning": Protocol(lambda: [SurgicalFineTuning("conv2")], frozen=lambda now: {"conv1", "fc"}),
    "ConstantRate": Protocol(lambda: [ConstantRate()]),
    "StepDecay": Protocol(lambda: [StepDecay(every=2, factor=0.5)], everywhere(lambda now: 0.5 ** (now.epoch // 2))),
    "InitialDecay": Protocol(
        lambda: [InitialDecay(epochs=2, layers="fc"), StepDecay(every=4)],
        lambda now: {
            name: LR * (0.1 if now.epoch >= 4 else 1) * (0.1 if name == "fc" and now.epoch >= 2 else 1)
            for name in LAYERS
        },
        needs_names=True,
    ),
    "ExponentialDecay": Protocol(lambda: [ExponentialDecay(0.9)], everywhere(lambda now: 0.9**now.epoch)),
    "CosineDecay": Protocol(
        lambda: [CosineDecay()], everywhere(lambda now: (1 + math.cos(math.pi * progress(now))) / 2)
    ),
    "LinearDecay": Protocol(lambda: [LinearDecay()], everywhere(lambda now: 1 - progress(now))),
    "InverseSqrtDecay": Protocol(lambda: [InverseSqrtDecay()], everywhere(lambda now: 1 / math.sqrt(now.update + 1))),
    "OneCycle": Protocol(lambda: [OneCycle(peak_lr=0.2)], everywhere(one_cycle), momentum=one_cycle_momentum),
    "CyclicCosine and SnapshotEnsemble": Protocol(
        lambda: [CyclicCosine(cycles=2), SnapshotEnsemble()], everywhere(cyclic)
    ),
    "ReduceOnPlateau": Protocol(  # nothing gets better by 100, so it falls at the end of epochs 2 and 4
        lambda: [ReduceOnPlateau("val/loss", factor=0.5, patience=2, min_delta=100.0)],
        everywhere(lambda now: 1.0 if now.epoch < 3 else 0.5 if now.epoch < 5 else 0.25),
    ),
    "EMAWeights": Protocol(lambda: [EMAWeights(0.5)], average=lambda n: 0.5),
    "PolyakMean": Protocol(lambda: [PolyakMean()], average=lambda n: 1 / (n + 1)),
    "EMAWeights, raw": Protocol(lambda: [EMAWeights(0.5, evaluate="raw")]),
    "PolyakMean, raw": Protocol(lambda: [PolyakMean(evaluate="raw")]),
    "L2SP": Protocol(
        lambda: [L2SP(alpha=0.3, beta=0.02, layers=["conv1", "conv2"])],
        pull={"conv1": 0.3, "conv2": 0.3, "fc": 0.02},
    ),
    "WeightUpdateRatio": Protocol(lambda: [WeightUpdateRatio(every=1)]),
    "EnergyMonitor": Protocol(lambda: [EnergyMonitor()]),
    "several": Protocol(
        lambda: [
            LayerFreezing("conv1"),
            OneCycle(peak_lr=0.2),
            EMAWeights(0.5, evaluate="raw"),
            WeightUpdateRatio(every=2),
            EnergyMonitor(),
        ],
        everywhere(one_cycle),
        frozen=lambda now: {"conv1"},
        momentum=one_cycle_momentum,
    ),
}


def module_for(protocol: Protocol, named: bool = True) -> Network:
    return Network(named, decay=0.0 if protocol.pull else DECAY)


def reference(protocol: Protocol, accumulate: int = 1, bf16: bool = False, world: int = 1) -> dict[str, Tensor]:
    """Trains by hand; returns all weights and statistics."""
    module = module_for(protocol)
    modules = {"conv1": [module.conv1, module.norm1], "conv2": [module.conv2], "fc": [module.fc]}
    start = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    optimizers = {
        name: torch.optim.SGD(
            [p for part in modules[name] for p in part.parameters()], LR, MOMENTUM, weight_decay=module.decay
        )
        for name in LAYERS
    }
    windows = math.ceil(BATCHES / accumulate)
    was_frozen: set[str] = set()
    average = dict(start)
    for epoch in range(EPOCHS):
        for number, (x, y) in enumerate(loader()):
            now = Now(epoch * windows + number // accumulate, EPOCHS * windows, epoch)
            frozen, rates = protocol.frozen(now), protocol.rates(now)
            for name in LAYERS:
                for part in modules[name]:
                    part.requires_grad_(name not in frozen).train(name not in frozen)
                if name in frozen and name not in was_frozen:
                    optimizers[name].state.clear()
            was_frozen = frozen
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                loss = nn.functional.cross_entropy(module(x).float(), y)
            (loss / accumulate).backward()
            if (number + 1) % accumulate and number + 1 < BATCHES:
                continue
            for name in set(LAYERS) - frozen:
                for key, parameter in module.named_parameters():
                    if protocol.pull and any(parameter is p for part in modules[name] for p in part.parameters()):
                        target = start[key] if name != "fc" else torch.zeros_like(parameter)
                        assert parameter.grad is not None
                        parameter.grad += protocol.pull[name] * (parameter.detach() - target)
                optimizers[name].param_groups[0] |= {"lr": rates[name], "momentum": protocol.momentum(now)}
                optimizers[name].step()
            module.zero_grad()
            if protocol.average:
                share = protocol.average(now.update)
                average = {k: (1 - share) * average[k] + share * p.detach() for k, p in module.named_parameters()}
    return module.state_dict() | (average if protocol.average else {})


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-6) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def fit(protocol: Protocol, tmp_path: Path, named: bool = True, **arguments: Any) -> dict[str, Tensor]:
    module = module_for(protocol, named)
    trainer(tmp_path, *protocol.callbacks(), epochs=EPOCHS, **arguments).fit(module, loader(), loader())
    return module.state_dict()


each = pytest.mark.parametrize("name", PROTOCOLS)


def test_the_protocols_differ_in_what_they_lead_to() -> None:
    plain = reference(PROTOCOLS["nothing"])
    for name, protocol in PROTOCOLS.items():
        weights = reference(protocol)
        same = all(torch.equal(weights[key], value) for key, value in plain.items())
        assert same == (name in ("nothing", "ConstantRate", "WeightUpdateRatio", "EnergyMonitor") or "raw" in name)


@each
def test_plain(name: str, tmp_path: Path) -> None:
    assert_equal(fit(PROTOCOLS[name], tmp_path), reference(PROTOCOLS[name]))


@each
def test_one_unnamed_group(name: str, tmp_path: Path) -> None:
    if not PROTOCOLS[name].needs_names:
        assert_equal(fit(PROTOCOLS[name], tmp_path, named=False), reference(PROTOCOLS[name]))


@each
@pytest.mark.parametrize("windows", [2, 3])  # of 3 batches: the last one is partial, or a whole epoch
def test_accumulation(name: str, windows: int, tmp_path: Path) -> None:
    found = fit(PROTOCOLS[name], tmp_path, accumulate_grad_batches=windows)
    assert_equal(found, reference(PROTOCOLS[name], accumulate=windows))


@each
def test_bf16(name: str, tmp_path: Path) -> None:
    assert_equal(fit(PROTOCOLS[name], tmp_path, precision="bf16-mixed"), reference(PROTOCOLS[name], bf16=True), 1e-5)


@each
def test_a_resume_after_any_epoch_ends_in_the_same_bits(name: str, tmp_path: Path) -> None:
    protocol = PROTOCOLS[name]
    whole = fit(protocol, tmp_path)
    saver = _Saver(tmp_path)
    fit_module = module_for(protocol)
    trainer(tmp_path, *protocol.callbacks(), saver, epochs=EPOCHS).fit(fit_module, loader(), loader())
    for epoch in range(1, EPOCHS):
        resumed = module_for(protocol)
        again = trainer(tmp_path, *protocol.callbacks(), epochs=EPOCHS)
        again.fit(resumed, loader(), loader(), ckpt_path=tmp_path / f"{epoch}.ckpt", weights_only=True)
        assert not [key for key, value in resumed.state_dict().items() if not torch.equal(value, whole[key])], epoch


class _Saver(Callback):
    """Writes a checkpoint after every epoch, as ModelCheckpoint does at that moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch + 1}.ckpt")


@pytest.mark.parametrize("name", ["GradualUnfreezing", "several"])
def test_compiled(name: str, tmp_path: Path) -> None:
    module = module_for(PROTOCOLS[name])
    run = trainer(tmp_path, *PROTOCOLS[name].callbacks(), epochs=EPOCHS)
    run.fit(torch.compile(module, backend="eager"), loader(), loader())
    assert_equal(module.state_dict(), reference(PROTOCOLS[name]))


def _both_ranks(rank: int, folder: str) -> dict[str, dict[str, Any]]:
    """Trains every protocol on this rank's share of each batch."""
    ends = {}
    for name, protocol in PROTOCOLS.items():
        module = module_for(protocol)
        run = trainer(
            folder,
            *protocol.callbacks(),
            epochs=EPOCHS,
            strategy="ddp_find_unused_parameters_true",
            devices=2,
            sync_batchnorm=False,
            use_distributed_sampler=False,
        )
        run.fit(module, _share(rank), _share(rank))
        ends[name] = {key: value.numpy() for key, value in module.state_dict().items()}
    return ends


def _share(rank: int) -> DataLoader[Any]:
    batches: Any = [(x[rank::2], y[rank::2]) for x, y in loader()]
    return DataLoader(batches, batch_size=None)


def test_two_processes_end_in_the_same_weights(tmp_path: Path) -> None:
    first, second = gloo(_both_ranks, str(tmp_path))
    for name, ends in first.items():
        for key, value in ends.items():
            if "running" not in key and "tracked" not in key:  # batch statistics are those of a rank's own images
                assert (value == second[name][key]).all(), (name, key)
