"""L2SP in a run: what it is pulled to, also after a resume, and what is refused."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from foreign_module import ForeignModule, loader, snapshot, trainer
from l2sp_by_hand import foreign
from lightning.pytorch import Callback
from tlkit_callbacks.l2sp import L2SP
from torch import nn
from toy import ToyData, ToyNet

from tlkit.cli import main
from tlkit.errors import UserError
from tlkit.runs import read_result
from tlkit.tasks import Classification


def task(transferred: list[str] | None = None) -> Classification:
    torch.manual_seed(0)
    module = Classification(ToyNet(num_classes=4, in_channels=1))
    module.transferred = transferred
    return module


def test_by_default_it_pulls_what_was_transferred(tmp_path: Path) -> None:
    states = []
    for layers, transferred in ((None, ["conv1"]), (["conv1"], None)):
        module, callback = task(transferred), L2SP(layers=layers)
        trainer(tmp_path, callback, epochs=1).fit(module, ToyData(cache_dir=str(tmp_path)))
        states.append(snapshot(module))
        assert set(callback.state_dict()["start"]) == {
            f"{n}.{p}" for n in ("conv1", "norm1") for p in ("weight", "bias")
        }
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


class Reseed(Callback):
    """Dropout as a function of the step, as tlkit's own runs have it."""

    def on_train_batch_start(self, running: Any, *_: Any) -> None:
        torch.manual_seed(running.global_step)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_resumed_run_is_pulled_to_the_first_weights_and_ends_as_the_uninterrupted_one(
    epochs: int, tmp_path: Path
) -> None:
    def fit(start: Classification, until: int, **arguments: Any) -> tuple[L2SP, Any]:
        callback = L2SP(0.5, 0.1)
        running = trainer(tmp_path, callback, Reseed(), epochs=until)
        running.fit(start, ToyData(cache_dir=str(tmp_path)), **arguments)
        return callback, running

    whole, resumed = task(["conv1", "conv2"]), task(["conv1", "conv2"])
    first_weights = whole.network.conv1.weight.detach().clone()
    wanted, _ = fit(whole, 4)
    _, first = fit(task(["conv1", "conv2"]), epochs)
    first.save_checkpoint(tmp_path / "last.ckpt")
    nn.init.zeros_(resumed.network.conv1.weight)  # what it was built with plays no part
    second, _ = fit(resumed, 4, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(second.state_dict()["start"]["conv1.weight"], first_weights)
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    assert second.summary() == wanted.summary()


@pytest.mark.parametrize("before", [None, L2SP(layers=2)], ids=["without it", "other layers"])
def test_a_checkpoint_without_the_pretrained_weights_is_refused(before: L2SP | None, tmp_path: Path) -> None:
    first = trainer(tmp_path, *([before] if before else []), epochs=1)
    first.fit(foreign(), loader(), loader())
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = trainer(tmp_path, L2SP(layers=1))
    with pytest.raises(UserError, match="holds the pretrained weights of conv1"):
        second.fit(foreign(), loader(), loader(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)


def test_several_runs_of_one_callback_each_start_anew(tmp_path: Path) -> None:
    callback = L2SP(layers=1)
    for seed in (0, 1):
        module = foreign()
        nn.init.constant_(module.conv1.weight, seed)
        before = snapshot(module)
        trainer(tmp_path, callback).fit(module, loader(), loader())
        assert torch.equal(callback.state_dict()["start"]["conv1.weight"], before["conv1.weight"])


@pytest.mark.parametrize(
    ("module", "callback", "message"),
    [
        (lambda: ForeignModule(), lambda: L2SP(), "ForeignModule does not say; .* valid layers: conv1, conv2, fc"),
        (lambda: ForeignModule(), lambda: L2SP(layers="conv9"), "got 'conv9'"),
        (lambda: ForeignModule(weight_decay=0.1), lambda: L2SP(layers=1), "weight_decay 0, got 0.1"),
        (lambda: ForeignModule("AdamW"), lambda: L2SP(layers=1), "AdamW decays by default"),
        (lambda: task(), lambda: L2SP(), "expected to know which layers were transferred"),
        (lambda: ForeignModule(), lambda: L2SP(alpha=-1), "alpha to be at least 0, got -1"),
        (lambda: ForeignModule(), lambda: L2SP(beta=float("nan")), "beta to be at least 0, got nan"),
    ],
)
def test_what_cannot_be_is_refused_at_the_start(module: Any, callback: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, callback()).fit(module(), ToyData(cache_dir=str(tmp_path)))


def test_a_decaying_optimizer_of_a_task_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    module = task()
    module.optimizer = lambda groups: torch.optim.SGD(groups, lr=0.1, weight_decay=5e-4)
    callback = L2SP()
    with pytest.raises(UserError, match="weight_decay 0, got 0.0005"):
        callback.check(trainer(tmp_path, callback), module)


@pytest.mark.parametrize(
    ("transferred", "layers", "message"),
    [([], None, "no layer was transferred"), (["conv1"], 2, "not transferred, their start is random: conv2")],
)
def test_a_pull_that_may_not_be_meant_warns(
    transferred: list[str], layers: Any, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = L2SP(layers=layers)
    trainer(tmp_path, callback, epochs=1).fit(task(transferred), ToyData(cache_dir=str(tmp_path)))
    (warned,) = {record.getMessage() for record in caplog.records if record.name == "tlkit"}
    assert message in warned
    assert (callback.summary()["distance"] is None) == (transferred == [])


def test_a_run_of_tlkit_pulls_what_it_transferred(write: Write) -> None:
    path = write(**{"trainer.callbacks": [{"class_path": "tlkit_callbacks.l2sp.L2SP"}]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the command filters Lightning's remarks itself
        assert main(["fit", "--config", str(path)]) == 0
    source, target = (next((path.parent / "runs" / "toy").glob(f"{stage}-*")) for stage in ("pretrain", "transfer"))
    before, after = (
        torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
        for run, name in ((source, "best"), (target, "last"))
    )
    keys = [f"network.{n}.{p}" for n in ("conv1", "norm1", "conv2") for p in ("weight", "bias")]
    old, new = (torch.cat([state[key].flatten() for key in keys]) for state in (before, after))
    distance = read_result(target)["summaries"]["L2SP"]["distance"]
    assert distance == pytest.approx(((new - old).norm() / old.norm()).item(), rel=1e-4)
    assert distance > 0
