"""What each command prints, leaves and exits with, beside `fit`; options of the command line."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Write, toy_experiment
from test_fit import newest, quiet  # noqa: F401  the fixture applies here too

from tlkit.cli import main
from tlkit.commands import load_experiment
from tlkit.errors import UserError
from tlkit.experiment import plan
from tlkit.runs import read_result

DEFAULTS = {"norm": "eval", "start": None, "end": None}
"""Of LayerFreezing."""


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of an experiment that was run."""
    folder = tmp_path_factory.mktemp("fitted")
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_experiment(folder), sort_keys=False))
    assert main(["fit", "--config", str(path)]) == 0
    return path


def transfer_run(path: Path) -> Path:
    return newest(path.parent / "runs" / path.stem, "transfer")


def printed(capsys: Any, *words: str) -> str:
    """Runs a command that must succeed; returns its output."""
    capsys.readouterr()
    assert main(list(words)) == 0
    out: str = capsys.readouterr().out
    return out


def refused(capsys: Any, *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 2
    message: str = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def test_help_version_and_a_wrong_command_load_nothing_heavy() -> None:
    driver = (
        "import sys; from tlkit.cli import main\n"
        "print([main(words) for words in ([], ['--help'], ['--version'], ['fti'], ['stduy'])])\n"
        "print('loaded', {'torch', 'lightning', 'numpy', 'yaml'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", driver], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[2, 0, 0, 2, 2]\nloaded set()\n")
    assert "usage: tlkit COMMAND" in done.stderr  # without a command
    assert "tlkit: no command 'fti'; did you mean 'fit'? valid: fit, validate" in done.stderr
    assert "tlkit: no command 'stduy'; did you mean 'study'? valid: fit, validate" in done.stderr


def test_layers_are_shown_with_what_is_transferred_frozen_and_at_which_rate(write: Write, capsys: Any) -> None:
    path = write(**{"model.init_args.lr_scale": {"fc": 4.0}})
    table = printed(capsys, "layers", "--config", str(path)).splitlines()
    cells = {line.split()[0]: line.split()[1:] for line in table if line[:2] in ("co", "fc")}
    assert cells == {
        "conv1": ["48", "4×8×8", "yes", "yes", "0"],  # 4·9 + 4, and 8 of its norm
        "conv2": ["148", "4×8×8", "yes", "0.05"],
        "fc": ["260", "4", "0.2"],
    }
    assert table[-1].startswith("3 layers, 456 parameters")
    assert not (path.parent / "runs").exists()


def test_the_resolved_experiment_is_yaml_that_means_the_same(write: Write, capsys: Any) -> None:
    path = write(**{"trainer.callbacks": [{"class_path": "LayerFreezing", "init_args": {"layers": 1}}]})
    text = printed(capsys, "config", "--config", str(path))
    resolved = path.parent / "resolved.yaml"
    resolved.write_text(text)
    first, second = (plan(load_experiment(["--config", str(file)])) for file in (path, resolved))
    assert (first.id, first.experiment) == (second.id, second.experiment)
    assert first.pretrain and second.pretrain and first.pretrain.id == second.pretrain.id
    assert f"# pretrain stage {first.pretrain.id[:8]}" in text
    assert text.index("# pretrain stage") < text.index(f"# transfer stage {first.id[:8]}")
    content = yaml.safe_load(text)
    assert content["trainer"]["callbacks"][0]["init_args"] == {"layers": 1} | DEFAULTS
    assert printed(capsys, "config", "--config", str(resolved)) == text


def test_messages_do_not_get_into_the_resolved_experiment(write: Write, capsys: Any) -> None:
    assert main(["config", "--config", str(write()), "--trainer.callbacks=StepDecay"]) == 0
    said = capsys.readouterr()
    assert "LayerFreezing is left out" in said.err
    assert "left out" not in said.out and yaml.safe_load(said.out)


def test_a_task_without_an_optimizer_says_which_it_has(write: Write, capsys: Any) -> None:
    path = write(**{"model.init_args": {"network": {"class_path": "toy.ToyNet"}}})
    optimizer = yaml.safe_load(printed(capsys, "config", "--config", str(path)))["model"]["init_args"]["optimizer"]
    assert optimizer == {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}}


def test_an_optimizer_has_its_own_defaults_not_those_of_the_tasks(write: Write) -> None:
    import torch

    for name in ("SGD", "AdamW", "Adam"):
        path = write(**{"model.init_args.optimizer": {"class_path": name, "init_args": {"lr": 0.001}}})
        arguments = load_experiment(["--config", str(path)])["model"]["init_args"]["optimizer"]["init_args"]
        own = getattr(torch.optim, name)([torch.zeros(1)], lr=0.001).defaults
        assert arguments["weight_decay"] == own["weight_decay"]
        assert arguments.get("momentum") == own.get("momentum")


