"""Wrong arguments in a YAML file are refused before the pretrain is trained and before anything is written."""

from typing import Any

import pytest
from conftest import Write

from tlkit.cli import main


def callback(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name, "init_args": arguments}


def phases(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return [callback("GradualUnfreezing", phases=list(given))]


HEAD = {"layers": -1}
REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[str]]] = {
    "overlapping phases": (
        phases({"layers": "all"}, {"layers": -1, "epoch": 1}),
        {},
        ["phases[1]", "no phase before it thaws, got fc, which is in phases[0]"],
    ),
    "a phase that thaws nothing": (phases(HEAD, {"layers": [], "epoch": 1}), {}, ["phases[1]", "got none from []"]),
    "a phase after the end": (phases(HEAD, {"layers": "rest", "epoch": 9}), {}, ["phases[1]", "got epoch 9"]),
    "a key of a phase misspelt": (
        phases(HEAD, {"layers": "rest", "epochs": 1}),
        {},
        ["phases[1].epochs: unknown key; did you mean 'epoch'? valid: layers, epoch, step"],
    ),
    "a key of a plateau misspelt": (
        phases(HEAD, {"layers": "rest", "plateau": {"metrik": "val/loss"}}),
        {},
        ["phases[1].plateau.metrik: unknown key; did you mean 'metric'?"],
    ),
    "a plateau on what nobody logs": (
        phases(HEAD, {"layers": "rest", "plateau": {"metric": "val/los"}}),
        {},
        ["got 'val/los'; did you mean 'val/loss'?", "logged: train/loss, val/accuracy"],
    ),
    "two schedules": (
        [callback("OneCycle"), callback("CosineDecay")],
        {},
        ["expected one schedule for the whole run, got CosineDecay and OneCycle", "remove all but one"],
    ),
    "a scheduler of torch": (
        [callback("OneCycle")],
        {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}},
        ["lr_scheduler: unknown key"],
    ),
    "a curve in a run without an end": (
        [callback("OneCycle")],
        {"trainer.max_epochs": -1},
        ["got neither max_epochs nor max_steps; give trainer.max_epochs or trainer.max_steps"],
    ),
    "a curve in a run that time ends": (
        [callback("LinearDecay")],
        {"trainer.max_time": "00:00:10:00"},
        ["got max_time, which ends it at no known update", "no max_time"],
    ),
    "a cap without a card": (
        [callback("EnergyMonitor", power_cap_watts=200)],
        {},
        ["expected an NVIDIA GPU to cap at 200 W", "got a run on cpu", "leave the cap out"],
    ),
    "momentum of an optimizer without": (
        [callback("OneCycle")],
        {"model.init_args.optimizer": {"class_path": "Adagrad", "init_args": {"lr": 0.05}}},
        ["expected an optimizer with momentum, got Adagrad without", "set momentum_min and momentum_max to null"],
    ),
    "a layer that does not exist": (
        [callback("InitialDecay", epochs=1, layers="fc9")],
        {},
        ["got 'fc9'; did you mean 'fc'? valid layers: conv1, conv2, fc"],
    ),
    "a decaying optimizer beside L2SP": (
        [callback("L2SP")],
        {"model.init_args.optimizer": {"class_path": "AdamW", "init_args": {"lr": 0.05}}},
        ["expected an optimizer with weight_decay 0, got 0.01", "give weight_decay: 0"],
    ),
    "two averages": ([callback("EMAWeights"), callback("PolyakMean")], {}, ["got EMAWeights and PolyakMean"]),
    "an ensemble without cycles": ([callback("SnapshotEnsemble")], {}, ["CyclicCosine", "last_epochs", "got neither"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_what_to_do(name: str, write: Write, capsys: Any) -> None:
    callbacks, changes, expected = REFUSED[name]
    path = write(**{"trainer.callbacks": callbacks}, **changes)
    assert main(["fit", "--config", str(path)]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert not [part for part in expected if part not in message], message
    assert not (path.parent / "runs").exists()


def test_so_is_what_is_wrong_with_the_pretrain_itself(write: Write, capsys: Any) -> None:
    wrong = {"data.stage": "pretrain", "trainer.callbacks": [callback("OneCycle"), callback("CosineDecay")]}
    path = write(**{"trainer.callbacks": [], "pretrain": {"layers": 2, "with": wrong}})
    assert main(["fit", "--config", str(path)]) == 2
    assert "got CosineDecay and OneCycle" in capsys.readouterr().err
    assert not (path.parent / "runs").exists()
