"""What `tlkit advise` prints and writes from published studies, against numbers worked out by hand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_fit import newest, quiet  # noqa: F401  the fixture applies here too

from tlkit.advise.table2 import protocol
from tlkit.cli import main
from tlkit.commands import load_experiment
from tlkit.runs import read_result

Capture = pytest.CaptureFixture[str]

TABLE_2 = {
    10: (6, 10, 6),
    25: (6, 5, 5),
    50: (6, 3, 5),
    100: (6, 3, 1),
    250: (6, 3, 1),
    500: (6, 0, 0),
    1290: (5, 30, 0),
}
"""Images per class -> layers to transfer, initial decay epochs, layers to freeze, as published."""
BETWEEN = {
    20: (6, 6, 5),  # ln 2 / ln 2.5 = 0.756: 10 - 0.756 * 5 = 6.2; 6 - 0.756 = 5.2
    70: (6, 3, 3),  # ln 1.4 / ln 2 = 0.485: 5 - 0.485 * 4 = 3.06
    350: (6, 2, 1),  # 0.485: 3 - 0.485 * 3 = 1.54; 1 - 0.485 = 0.51
    1000: (5, 22, 0),  # ln 2 / ln 2.58 = 0.731: 6 - 0.731 = 5.27; 0.731 * 30 = 21.9
}


def advised(capsys: Capture, *words: str, examples: int = 10, similar: str = "yes") -> str:
    given = ["--examples-per-class", str(examples), "--classes", "5", "--batch-size", "32", "--similar", similar]
    assert main(["advise", *given, *words]) == 0
    return capsys.readouterr().out


def restored(capsys: Capture, *words: str, images: int = 128, batch: int = 16) -> str:
    given = ["--task", "restoration", "--examples-per-class", str(images), "--batch-size", str(batch)]
    assert main(["advise", *given, *words]) == 0
    return capsys.readouterr().out


def in_one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def row(text: str, name: str) -> list[str]:
    """Returns the cells of the last row of a table that has this name."""
    line = [line for line in text.splitlines() if line.startswith(f"  {name}  ")][-1]
    return line.removeprefix(f"  {name}").replace(",", "").split()


@pytest.mark.parametrize(("examples", "row"), (TABLE_2 | BETWEEN).items())
def test_the_published_columns_and_what_lies_between_them(examples: int, row: tuple[int, int, int]) -> None:
    found = protocol(examples, classes=500, batch=128)
    assert (found.transfer, found.decay, found.freeze) == row
    assert found.repeats == 1  # the study's own data: its epochs are the user's


def test_epochs_of_the_study_become_updates_and_then_epochs_of_the_user(capsys: Capture) -> None:
    text = advised(capsys)  # 500 * 10 / 128 = 39.06: 40 updates there; 5 * 10 / 32: 2 updates here, the last one small
    assert row(text, "last layer × 0.1 after") == ["10", "400", "200"]
    assert row(text, "all layers × 0.1 every") == ["30", "1200", "600"]
    assert row(text, "end after") == ["90", "3600", "1800"]
    assert "each image of yours is seen 20 times as often" in in_one_line(text)
    assert "the first 6 of 8 layers" in row_text(text, "transfer") and "the first 6 layers" in row_text(text, "freeze")


def row_text(text: str, name: str) -> str:
    return " ".join(row(text, name))


@pytest.mark.parametrize(
    ("examples", "similar", "size", "advice", "frozen"),
    [
        (10, "yes", "small, fewer than 100", "a linear classifier on frozen features", "the first 6 layers"),
        (99, "no", "small, fewer than 100", "success is not guaranteed", "nothing"),
        (100, "yes", "large, at least 100", "fine-tune a few of the later layers", "the first layer"),
        (100, "no", "large, at least 100", "fine-tune a larger part", "nothing"),
    ],
)
def test_the_cell_of_size_and_similarity_and_the_caveat_are_always_there(
    examples: int, similar: str, size: str, advice: str, frozen: str, capsys: Capture
) -> None:
    text = advised(capsys, examples=examples, similar=similar)
    flat = in_one_line(text)
    assert size in flat and advice in flat and "Lecture 10" in flat
    assert row_text(text, "freeze") == frozen
    later = advice == "fine-tune a few of the later layers"  # of which the notes say how
    assert ("How: the classifier first" in flat, "GradualUnfreezing; LinearProbeThenFineTune" in flat) == (later, later)
    assert "caveat of scale" in flat and "Fashion-MNIST" in flat and "common practice" in flat


@pytest.mark.parametrize(
    ("examples", "nearest", "end"), [(3, 10, "first column, 10"), (5000, 1290, "last column, all (1,290)")]
)
def test_beyond_the_table_its_end_is_taken_and_said(examples: int, nearest: int, end: str, capsys: Capture) -> None:
    text = in_one_line(advised(capsys, examples=examples))
    assert f"its {end}: nothing is known of {examples:,}." in text
    transfer, decay, _ = TABLE_2[nearest]
    assert f"the first {transfer} of 8 layers" in text and f"last layer × 0.1 after {decay} " in text


def test_the_restoration_study_in_updates(capsys: Capture) -> None:
    text = restored(capsys)  # 128 * 8 / 16 = 64 updates an epoch there, 8 here
    assert row(text, "transfer") == ["128", "10", "640", "80"]
    assert row(text, "pretrain") == ["512", "10", "2560", "80"]
    assert row_text(text, "freeze") == "nothing"
    assert "the median is 0.0161." in in_one_line(text) and "10.69761/kjte5358" in text
    assert "caveat of scale" in text
    assert "nothing is known of 32" in in_one_line(restored(capsys, images=32))
    assert "the median is 0.0167 (linear" in in_one_line(restored(capsys, images=90))  # 0.0173 - 0.0012 * 0.492


@pytest.mark.parametrize("similar", ["yes", "no"])
@pytest.mark.parametrize("examples", [10, 100, 500, 5000])
def test_what_is_written_is_an_experiment_with_its_header(
    examples: int, similar: str, tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "mine.yaml"
    assert f"tlkit fit --config {path}" in advised(capsys, "--write", str(path), examples=examples, similar=similar)
    config = load_experiment(["--config", str(path)])
    data = config["data"]["init_args"]
    assert (data["examples_per_class"], data["batch_size"], config["name"]) == (examples, 32, "mine")
    assert data["dataset"]["init_args"]["classes"] == 10  # half of them for the pretrain
    transfer, decay, freeze = TABLE_2[min(examples, 1290)]
    updates = {10: 40, 100: 391, 500: 1954, 5000: 5040}[examples]  # 500 * images / 128, rounded up
    frozen, initial, step = (callback["init_args"] for callback in config["trainer"]["callbacks"][:3])
    assert (config["pretrain"]["layers"], frozen["layers"]) == (transfer, freeze if similar == "yes" else 0)
    assert (initial["epochs"], initial["updates_per_epoch"], initial["layers"]) == (decay, updates, "fc8")
    assert (step["every"], step["updates_per_epoch"], config["trainer"]["max_steps"]) == (30, updates, 90 * updates)
    header = path.read_text().partition("model:")[0]
    assert re.match(r"# What .*\?\n", header) and f"tlkit fit --config {path}" in header
    assert "metric not measured" in header and f"--similar {similar}" in header


def overrides(path: Path) -> list[list[str]]:
    """Returns the options that the header of an experiment names, line by line."""
    lines = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    return [line.split() for line in lines if line.startswith("--")]


def test_the_comparisons_that_are_named_in_what_is_written_can_be_made(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.yaml"
    advised(capsys, "--write", str(path))
    free, common, scratch = (load_experiment(["--config", str(path), *words]) for words in overrides(path))
    assert (common["pretrain"]["layers"], scratch["pretrain"]["layers"]) == (7, 0)
    assert scratch["trainer"]["max_steps"] == 3 * common["trainer"]["max_steps"]
    assert free["trainer"]["callbacks"][0]["init_args"]["layers"] == 0 and free["pretrain"]["layers"] == 6
    for config in (common, scratch):
        frozen, initial, step = (callback["init_args"] for callback in config["trainer"]["callbacks"][:3])
        assert config["model"]["init_args"]["lr_scale"] is None and frozen["layers"] == 0
        assert (
            initial["epochs"] * initial["updates_per_epoch"] == config["trainer"]["max_steps"]
        )  # it never falls alone
        assert 3 * step["every"] * step["updates_per_epoch"] == config["trainer"]["max_steps"]


TINY = (
    "--model.network.width 0.05 --model.network.fc_width 8 --data.dataset.images_per_class 24 "
    "--data.dataset.test_images_per_class 4 --data.validation_per_class 4 --trainer.max_steps 4 "
    "--pretrain.with.trainer.max_epochs 1 --trainer.accelerator cpu"
)


@pytest.mark.slow
def test_what_is_written_trains(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.yaml"
    advised(capsys, "--write", str(path))
    places = ["--data.cache_dir", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs")]
    assert main(["fit", "--config", str(path), *TINY.split(), *places]) == 0
    result = read_result(newest(tmp_path / "runs" / "mine", "transfer"))
    assert result["pretrain"]["layers"] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6"]
    assert result["parameters"]["trainable"] == 8 * 8 + 8 + 8 * 5 + 5  # fc7 and fc8


@pytest.mark.slow
def test_what_is_written_for_restoration_trains(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "mine.yaml"
    restored(capsys, "--write", str(path), images=512)
    config = load_experiment(["--config", str(path)])
    assert config["trainer"]["max_epochs"] == 80
    (decay,) = [c["init_args"] for c in config["trainer"]["callbacks"] if c["class_path"].endswith("ExponentialDecay")]
    assert decay["factor"] ** 80 == pytest.approx(0.99**10, rel=1e-4)
    tiny = "--data.image_size 32 --data.validation_structures 1 --data.test_structures 1 --model.network.width 4"
    tiny += " --data.train_structures 2 --pretrain.with.data.train_structures 2 --data.domains [0,10]"
    tiny += " --pretrain.with.trainer.max_epochs 1 --trainer.max_epochs 1"
    places = ["--data.cache_dir", str(tmp_path / "cache"), "--runs", str(tmp_path / "runs")]
    assert main(["fit", "--config", str(path), *tiny.split(), *places, "--trainer.accelerator", "cpu"]) == 0
    result = read_result(newest(tmp_path / "runs" / "mine", "transfer"))
    assert result["parameters"]["trainable"] == result["parameters"]["total"]


def refused(capsys: Capture, *words: str) -> list[str]:
    assert main(["advise", *words]) == 2
    printed = capsys.readouterr()
    assert not printed.out
    return [line.strip() for line in printed.err.splitlines()]


def test_all_faults_are_said_at_once(tmp_path: Path, capsys: Capture) -> None:
    words = "--examples-per-class -5 --classes 1.5 --batch-size 0 --similar maybe --task restore --bach-size 3".split()
    assert refused(capsys, *words, "--write", str(tmp_path)) == [
        "tlkit: advise: 7 faults",
        "--bach-size: no such option; did you mean '--batch-size'? see tlkit advise --help",
        "--task: expected classification or restoration, got 'restore'; did you mean 'restoration'?",
        "--similar: expected yes or no, got 'maybe'",
        "--examples-per-class: expected a whole number from 1 up, got '-5'",
        "--classes: expected a whole number from 2 up, got '1.5'",
        "--batch-size: expected a whole number from 1 up, got '0'",
        f"--write: expected a new file in a directory that exists, got {tmp_path}, which exists",
    ]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (
            "",
            ["--similar: expected yes or no, got nothing", "--classes: expected a whole number from 2 up, got nothing"],
        ),
        ("--task restoration --classes 5", ["--classes: expected none, restoration has no classes"]),
        ("--study no.yaml --table t.csv", ["--study: expected it alone", "--table: expected a file, got t.csv"]),
        ("--mapping m.yaml", ["--table: expected --table and --mapping together, got --mapping alone"]),
        ("--table t.csv --mapping m.yaml --write x.yaml", ["--write: expected none, a table does not say"]),
        ("--runs there", ["--runs: expected it with --study"]),
        ("--similar", ["tlkit: advise: argument --similar: expected one argument"]),
    ],
)
def test_options_that_are_missing_or_contradict_each_other(words: str, messages: list[str], capsys: Capture) -> None:
    lines = refused(capsys, *words.split())
    for message in messages:
        assert any(line.startswith(message) for line in lines), lines


def test_options_without_effect_are_named(capsys: Capture) -> None:
    assert "note: --similar: not used here" in restored(capsys, "--similar", "no", "--classes", "1")


def test_it_answers_without_torch(tmp_path: Path) -> None:
    words = f"--examples-per-class 10 --classes 5 --batch-size 32 --similar yes --write {tmp_path}/a.yaml"
    code = (
        f"import sys; from tlkit.cli import main; main('advise {words}'.split()); "
        "sys.exit('torch' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert yaml.safe_load((tmp_path / "a.yaml").read_text())["trainer"]["max_steps"] == 3600
