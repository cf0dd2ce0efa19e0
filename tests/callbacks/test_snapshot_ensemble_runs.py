"""SnapshotEnsemble in a run: what it leaves alone, what it leaves behind, resumes, refusals."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Write
from ensemble_by_hand import Foreign, Reseed, Watch, by_hand, data
from foreign_module import changed, snapshot, trainer
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tlkit_callbacks.cyclic_cosine import CyclicCosine
from tlkit_callbacks.snapshot_ensemble import SnapshotEnsemble
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from toy import ToyData, ToyNet

from tlkit.cli import main
from tlkit.errors import UserError
from tlkit.runs import read_result
from tlkit.tasks import Classification


class DrawsNumbers(Foreign):
    """Each forward pass draws from all generators."""

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()
        return super().forward(x)


def generators() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]


def test_a_run_with_it_is_the_run_without_it_bit_for_bit(tmp_path: Path) -> None:
    found = []
    for ensemble in ([], [SnapshotEnsemble()]):
        random.seed(3), np.random.seed(3)
        module = DrawsNumbers(momentum=0.9)
        module.conv1.eval()  # modes are the user's
        running = trainer(tmp_path, CyclicCosine(2), *ensemble)
        running.fit(module, data(1), data(2))  # a loader draws a number when it is iterated
        modes = [m.training for m in module.modules()]
        found.append((snapshot(module), generators(), modes, running.optimizers[0].state_dict()))
    assert not changed(module, found[0][0])
    assert found[0][1:3] == found[1][1:3]
    assert not module.conv1.training and module.fc.training
    assert str(found[0][3]) == str(found[1][3])


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_exception_while_it_evaluates_leaves_everything_as_it_was(part: str, tmp_path: Path) -> None:
    class Fails(DrawsNumbers):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            if self.armed and self.conv1.weight is not own:  # in a member's place
                raise RuntimeError("on purpose")
            return logits

    class Arm(Callback):
        def arm(self, *_: Any) -> None:
            module.armed = True
            seen.extend([snapshot(module), generators(), [m.training for m in module.modules()]])

        on_train_end = arm if part == "val" else Callback.on_train_end
        on_test_epoch_end = arm if part == "test" else Callback.on_test_epoch_end

    seen: list[Any] = []
    module = Fails(lr=0.5)
    own = module.conv1.weight
    stop = EarlyStopping("epoch", patience=0, mode="min") if part == "val" else Callback()
    module.on_validation_epoch_end = lambda: module.log("epoch", float(module.current_epoch))  # type: ignore[method-assign]
    running = trainer(tmp_path, stop, Arm(), SnapshotEnsemble(last_epochs=2), epochs=9 if part == "val" else 2)
    with pytest.raises(RuntimeError, match="on purpose"):
        running.fit(module, data(1), data(2))
        running.test(module, data(3), verbose=False)
    assert module.conv1.weight is own and not changed(module, seen[0])
    assert (generators(), [m.training for m in module.modules()]) == (seen[1], seen[2])


def test_snapshots_are_files_of_plain_weights_which_lightning_tests_too(tmp_path: Path) -> None:
    watch, ensemble, keeper = Watch(), SnapshotEnsemble(keep=2), ModelCheckpoint(tmp_path / "kept")
    module, running = (
        Foreign(lr=0.5),
        trainer(tmp_path, watch, ensemble, CyclicCosine(3), keeper, enable_checkpointing=True),
    )
    running.fit(module, data(1), data(2))
    files = sorted((tmp_path / "kept").glob("snapshot-*"))
    assert [file.name for file in files] == ["snapshot-1.ckpt", "snapshot-2.ckpt"]
    for file, update in zip(files, (4, 6), strict=True):
        state = torch.load(file, weights_only=True)["state_dict"]
        assert all(torch.equal(value, watch.after[update][key]) for key, value in state.items())
    trainer(tmp_path).test(module, data(3), ckpt_path=files[0], weights_only=True, verbose=False)
    assert not changed(module, watch.after[4])


def test_testing_an_earlier_checkpoint_keeps_the_members_of_the_whole_run(tmp_path: Path) -> None:
    ensemble, module = SnapshotEnsemble(last_epochs=3), Foreign(lr=0.5)
    keeper = ModelCheckpoint(tmp_path / "kept", save_top_k=-1, filename="{epoch}")
    running = trainer(tmp_path, ensemble, keeper, epochs=3, enable_checkpointing=True)
    running.fit(module, data(1), data(2))
    running.test(module, data(3), ckpt_path=tmp_path / "kept" / "epoch=0.ckpt", weights_only=True, verbose=False)
    assert ensemble.summary()["updates"] == [3, 6, 9] and len(ensemble.summary()["test"]["member_accuracy"]) == 3
    fresh = SnapshotEnsemble(last_epochs=3)
    last = tmp_path / "kept" / "epoch=2.ckpt"
    trainer(tmp_path, fresh, keeper, enable_checkpointing=True).test(
        Foreign(), data(3), ckpt_path=last, weights_only=True, verbose=False
    )
    assert fresh.summary() == ensemble.summary()


@pytest.mark.parametrize("epochs", [1, 2, 4])
@pytest.mark.parametrize("source", ["cycles", "epochs"])
def test_a_resumed_run_ends_with_the_members_and_numbers_of_the_uninterrupted_one(
    source: str, epochs: int, tmp_path: Path
) -> None:
    class Interrupt(Callback):
        def on_train_epoch_end(self, running: Any, *_: Any) -> None:
            running.should_stop = running.current_epoch + 1 == epochs

    def fit(*callbacks: Callback, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any], Any]:
        torch.manual_seed(0)
        module = Classification(ToyNet(num_classes=4, in_channels=1))
        cycles = source == "cycles"
        ensemble = SnapshotEnsemble() if cycles else SnapshotEnsemble(last_epochs=2)
        more = [CyclicCosine(3)] if cycles else []
        running = trainer(tmp_path, ensemble, *more, *callbacks, Reseed(), epochs=4)
        running.fit(module, ToyData(cache_dir=str(tmp_path)), **arguments)
        running.save_checkpoint(tmp_path / "last.ckpt")
        running.test(module, ToyData(cache_dir=str(tmp_path)), verbose=False)
        return ensemble.summary(), ensemble.state_dict()["snapshots"], module

    summary, members, module = fit()
    fit(Interrupt())
    again, same, resumed = fit(ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert again == summary
    assert summary["updates"] == ([8, 16, 24] if source == "cycles" else [18, 24])
    assert not changed(resumed, snapshot(module))
    assert all(torch.equal(same[u][k], members[u][k]) for u in members for k in members[u])


class Wrong(Foreign):
    """Outputs or batches of another kind."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Any) -> Any:
        if self.output == "images":
            return x
        logits = super().forward(x)
        return {"tuple": (logits,), "one": logits[:1]}.get(self.output, logits)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.fc.bias.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def loading(*tensors: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), batch_size=4)


