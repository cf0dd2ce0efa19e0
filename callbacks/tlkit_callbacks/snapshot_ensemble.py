"""Average the class probabilities of several snapshots of one run."""

import logging
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.func import functional_call
from typing_extensions import override

from tlkit.errors import UserError
from tlkit_callbacks.updates import completed_updates, count_updates

log = logging.getLogger("tlkit")

Weights = dict[str, Tensor]
Part = Literal["val", "test"]


class SnapshotEnsemble(Callback):
    """Keeps snapshots of a run and evaluates the average of their class probabilities beside each of them.

    A snapshot is what the module holds, weights and buffers, at the end of each cycle of `CyclicCosine`, or of each of
    the last epochs. The ensemble predicts the class of the largest ``1/N · Σ P_i(y|x)``, P_i being the softmax of the
    logits of snapshot i. Its accuracy and cross-entropy (in nats) and those of its members are evaluated on the
    validation data when training ends, and after each test on the test data, on the first loader where there are
    several. They are logged as ``val/ensemble_accuracy``, ``val/member_1_accuracy``, …, ``test/…`` alike, and are in
    `summary`. Where the run keeps checkpoints, the snapshots are beside them as ``snapshot-1.ckpt``, ….

    It serves any module whose ``forward`` turns the first item of a batch ``(input, target, …)`` into logits ``(B,
    classes)``, with class indices ``(B,)`` as the target. The snapshots take N times the memory of the weights: in main
    memory, in every checkpoint of the run, and during an evaluation on the device.

    Source: equation 10.7; Huang et al., "Snapshot Ensembles: Train 1, Get M for Free" (2017, arXiv:1704.00109).

    Args:
        last_epochs: a snapshot at the end of each of the last so many epochs; null: at the end of each cycle.
        keep: of the cycles, so many of the last ones; null: all.

    Raises:
        UserError: an argument is less than 1, or both are given; at the start of a run: neither `CyclicCosine` nor
            `last_epochs`, or both; outputs or targets of the first validation batch (without validation: of the test)
            that are not those of a classification.
    """

    def __init__(self, last_epochs: int | None = None, keep: int | None = None) -> None:
        for name, value in {"last_epochs": last_epochs, "keep": keep}.items():
            if value is not None and value < 1:
                raise UserError(f"SnapshotEnsemble: expected {name} to be at least 1, got {value}")
        if last_epochs is not None and keep is not None:
            raise UserError("SnapshotEnsemble: expected `keep` for cycles only, got it with last_epochs; remove one")
        self.last_epochs = last_epochs
        self.keep = keep

    _snapshots: dict[int, Weights] | None = None
    """Number of completed updates -> weights and buffers then, on the CPU; set when a run starts."""
    _results: dict[str, dict[str, Any] | None]
    """``val`` and ``test`` -> what was evaluated; None: there is no such data."""

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuses what can be known to be wrong before anything is trained; see the class."""
        if (self.last_epochs is None) == (not _cyclic(trainer)):
            got = "neither" if self.last_epochs is None else "both"
            raise UserError(
                f"SnapshotEnsemble: expected either a CyclicCosine among the callbacks or last_epochs, got {got}; "
                "give {class_path: CyclicCosine, init_args: {cycles: 5}}, or last_epochs: 5 to the ensemble"
            )

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is restored
            self.check(trainer, pl_module)
            self._snapshots, self._results = {}, {}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count_updates(trainer)
        with _evaluating(trainer, pl_module):
            for batch in islice(_batches(trainer, pl_module, "val"), 1):  # refused now, not after all the training
                _log_probabilities(trainer, pl_module, [{}], batch)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.last_epochs is None and completed_updates(trainer) in _cyclic(trainer)[0].cycle_ends(trainer):
            self._take(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        complete = trainer.current_epoch + 1 == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if complete or self.last_epochs is not None:  # the last cycle's end is put off by steps that a scaler skips
            self._take(trainer, pl_module)
        if complete:
            self._validate(trainer, pl_module)  # already, so that the last checkpoint holds the result

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validate(trainer, pl_module)  # of a run that was stopped early

    @override
    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._snapshots and (metrics := self._evaluate(trainer, pl_module, "test")):
            pl_module.log_dict(metrics, sync_dist=trainer.world_size > 1)

    def _take(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._snapshots is not None
        update = completed_updates(trainer)
        if update in self._snapshots:  # a batch that accumulates, after the one that ended the cycle
            return
        state = pl_module.state_dict()
        self._snapshots[update] = {
            k: v.detach().to("cpu", copy=True) for k, v in state.items() if isinstance(v, Tensor)
        }
        for oldest in list(self._snapshots)[: -(self.keep or self.last_epochs or len(self._snapshots))]:
            del self._snapshots[oldest]
        self._results = {}

    def _validate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._snapshots:
            log.warning("SnapshotEnsemble: the run ended before its first snapshot; there is no ensemble to evaluate")
        elif "val" not in self._results:
            self._write(trainer)
            if metrics := self._evaluate(trainer, pl_module, "val"):
                for logger in trainer.loggers:
                    logger.log_metrics(metrics, step=trainer.global_step)

    def _write(self, trainer: Trainer) -> None:
        assert self._snapshots is not None
        directory = getattr(trainer.checkpoint_callback, "dirpath", None)
        if directory is not None:
            for number, weights in enumerate(self._snapshots.values(), 1):
                checkpoint = {"state_dict": weights, "pytorch-lightning_version": lightning.__version__}
                trainer.strategy.save_checkpoint(checkpoint, Path(directory, f"snapshot-{number}.ckpt"))

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, part: Part) -> dict[str, float]:
        """Evaluates members and ensemble, keeps the result and returns it as metrics by name; empty without data."""
        assert self._snapshots is not None
        members = [{k: v.to(pl_module.device) for k, v in weights.items()} for weights in self._snapshots.values()]
        sums = torch.zeros(3, len(members) + 1, device=pl_module.device)  # right, nats, samples; the ensemble is last
        with _evaluating(trainer, pl_module):
            for batch in _batches(trainer, pl_module, part):
                log_p, target = _log_probabilities(trainer, pl_module, members, batch)
                log_p = torch.cat([log_p, log_p.logsumexp(0, keepdim=True) - math.log(len(members))])  # (N + 1, B, C)
                right = (log_p.argmax(2) == target).sum(1)
                nats = -log_p[:, torch.arange(len(target)), target].sum(1)
                sums += torch.stack([right, nats, torch.full_like(nats, len(target))])
        right, nats, samples = trainer.strategy.reduce(sums, reduce_op="sum").tolist()
        if not samples[0]:
            self._results[part] = None
            return {}
        accuracies = [number / n for number, n in zip(right, samples, strict=True)]
        entropies = [number / n for number, n in zip(nats, samples, strict=True)]
        self._results[part] = {
            "accuracy": accuracies[-1],
            "cross_entropy": entropies[-1],
            "member_accuracy": accuracies[:-1],
            "member_cross_entropy": entropies[:-1],
        }
        names = [*(f"member_{number}" for number in range(1, len(accuracies))), "ensemble"]
        metrics = {f"{part}/{name}_accuracy": value for name, value in zip(names, accuracies, strict=True)}
        return metrics | {f"{part}/ensemble_cross_entropy": entropies[-1]}

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"snapshots": self._snapshots or {}, "results": self._results if self._snapshots else {}}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # after a fit, the test of an earlier checkpoint must not take the later snapshots away
        if max(state_dict["snapshots"], default=0) >= max(self._snapshots or {}, default=0):
            self._snapshots, self._results = state_dict["snapshots"], state_dict["results"]

    def summary(self) -> dict[str, Any]:
        """Returns after how many updates each member was taken, and the evaluations; None: there is no such data."""
        results = self._results if self._snapshots else {}
        return {"updates": list(self._snapshots or {}), "val": results.get("val"), "test": results.get("test")}


def _cyclic(trainer: Trainer) -> list[Any]:
    return [callback for callback in trainer.callbacks if hasattr(callback, "cycle_ends")]  # type: ignore[attr-defined]


@contextmanager
def _evaluating(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Puts trainer and module into evaluation, and back as they were, the global generators included."""
    stage, modes = trainer.state.stage, [(module, module.training) for module in pl_module.modules()]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        if trainer.training:  # data modules augment while the trainer trains
            trainer.validating = True
        pl_module.eval()
        with torch.no_grad(), torch.random.fork_rng([pl_module.device] if pl_module.device.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for module, mode in modes:
            module.training = mode
        trainer.state.stage = stage


def _batches(trainer: Trainer, pl_module: LightningModule, part: Part) -> Iterator[Any]:
    """Yields the batches of the first loader, as Lightning's own evaluation hands them to the module."""
    loaders = trainer.val_dataloaders if part == "val" else trainer.test_dataloaders
    limits = trainer.num_val_batches if part == "val" else trainer.num_test_batches
    if loaders is None or not limits:
        return
    loader = CombinedLoader(loaders, "sequential").flattened[0]
    for batch in islice(loader, None if limits[0] == math.inf else int(limits[0])):
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch)
        yield trainer.strategy.batch_to_device(batch)