@pytest.mark.parametrize("part", ["validate", "test"])
def test_evaluating_the_best_checkpoint_gives_the_metrics_of_the_result(
    part: str, fitted: Path, capsys: Any, recwarn: pytest.WarningsRecorder
) -> None:
    out = printed(capsys, part, "--config", str(fitted))
    prefix = {"validate": "val/", "test": "test/"}[part]
    lines = (line.split() for line in out.splitlines() if line.startswith(f"  {prefix}"))
    shown = {name: value for name, value in lines}
    metrics = read_result(transfer_run(fitted))["metrics"]
    expected = {name: f"{value:.4f}" for name, value in metrics.items() if name.startswith(prefix)}
    assert shown == expected and len(shown) >= 5
    assert str(transfer_run(fitted) / "checkpoints" / "best.ckpt") in out
    assert not [str(warning.message) for warning in recwarn]


def test_predictions_agree_with_the_labels_as_often_as_the_test_says(fitted: Path, capsys: Any) -> None:
    out = printed(capsys, "predict", "--config", str(fitted))
    run = transfer_run(fitted)
    assert f"24 predictions in {run / 'predictions.csv'}" in out
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = np.arange(72, 96) % 4  # of the toy data's test rows
    assert [int(row["image"]) for row in rows] == list(range(72, 96))
    assert [int(row["true"]) for row in rows] == labels.tolist()
    probabilities = np.array([[float(row[f"p({label})"]) for label in range(4)] for row in rows])
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    classes = np.array([int(row["predicted"]) for row in rows])
    assert (classes == probabilities.argmax(1)).all()
    assert (classes == labels).mean() == pytest.approx(read_result(run)["metrics"]["test/accuracy"])


def test_a_given_checkpoint_is_evaluated_whether_directory_or_file(fitted: Path, capsys: Any) -> None:
    pretrain = newest(fitted.parent / "runs" / "toy", "pretrain")
    texts = [
        printed(capsys, "test", "--config", str(fitted), "--data.stage", "pretrain", "--ckpt_path", str(path))
        for path in (pretrain, pretrain / "checkpoints" / "best.ckpt")
    ]
    assert texts[0] == texts[1]
    assert f"{read_result(pretrain)['metrics']['test/accuracy']:.4f}" in texts[0]


def test_nothing_to_evaluate_is_refused_with_the_remedy(write: Write, capsys: Any) -> None:
    message = refused(capsys, "test", "--config", str(write()))
    assert "expected a finished run" in message and "tlkit fit" in message and "--ckpt_path" in message
    assert "at nowhere.ckpt, got nothing" in refused(
        capsys, "predict", "--config", str(write()), "--ckpt_path", "nowhere.ckpt"
    )


def test_runs_are_compared_in_a_table_and_a_picture(fitted: Path, capsys: Any) -> None:
    runs = [newest(fitted.parent / "runs" / "toy", stage) for stage in ("pretrain", "transfer")]
    out = printed(capsys, "compare", *map(str, runs))
    rows = [line for line in out.splitlines() if "runs/toy" in line and "curves" not in line]
    assert rows[0].startswith("pretrain ") and rows[1].startswith("transferred, 2 layers ")
    for row, run in zip(rows, runs, strict=True):
        metrics = read_result(run)["metrics"]
        assert f"{metrics['val/accuracy']:.4g}" in row and f"{metrics['test/accuracy']:.4g}" in row
    assert (runs[1] / "compare.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_compare_tells_how_it_is_called(word: str, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["compare", word])
    assert capsys.readouterr().out.startswith("usage: tlkit compare RUN…\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "expected one or more run directories"),
        (["compare", "nowhere"], "expected at least one finished run, got none"),
        (["layers"], "model"),
        (["fit", "--config", "nowhere.yaml"], "nowhere.yaml, which does not exist"),
    ],
)
def test_a_command_without_what_it_needs_is_refused(words: list[str], message: str, capsys: Any) -> None:
    assert message in refused(capsys, *words)


# Callbacks and classes on the command line

TWO = [
    {"class_path": "LayerFreezing", "init_args": {"layers": 1}},
    {"class_path": "StepDecay", "init_args": {"every": 2}},
]