IMAGES = torch.zeros(4, 1, 6, 6)
INDICES = torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("output", "validation", "message"),
    [
        (
            "images",
            loading(IMAGES, INDICES),
            r"logits \(4, classes\) from Wrong.forward, got torch.float32 \(4, 1, 6, 6\)",
        ),
        ("tuple", loading(IMAGES, INDICES), r"from Wrong.forward, got tuple"),
        ("one", loading(IMAGES, INDICES), r"logits \(4, classes\)"),
        (
            "logits",
            loading(IMAGES, torch.zeros(4, 2)),
            r"class indices \(B,\) as the target, got torch.float32 \(4, 2\)",
        ),
        ("logits", loading(IMAGES, torch.zeros(4)), r"class indices \(B,\) as the target, got torch.float32 \(4,\)"),
        ("logits", loading(IMAGES), r"class indices \(B,\) as the target, got NoneType"),
        ("logits", DataLoader([{"x": 1}]), r"class indices \(B,\) as the target, got NoneType"),
    ],
)
def test_what_is_no_classification_is_refused_before_the_first_update(
    output: str, validation: Any, message: str, tmp_path: Path
) -> None:
    module = Wrong(output)
    before = snapshot(module)
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, SnapshotEnsemble(last_epochs=2)).fit(module, data(1), validation)
    assert not changed(module, before)


@pytest.mark.parametrize(
    ("arguments", "cyclic", "message"),
    [
        ({}, False, "either a CyclicCosine among the callbacks or last_epochs, got neither; give {class_path: CyclicC"),
        ({"last_epochs": 3}, True, "got both"),
        ({"last_epochs": 0}, False, "last_epochs to be at least 1, got 0"),
        ({"keep": -1}, True, "keep to be at least 1, got -1"),
        ({"keep": 2, "last_epochs": 2}, False, "`keep` for cycles only"),
    ],
)
def test_arguments_that_cannot_be_are_refused_at_the_start(
    arguments: dict[str, Any], cyclic: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        running = trainer(tmp_path, SnapshotEnsemble(**arguments), *([CyclicCosine(2)] if cyclic else []))
        running.fit(Foreign(), data(1), data(2))


def test_a_run_of_tlkit_has_it_in_its_result(write: Write) -> None:
    callbacks = [
        {"class_path": "tlkit_callbacks.cyclic_cosine.CyclicCosine", "init_args": {"cycles": 3}},
        {"class_path": "tlkit_callbacks.snapshot_ensemble.SnapshotEnsemble", "init_args": {"keep": 2}},
    ]
    path = write(**{"trainer.callbacks": callbacks})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the command filters Lightning's remarks itself
        assert main(["fit", "--config", str(path)]) == 0
    (run,) = (path.parent / "runs" / "toy").glob("transfer-*")
    result = read_result(run)
    summary = result["summaries"]["SnapshotEnsemble"]
    assert summary["updates"] == [12, 18] and len(summary["test"]["member_accuracy"]) == 2
    assert result["metrics"]["test/ensemble_accuracy"] == pytest.approx(summary["test"]["accuracy"])
    files = [run / "checkpoints" / f"snapshot-{number}.ckpt" for number in (1, 2)]
    states = [torch.load(file, weights_only=True)["state_dict"] for file in files]
    module, toy = Classification(ToyNet(num_classes=4, in_channels=1)), ToyData(cache_dir=str(path.parent / "cache"))
    toy.setup("test")
    assert summary["val"] == by_hand(states, toy.val_dataloader(), module)
    assert summary["test"] == by_hand(states, toy.test_dataloader(), module)
    assert main(["test", "--config", str(path), "--ckpt_path", str(files[0])]) == 0
    tags = EventAccumulator(str(run)).Reload().Tags()["scalars"]
    assert {"val/ensemble_accuracy", "val/member_2_accuracy", "test/ensemble_cross_entropy"} <= set(tags)
