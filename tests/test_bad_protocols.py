"""What is wrong with a protocol is said before anything is trained or written, the pretrain included."""

from typing import Any

import pytest
from conftest import Write
from test_bad_input import refused
from test_fit import quiet  # noqa: F401  the fixture applies here too


def one(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


def unfreezing(*phases: dict[str, Any]) -> list[dict[str, Any]]:
    return [one("GradualUnfreezing", phases=list(phases))]


FIRST = {"layers": "fc"}
WRONG: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "overlapping phases": (unfreezing(FIRST, {"layers": ["conv2", "fc"], "epoch": 1}), ["GradualUnfreezing", "fc"]),
    "a phase that thaws nothing": (
        unfreezing(FIRST, {"layers": [], "epoch": 1}),
        ["phases[1]", "expected at least one layer to thaw"],
    ),
    "an unknown layer": (unfreezing(FIRST, {"layers": "conv9", "epoch": 1}), ["got 'conv9'", "valid layers: conv1"]),
    "a phase without a trigger": (unfreezing(FIRST, {"layers": "conv2"}), ["phases[1]", "epoch"]),
    "moments that go backwards": (
        unfreezing(FIRST, {"layers": "conv2", "epoch": 2}, {"layers": "conv1", "epoch": 1}),
        ["phases[2]", "epoch"],
    ),
    "a phase after the end": (unfreezing(FIRST, {"layers": "conv2", "epoch": 99}), ["phases[1]", "99"]),
    "a plateau on what nobody logs": (
        unfreezing(FIRST, {"layers": "conv2", "plateau": {"metric": "val/los", "patience": 2}}),
        ["val/los", "did you mean 'val/loss'", "val/accuracy"],
    ),
    "a rate that waits for what nobody logs": (
        [one("ReduceOnPlateau", metric="val/acc")],
        ["val/acc", "did you mean 'val/accuracy'", "train/loss"],
    ),
    "two schedules": ([one("OneCycle"), one("CosineDecay")], ["expected one schedule", "CosineDecay and OneCycle"]),
    "a schedule twice": ([one("OneCycle"), one("OneCycle", peak_lr=0.1)], ["expected one schedule", "OneCycle"]),
    "one callback with a state twice": (unfreezing(FIRST) * 2, ["GradualUnfreezing once, got it several times"]),
    "a cap without a card": ([one("EnergyMonitor", power_cap_watts=200)], ["NVIDIA"]),
    "a cap of nothing": ([one("EnergyMonitor", power_cap_watts=0)], ["power_cap_watts above 0 W, got 0"]),
    "both a decay and a half-life": ([one("EMAWeights", decay=0.9, half_life=5.0)], ["decay", "half_life"]),
    "a decay of 1": ([one("EMAWeights", decay=1.0)], ["decay", "below 1"]),
    "snapshots of no cycle": ([one("SnapshotEnsemble")], ["CyclicCosine", "last_epochs"]),
    "a moment that is none": ([one("LayerFreezing", layers=1, end={})], ["exactly one of epoch, step, fraction"]),
    "an end before the start": (
        [one("LayerFreezing", layers=1, start={"epoch": 2}, end={"epoch": 1})],
        ["expected an end after the start"],
    ),
    "a layer frozen for ever that a phase thaws": (
        [one("LayerFreezing", layers="conv1"), *unfreezing(FIRST, {"layers": "conv1", "epoch": 1})],
        ["conv1", "LayerFreezing"],
    ),
    "two kinds of phases": (
        [one("LinearProbeThenFineTune", probe_epochs=1), *unfreezing(FIRST, {"layers": "conv2", "epoch": 1})],
        ["expected one callback with phases, got LinearProbeThenFineTune and GradualUnfreezing"],
    ),
    "a window after the run": (
        [one("LayerFreezing", layers=1, start={"epoch": 3})],
        ["expected a start within the run, got epoch 3"],
    ),
    "a window that ends at once": (
        [one("LayerFreezing", layers=1, end={"fraction": 0.0})],
        ["expected an end after the run begins, got fraction 0"],
    ),
    "a peak that is no number": ([one("OneCycle", peak_lr=float("nan"))], ["peak_lr above 0, got nan"]),
    "a moment that is no number": ([one("LayerFreezing", layers=1, end={"fraction": float("nan")})], ["got nan"]),
    "a rate that is no number": (unfreezing({"layers": "fc", "rate": float("inf")}), ["rate", "got inf"]),
    "a block that is not there": ([one("SurgicalFineTuning", layers="encoder")], ["got 'encoder'", "valid layers"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_is_refused_at_once(what: str, write: Write, capsys: Any) -> None:
    callbacks, expected = WRONG[what]
    message = refused(write(**{"trainer.callbacks": callbacks}), capsys)
    for words in expected:
        assert words in message


def test_a_curve_whose_length_cannot_be_known_is_refused(write: Write, capsys: Any) -> None:
    path = write(**{"trainer.callbacks": [one("OneCycle")], "trainer.max_epochs": -1})
    assert "neither max_epochs nor max_steps" in refused(path, capsys)
    assert "max_time" in refused(path, capsys, "--trainer.max_epochs", "3", "--trainer.max_time", "00:01:00:00")


def test_a_momentum_for_an_optimizer_that_has_none_is_refused(write: Write, capsys: Any) -> None:
    path = write(**{"trainer.callbacks": [one("OneCycle")]})
    message = refused(path, capsys, "--model.optimizer", "Adagrad")
    assert "Adagrad" in message and "momentum_min and momentum_max to null" in message
    assert "momentum: 0.9" in refused(path, capsys, "--model.optimizer.momentum", "0")


def test_a_pull_beside_weight_decay_is_refused(write: Write, capsys: Any) -> None:
    path = write(**{"trainer.callbacks": [one("L2SP")]})
    assert "weight_decay" in refused(path, capsys, "--model.optimizer.weight_decay", "0.01")


def test_the_pretrain_s_callbacks_are_asked_too(write: Write, capsys: Any) -> None:
    changes = {"data.stage": "pretrain", "trainer.callbacks": [one("OneCycle"), one("LinearDecay")]}
    assert "LinearDecay and OneCycle" in refused(write(**{"pretrain.with": changes}), capsys)
