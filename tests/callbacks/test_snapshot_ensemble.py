"""SnapshotEnsemble: its members and their average, against softmaxes averaged by hand."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ensemble_by_hand import Foreign, Reseed, Watch, by_hand, data
from foreign_module import trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from tlkit_callbacks.cyclic_cosine import CyclicCosine
from tlkit_callbacks.snapshot_ensemble import SnapshotEnsemble
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from toy import ToyData, ToyNet
from two_processes import gloo

from tlkit.tasks import Classification


def test_members_and_their_average_on_validation_and_test_are_what_numpy_says(tmp_path: Path) -> None:
    watch, ensemble = Watch(), SnapshotEnsemble()
    logger = CSVLogger(tmp_path)
    module = Foreign(lr=0.5)
    running = trainer(tmp_path, ensemble, CyclicCosine(3), watch, epochs=4, logger=logger, log_every_n_steps=1)
    running.fit(module, data(1), data(2, 10))
    (reported,) = running.test(module, data(3), verbose=False)
    summary, states = ensemble.summary(), [watch.after[update] for update in (4, 8, 12)]
    assert summary["updates"] == [4, 8, 12]
    assert summary["val"] == by_hand(states, data(2, 10))
    assert summary["test"] == by_hand(states, data(3))
    assert len(set(summary["val"]["member_cross_entropy"])) == 3
    assert reported["test/ensemble_accuracy"] == pytest.approx(summary["test"]["accuracy"])
    assert reported["test/member_3_accuracy"] == pytest.approx(summary["test"]["member_accuracy"][2])
    logged = list(csv.DictReader(Path(logger.log_dir, "metrics.csv").read_text().splitlines()))
    (row,) = [row for row in logged if row["val/ensemble_cross_entropy"]]
    assert float(row["val/ensemble_cross_entropy"]) == summary["val"]["cross_entropy"]
    assert float(row["val/member_1_accuracy"]) == summary["val"]["member_accuracy"][0]
    assert json.loads(json.dumps(summary)) == summary


class Fixed(LightningModule):
    """Its logits are one parameter, set by hand after each epoch."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = rows
        self.logits = nn.Parameter(torch.zeros(len(rows[0])))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.logits.sum() * 0

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def on_train_batch_end(self, *_: Any) -> None:
        self.logits.data = torch.tensor(self.rows[self.current_epoch])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_probabilities_are_averaged_and_not_logits(tmp_path: Path) -> None:
    # one member is very sure of class 0, two are rather sure of class 1: 7/3 logits for 0, but a mean of 0.45
    module, ensemble = Fixed([[10.0, 0.0], [-1.5, 0.0], [-1.5, 0.0]]), SnapshotEnsemble(last_epochs=3)
    ones = DataLoader(TensorDataset(torch.zeros(4, 1), torch.ones(4, dtype=torch.int64)), batch_size=4)
    trainer(tmp_path, ensemble, epochs=3).fit(module, ones, ones)
    val = ensemble.summary()["val"]
    assert val["member_accuracy"] == [0.0, 1.0, 1.0]
    assert val["accuracy"] == 1.0
    sigmoid = [1 / (1 + np.exp(-x)) for x in (10.0, -1.5, -1.5)]
    assert val["cross_entropy"] == pytest.approx(-np.log(1 - np.mean(sigmoid)), rel=1e-6)


def test_a_member_that_is_certain_and_wrong_leaves_the_numbers_finite(tmp_path: Path) -> None:
    module, ensemble = Fixed([[1e4, 0.0], [1e4, 0.0]]), SnapshotEnsemble(last_epochs=2)
    ones = DataLoader(TensorDataset(torch.zeros(4, 1), torch.ones(4, dtype=torch.int64)), batch_size=4)
    trainer(tmp_path, ensemble).fit(module, ones, ones)
    assert ensemble.summary()["val"]["cross_entropy"] == 1e4