def _log_probabilities(
    trainer: Trainer, pl_module: LightningModule, members: list[Weights], batch: Any
) -> tuple[Tensor, Tensor]:
    """Returns log-probabilities ``(N, B, classes)``, float32, in nats, of N members, and the targets ``(B,)``.

    Raises:
        UserError: outputs or targets are not those of a classification.
    """
    target = batch[1] if isinstance(batch, (tuple, list)) and len(batch) > 1 else None
    if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
        raise _refusal("batches (input, target, …) with class indices (B,) as the target", target)
    with trainer.precision_plugin.forward_context():
        # nothing is copied into the module, so nothing has to be copied back
        outputs = [functional_call(pl_module, weights, (batch[0],), tie_weights=False) for weights in members]
    if any(not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(target) for logits in outputs):
        raise _refusal(f"logits ({len(target)}, classes) from {type(pl_module).__name__}.forward", outputs[0])
    return torch.stack([logits.float().log_softmax(1) for logits in outputs]), target.long()


def _refusal(expected: str, got: Any) -> UserError:
    what = f"{got.dtype} {tuple(got.shape)}" if isinstance(got, Tensor) else f"{type(got).__name__}"
    return UserError(f"SnapshotEnsemble: expected a classification, {expected}, got {what}; remove SnapshotEnsemble")