def callbacks_of(path: Path, *words: str) -> list[tuple[str, dict[str, Any]]]:
    config = load_experiment(["--config", str(path), *words])
    return [(item["class_path"].rpartition(".")[2], item["init_args"]) for item in config["trainer"]["callbacks"]]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned about."""
    messages: list[str] = []
    monkeypatch.setattr("tlkit.stage_cli.log.warning", lambda message, *values: messages.append(message))
    return messages


def test_callbacks_given_replace_those_of_the_file_and_that_is_said(write: Write, said: list[str]) -> None:
    path = write(**{"trainer.callbacks": TWO})
    one = "[{class_path: StepDecay, init_args: {every: 9}}]"
    assert [(name, args["every"]) for name, args in callbacks_of(path, "--trainer.callbacks", one)] == [
        ("StepDecay", 9)
    ]
    assert said == [
        "--trainer.callbacks replaces the list of the file, LayerFreezing is left out; --trainer.callbacks+= adds to it"
    ]


def test_a_callback_without_a_list_is_a_list_of_one(write: Write, said: list[str], capsys: Any) -> None:
    path = write(**{"trainer.callbacks": TWO})
    assert [name for name, _ in callbacks_of(path, "--trainer.callbacks=LearningRateMonitor")] == [
        "LearningRateMonitor"
    ]
    assert "LayerFreezing, StepDecay are left out" in said[0]
    single = write(**{"trainer.callbacks": TWO[0], "pretrain.layers": 0, "trainer.max_epochs": 1})
    assert callbacks_of(single) == [("LayerFreezing", {"layers": 1} | DEFAULTS)]
    assert main(["fit", "--config", str(single)]) == 0


def test_a_plus_adds_to_the_callbacks_of_the_file(write: Write, said: list[str]) -> None:
    path = write(**{"trainer.callbacks": TWO})
    words = ("--trainer.callbacks+=StepDecay", "--trainer.callbacks.every", "7")
    assert [(name, args.get("every")) for name, args in callbacks_of(path, *words)] == [
        ("LayerFreezing", None),
        ("StepDecay", 2),
        ("StepDecay", 7),
    ]
    assert not said


@pytest.mark.parametrize("nothing", ["[]", "null"])
def test_no_callbacks_is_what_was_asked_for(nothing: str, write: Write, said: list[str]) -> None:
    config = load_experiment(["--config", str(write()), "--trainer.callbacks", nothing])
    assert not config["trainer"]["callbacks"]
    assert not said


@pytest.mark.parametrize("prefix", ["--trainer.callbacks", "--callbacks"])
def test_a_callback_is_set_by_the_name_of_its_class(prefix: str, write: Write, said: list[str]) -> None:
    path = write(**{"trainer.callbacks": TWO})
    words = (f"{prefix}.LayerFreezing.layers", "[conv1, fc]", f"{prefix}.StepDecay.factor=1e-2")
    assert callbacks_of(path, *words) == [
        ("LayerFreezing", {"layers": ["conv1", "fc"]} | DEFAULTS),
        (
            "StepDecay",
            {"every": 2, "factor": 0.01, "start": None, "layers": None, "warmup": 0, "updates_per_epoch": None},
        ),
    ]
    assert load_experiment(["--config", str(path), *words])["name"] == "toy"
    assert not said


def test_several_overrides_of_the_pretrain_add_to_each_other_and_to_those_of_the_file(write: Write) -> None:
    path = write(**{"pretrain.with": {"data.stage": "pretrain", "trainer.max_epochs": 1}})
    words = ("--pretrain.with.data.bad_row=3", "--pretrain.with.data.batch_size", "4")
    config = load_experiment(["--config", str(path), *words, "--pretrain.with.trainer.max_epochs=2"])
    pretrain = plan(config).pretrain
    assert pretrain
    data, trainer = pretrain.config["data"]["init_args"], pretrain.config["trainer"]
    assert (data["stage"], data["bad_row"], data["batch_size"], trainer["max_epochs"]) == ("pretrain", 3, 4, 2)
    assert config["data"]["init_args"]["batch_size"] == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.callbacks.layers", "2"], "of which callback? expected the name of its class, --trainer.callbacks"),
        (["--callbacks.EMA.decay", "1"], "expected one callback 'EMA', there is none; the stage has: LayerFreezing"),
        (["--callbacks.LayerFreezing.layer", "1"], "did you mean 'layers'"),
        (["--callbacks.LayerFreezing.norm", "evil"], "LayerFreezing.norm: expected 'eval' | 'affine' | 'train'"),
        (["--callbacks.LayerFreezing.norm"], "expected a value after it"),
    ],
)
def test_a_callback_that_cannot_be_set_so_is_refused(words: list[str], message: str, write: Write) -> None:
    with pytest.raises(UserError) as refusal:
        callbacks_of(write(**{"trainer.callbacks": TWO}), *words)
    assert message in str(refusal.value)


def test_arguments_that_another_class_does_not_take_are_named(write: Write, said: list[str]) -> None:
    config = load_experiment(["--config", str(write()), "--model.optimizer", "AdamW"])
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.05  # what both take is kept
    assert said == [
        "model.optimizer is now AdamW, arguments that the file gives to SGD are left out: momentum: 0.9",
    ]


def test_nothing_is_said_where_nothing_is_lost(write: Write, said: list[str]) -> None:
    path = write(**{"trainer.callbacks": TWO, "model.init_args.optimizer.init_args": {"lr": 0.05}})
    for words in (
        [],
        ["--model.optimizer", "AdamW"],
        ["--model.optimizer.lr", "0.1", "--trainer.max_epochs", "9"],
        ["--data.batch_size", "3", "--pretrain.layers", "conv1"],
    ):
        load_experiment(["--config", str(path), *words])
    assert not said


@pytest.mark.parametrize(("words", "value"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("3", 3), ("null", None)])
def test_one_batch_is_not_all_batches(write: Write, words: str, value: float | None, capsys: Any) -> None:
    options = ["--trainer.limit_train_batches", words, "--trainer.val_check_interval", words]
    assert main(["config", "--config", str(write()), *options]) == 0
    text = capsys.readouterr().out
    trainer = yaml.safe_load(text)["trainer"]
    for name in ("limit_train_batches", "val_check_interval"):
        assert (trainer[name], type(trainer[name])) == (value, type(value))