@pytest.mark.parametrize(
    ("arguments", "cycles", "window", "updates"),
    [
        ({"last_epochs": 2}, None, 1, [9, 12]),
        ({"last_epochs": 9}, None, 1, [3, 6, 9, 12]),
        ({"last_epochs": 2}, None, 2, [6, 8]),  # a window of two batches and a partial one per epoch
        ({}, 4, 1, [3, 6, 9, 12]),
        ({"keep": 2}, 4, 1, [9, 12]),
        ({}, 4, 2, [2, 4, 6, 8]),
        ({}, 8, 2, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"keep": 3}, 5, 2, [4, 6, 8]),  # ends of cycles: 8·k/5, rounded down
    ],
)
def test_snapshots_are_the_weights_at_the_ends_of_cycles_or_epochs(
    arguments: dict[str, Any], cycles: int | None, window: int, updates: list[int], tmp_path: Path
) -> None:
    watch, ensemble = Watch(), SnapshotEnsemble(**arguments)
    schedule = [] if cycles is None else [CyclicCosine(cycles)]
    trainer(tmp_path, watch, ensemble, *schedule, epochs=4, accumulate_grad_batches=window).fit(
        Foreign(), data(1), data(2)
    )
    states = list(ensemble.state_dict()["snapshots"].values())
    assert ensemble.summary()["updates"] == updates
    for update, state in zip(updates, states, strict=True):
        assert all(torch.equal(value, watch.after[update][key]) for key, value in state.items())


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_members_run_in_the_trainers_precision_and_are_averaged_in_float32(precision: Any, tmp_path: Path) -> None:
    class InPrecision(Foreign):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                return super().forward(x.to(self.norm1.weight.dtype))

    watch, ensemble, module = Watch(), SnapshotEnsemble(), Foreign(lr=0.5)
    trainer(tmp_path, watch, ensemble, CyclicCosine(2), precision=precision).fit(module, data(1), data(2))
    twin = InPrecision().to(module.norm1.weight.dtype)
    assert ensemble.summary()["val"] == by_hand([watch.after[3], watch.after[6]], data(2), twin)


def test_batches_are_what_the_modules_own_hooks_make_of_them(tmp_path: Path) -> None:
    class TakesDicts(Foreign):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [batch["image"], batch["label"]]

    def dicts(seed: int) -> DataLoader[Any]:
        rows = [{"image": image, "label": label} for image, label in data(seed).dataset]
        return DataLoader(rows, batch_size=4)  # type: ignore[arg-type]

    watch, ensemble = Watch(), SnapshotEnsemble()
    trainer(tmp_path, watch, ensemble, CyclicCosine(2)).fit(TakesDicts(), dicts(1), dicts(2))
    assert ensemble.summary()["val"] == by_hand([watch.after[3], watch.after[6]], data(2))


def test_a_run_that_is_stopped_early_is_evaluated_with_what_it_has(tmp_path: Path) -> None:
    watch, ensemble, module = Watch(), SnapshotEnsemble(last_epochs=2), Foreign(lr=0.5)
    module.on_validation_epoch_end = lambda: module.log("epoch", float(module.current_epoch))  # type: ignore[method-assign]
    trainer(tmp_path, EarlyStopping("epoch", patience=2), ensemble, watch, epochs=9).fit(module, data(1), data(2))
    assert ensemble.summary()["updates"] == [6, 9]
    assert ensemble.summary()["val"] == by_hand([watch.after[6], watch.after[9]], data(2))


def test_a_run_that_ends_before_the_first_cycle_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, running: Any, *_: Any) -> None:
            running.should_stop = running.global_step == 2

    ensemble, module = SnapshotEnsemble(), Foreign()
    running = trainer(tmp_path, CyclicCosine(1), Stop(), ensemble, epochs=3, min_epochs=0)
    running.fit(module, data(1), data(2))
    running.test(module, data(3), verbose=False)
    assert "before its first snapshot" in caplog.text
    assert ensemble.summary() == {"updates": [], "val": None, "test": None}


