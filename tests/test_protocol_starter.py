"""`tlkit protocol starter`: what it prints, and that it fits when it is pasted."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Write
from test_commands import printed, refused
from test_fit import newest, quiet  # noqa: F401  the fixture applies here too

from tlkit.cli import main
from tlkit.errors import UserError
from tlkit.protocol import head_down, starter
from tlkit.runs import read_result

ALEXNET = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]


def phases(text: str) -> list[dict[str, Any]]:
    (callback,) = yaml.safe_load(text)["trainer"]["callbacks"]
    assert callback["class_path"] == "GradualUnfreezing"
    found: list[dict[str, Any]] = callback["init_args"]["phases"]
    return found


def test_layers_are_taken_from_the_last_to_the_first() -> None:
    assert head_down(ALEXNET, 1) == [[name] for name in reversed(ALEXNET)]
    assert head_down(ALEXNET, 3) == [["fc6", "fc7", "fc8"], ["conv3", "conv4", "conv5"], ["conv1", "conv2"]]
    assert head_down(ALEXNET, 9) == [ALEXNET]


def test_phases_divide_the_run_evenly() -> None:
    found = phases(starter(ALEXNET, 40))
    assert [phase.get("epoch", 0) for phase in found] == [0, 5, 10, 15, 20, 25, 30, 35]
    assert [phase["layers"] for phase in found] == [[name] for name in reversed(ALEXNET)]
    assert "rate" not in found[0] and all(phase["rate"] == 0.1 for phase in found[1:])


@pytest.mark.parametrize("epochs", range(1, 20))
def test_every_phase_has_an_epoch_however_short_the_run(epochs: int) -> None:
    found = phases(starter(ALEXNET, epochs))
    begins = [phase.get("epoch", 0) for phase in found]
    assert begins == sorted(set(begins)) and begins[-1] < epochs
    assert sorted(name for phase in found for name in phase["layers"]) == sorted(ALEXNET)
    assert len(found) == (8 if epochs >= 8 else -(-8 // -(-8 // epochs)))


def test_more_phases_than_the_run_has_room_for_are_refused() -> None:
    with pytest.raises(UserError, match="got 8 of 6 epochs in a run of 40; .*more --layers-per-phase"):
        starter(ALEXNET, 40, epochs_per_phase=6)
    with pytest.raises(UserError, match="got 8 of 1 epoch in a run of 5"):
        starter(ALEXNET, 5, layers_per_phase=1)
    assert len(phases(starter(ALEXNET, 40, epochs_per_phase=5))) == 8


def test_what_is_printed_is_nothing_but_the_yaml_and_fits(write: Write, tmp_path: Path, capsys: Any) -> None:
    path = write()
    text = printed(capsys, "protocol", "starter", "--config", str(path))
    assert phases(text) == [
        {"layers": ["fc"]},
        {"layers": ["conv2"], "epoch": 1, "rate": 0.1},
        {"layers": ["conv1"], "epoch": 2, "rate": 0.1},
    ]
    config = yaml.safe_load(path.read_text())
    config["trainer"]["callbacks"] = yaml.safe_load(text)["trainer"]["callbacks"]
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    assert main(["fit", "--config", str(path)]) == 0
    run = newest(tmp_path / "runs" / "toy", "transfer")
    summary = read_result(run)["summaries"]["GradualUnfreezing"]["phases"]
    assert [(phase["layers"], phase["epoch"], phase["why"]) for phase in summary] == [
        (["fc"], 0, "start"),
        (["conv2"], 1, "epoch 1"),
        (["conv1"], 2, "epoch 2"),
    ]
    resolved = run / "config.yaml"  # repeats the run, null triggers and all
    written = yaml.safe_load(resolved.read_text())["trainer"]["callbacks"][0]["init_args"]["phases"]
    assert [
        {key: value for key, value in phase.items() if key in given}
        for phase, given in zip(written, phases(text), strict=True)
    ] == phases(text)
    assert all("plateau" in phase and "class_path" not in phase for phase in written)
    assert f"# {run.name.replace('-', ' stage ')}, all" in printed(capsys, "config", "--config", str(resolved))


def test_it_may_be_given_as_a_second_configuration(write: Write, tmp_path: Path, capsys: Any) -> None:
    path, second = write(), tmp_path / "gradual.yaml"
    second.write_text(printed(capsys, "protocol", "starter", "--config", str(path), "--layers-per-phase", "2"))
    shown = printed(capsys, "layers", "--config", str(path), "--config", str(second)).splitlines()
    shown_last = {line.split()[0]: line.split()[-2:] for line in shown if line.startswith(("conv", "fc"))}
    assert shown_last == {"conv1": ["yes", "0"], "conv2": ["yes", "0.05"], "fc": ["4", "0.05"]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected starter, got nothing\nusage: tlkit protocol starter --config FILE"),
        (["--config", "toy.yaml"], "expected starter, got '--config'\nusage:"),
        (["strater"], "expected starter, got 'strater'; did you mean 'starter'?\nusage:"),
        (["starter", "--layers-per-phase", "0"], "--layers-per-phase: expected at least 1, got 0"),
        (["starter", "--epochs-per-phase", "x"], "invalid int value: 'x'\nusage:"),
        (["starter", "--epochs-per-phase", "3"], "got 3 of 3 epochs in a run of 3"),
        (
            ["starter", "--trainer.max_epochs", "-1", "--trainer.max_steps", "9"],
            "trainer.max_epochs: expected a number",
        ),
        (["starter", "--layer-per-phase", "1"], "--layer-per-phase: unknown option"),
    ],
)
def test_wrong_words_are_refused(words: list[str], message: str, write: Write, capsys: Any) -> None:
    config = ["--config", str(write())]
    assert message in refused(capsys, "protocol", *words[:1], *config[: 2 * len(words)], *words[1:])


def test_it_has_a_help(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["protocol", "--help"])
    assert "--layers-per-phase N" in capsys.readouterr().out