def test_steps_that_a_scaler_skips_do_not_cost_the_last_member(tmp_path: Path) -> None:
    from lightning.pytorch.plugins.precision import MixedPrecision

    class Overflows(Foreign):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * float("inf") if self.global_step == 1 else loss

    watch, ensemble = Watch(), SnapshotEnsemble()
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=8.0))
    running = trainer(tmp_path, watch, ensemble, CyclicCosine(2), plugins=[plugin])
    running.fit(Overflows(), data(1), data(2))
    assert ensemble.summary()["updates"] == [3, 5]
    last = list(ensemble.state_dict()["snapshots"].values())[-1]
    assert torch.equal(last["fc.weight"], watch.after[6]["fc.weight"])


def test_without_validation_data_there_is_the_test(tmp_path: Path) -> None:
    watch, ensemble = Watch(), SnapshotEnsemble()
    module, running = Foreign(), trainer(tmp_path, watch, ensemble, CyclicCosine(2), limit_val_batches=0)
    running.fit(module, data(1), data(2))
    running.test(module, data(3), verbose=False)
    assert ensemble.summary()["val"] is None
    assert ensemble.summary()["test"] == by_hand([watch.after[3], watch.after[6]], data(3))


def test_of_several_loaders_the_first_counts_up_to_the_trainers_limit(tmp_path: Path) -> None:
    watch, ensemble = Watch(), SnapshotEnsemble()
    running = trainer(tmp_path, watch, ensemble, CyclicCosine(2), limit_val_batches=2, limit_test_batches=1)
    module = Foreign()
    running.fit(module, data(1), data(2))
    running.test(module, {"own": data(3), "other": data(4)}, verbose=False)  # type: ignore[arg-type]
    states = [watch.after[3], watch.after[6]]
    assert ensemble.summary()["val"] == by_hand(states, list(data(2))[:2])
    assert ensemble.summary()["test"] == by_hand(states, list(data(3))[:1])


def test_a_test_before_the_fit_evaluates_no_ensemble(tmp_path: Path) -> None:
    ensemble = SnapshotEnsemble(last_epochs=2)
    (reported,) = trainer(tmp_path, ensemble).test(Foreign(), data(3), verbose=False)
    assert not reported and ensemble.summary() == {"updates": [], "val": None, "test": None}


def test_a_compiled_network_has_the_same_ensemble(tmp_path: Path) -> None:
    summaries = []
    for compiled in (False, True):
        torch.manual_seed(0)
        module = Classification(ToyNet(num_classes=4, in_channels=1))
        if compiled:
            module.network = torch.compile(module.network, backend="eager")  # type: ignore[assignment]
        ensemble = SnapshotEnsemble(last_epochs=2)
        trainer(tmp_path, ensemble, Reseed()).fit(module, ToyData(cache_dir=str(tmp_path)))
        summaries.append(ensemble.summary())
    assert summaries[0] == summaries[1]


class NoNorm(Foreign):
    """Without what depends on the other samples of a batch."""

    def __init__(self) -> None:
        super().__init__(lr=0.5)
        self.norm1, self.norm2, self.drop = nn.Identity(), nn.Identity(), nn.Identity()  # type: ignore[assignment]


def on_two_processes(rank: int, path: str) -> tuple[dict[str, Any], dict[int, dict[str, Any]]]:
    watch, ensemble, module = Watch(), SnapshotEnsemble(), NoNorm()
    running = trainer(path, watch, ensemble, CyclicCosine(2), strategy="ddp", devices=2)
    running.fit(module, data(1), data(2))
    running.test(module, data(3), verbose=False)
    states = {update: {k: v.tolist() for k, v in watch.after[update].items()} for update in (2, 4)}
    return ensemble.summary(), states


def test_two_processes_evaluate_all_samples(tmp_path: Path) -> None:
    first, second = gloo(on_two_processes, str(tmp_path))
    assert first == second
    summary, lists = first
    states = [{key: torch.tensor(value) for key, value in lists[update].items()} for update in (2, 4)]
    assert summary["updates"] == [2, 4]
    assert summary["val"] == by_hand(states, data(2), NoNorm())
    assert summary["test"] == by_hand(states, data(3), NoNorm())
