"""`tlkit lr-range` as a user sees it: what it prints, leaves, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Write
from test_commands import printed, refused
from test_fit import newest, quiet, rows  # noqa: F401  the fixture applies here too
from tlkit_callbacks.one_cycle import OneCycle  # noqa: F401  so that the parser knows its name

from tlkit.cli import main
from tlkit.commands import load_experiment
from tlkit.experiment import plan
from tlkit.runs import find_finished, find_unfinished

SCRATCH: dict[str, Any] = {"pretrain.layers": 0}


def sweep(capsys: Any, path: Path, *words: str) -> tuple[str, Path]:
    """Runs the command; returns what it prints and the newest directory it left."""
    out = printed(capsys, "lr-range", "--config", str(path), *words)
    return out, newest(path.parent / "runs" / path.stem, "lr-range")


def content(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "lr_range.json").read_text())
    return found


def test_it_pretrains_sweeps_and_leaves_numbers_and_a_picture(write: Write, capsys: Any) -> None:
    path = write()
    out, directory = sweep(capsys, path)
    stage = plan(load_experiment(["--config", str(path)]))
    assert directory.name == f"lr-range-{stage.id[:8]}"
    names = {"lr_range.json", "lr_range.png", "log.txt", "config.yaml", "identity.json"}
    assert {file.name for file in directory.iterdir()} == names
    assert (directory / "lr_range.png").read_bytes()[:4] == b"\x89PNG"
    found = content(directory)
    assert found["id"] == stage.id and found["metric"] == "training loss"
    assert found["options"]["updates"] == 100 and found["rates"][0] == pytest.approx(1e-7)
    for name, rate in found["suggestions"].items():
        assert f"  {name:<11}{rate:.2g}\n" in out
    low, high = found["band"]
    assert f"band       {low:.2g} … {high:.2g}\n" in out and str(directory / "lr_range.png") in out
    (block,) = yaml.safe_load(out[out.index("- {class_path") :])
    assert block["class_path"] == "OneCycle"
    assert float(block["init_args"]["peak_lr"]) == found["one_cycle"]["peak_lr"] == pytest.approx(high, rel=0.05)
    assert "transferred 2 layers: conv1, conv2" in (directory / "log.txt").read_text()


def test_a_second_sweep_is_the_same_and_overwrites_nothing_and_no_sweep_is_taken_for_a_run(
    write: Write, capsys: Any
) -> None:
    path = write()
    _, first = sweep(capsys, path)
    out, second = sweep(capsys, path)
    assert second.name == f"{first.name}-2" and "reusing the finished pretrain" in out
    assert content(first) == content(second)
    stage = plan(load_experiment(["--config", str(path)]))
    for name in ("transfer", "pretrain"):
        assert find_finished(stage.root, name, stage.id) is None and find_unfinished(stage.root, name, stage.id) is None
    assert main(["fit", "--config", str(path)]) == 0
    assert len(list(first.parent.glob("pretrain-*"))) == 1


def test_the_options_of_the_sweep_and_of_the_experiment_hold(write: Write, capsys: Any) -> None:
    path = write(**SCRATCH)
    words = ("--min_lr", "0.001", "--max_lr=0.1", "--updates", "20", "--sweep", "linear", "--data.batch_size", "4")
    main(["lr-range", "--config", str(path), *words])
    found = content(newest(path.parent / "runs" / "toy", "lr-range"))
    assert found["rates"][:2] == pytest.approx([0.001, 0.001 + 0.099 / 19])
    assert plan(load_experiment(["--config", str(path), "--data.batch_size", "4"])).id == found["id"]


def test_a_validation_metric_is_watched_in_its_own_direction(write: Write, capsys: Any) -> None:
    path = write(**SCRATCH)
    main(["lr-range", "--config", str(path), "--metric", "val/accuracy", "--every", "10"])
    found = content(newest(path.parent / "runs" / "toy", "lr-range"))
    assert (found["metric"], found["mode"], len(found["values"])) == ("val/accuracy", "max", 10)
    assert all(0 <= value <= 1 for value in found["values"])


def test_layers_that_the_experiment_freezes_are_frozen_in_the_sweep_and_schedules_do_nothing(
    write: Write, capsys: Any
) -> None:
    freezing = {"class_path": "LayerFreezing", "init_args": {"layers": ["conv1", "conv2"]}}
    decay = {"class_path": "StepDecay", "init_args": {"every": 1, "factor": 1e-9}}
    curves = []
    for name, callbacks in (("a", [freezing, decay]), ("b", [freezing]), ("c", [])):
        _, directory = sweep(capsys, write(f"{name}.yaml", **SCRATCH | {"trainer.callbacks": callbacks}))
        curves.append(content(directory)["values"])
    assert curves[0] == curves[1] != curves[2]


@pytest.mark.parametrize("callbacks", [[], [{"class_path": "OneCycle", "init_args": {"pct_start": 0.2}}]])
def test_the_rate_is_written_into_a_copy_that_trains(callbacks: Any, write: Write, capsys: Any) -> None:
    path = write(**SCRATCH | {"trainer.callbacks": callbacks})
    path.write_text("# my question\n" + path.read_text())
    copy = path.with_name("cycle.yaml")
    out, directory = sweep(capsys, path, "--write", str(copy), "--trainer.max_epochs", "1")
    peak = content(directory)["one_cycle"]["peak_lr"]
    assert f"written: tlkit fit --config {copy} --trainer.max_epochs 1" in out
    assert copy.read_text().startswith("# my question\n")
    words = ["--config", str(copy), "--trainer.max_epochs", "1", "--name", "cycle"]
    (one_cycle,) = yaml.safe_load(printed(capsys, "config", *words))["trainer"]["callbacks"]
    assert one_cycle["init_args"]["peak_lr"] == peak
    assert one_cycle["init_args"]["pct_start"] == (0.2 if callbacks else 0.3)
    assert main(["fit", *words]) == 0
    (row,) = rows(newest(path.parent / "runs" / "cycle", "transfer"))
    assert row["lr/fc"] == pytest.approx(peak / 1e4)  # of the last update


def test_somebody_elses_module_is_swept_with_its_own_data(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "foreign.yaml"
    trainer = {"accelerator": "cpu", "enable_progress_bar": False, "callbacks": [{"class_path": "LayerFreezing"}]}
    trainer["callbacks"][0]["init_args"] = {"layers": "body"}  # type: ignore[index]
    config = {"model": {"class_path": "foreign.Foreign"}, "trainer": trainer, "runs": str(tmp_path / "runs")}
    path.write_text(yaml.safe_dump(config))
    out, directory = sweep(capsys, path)
    assert content(directory)["one_cycle"]["momentum_min"] is None  # plain SGD
    assert "momentum_min: null, momentum_max: null" in out


def test_a_copy_with_two_schedules_is_written_and_its_fault_is_said(write: Write, capsys: Any) -> None:
    path = write(**SCRATCH | {"trainer.callbacks": [{"class_path": "CosineDecay"}]})
    import tlkit_callbacks.cosine_decay  # noqa: F401

    copy = path.with_name("two.yaml")
    assert main(["lr-range", "--config", str(path), "--write", str(copy)]) == 2
    said = capsys.readouterr()
    assert "tlkit fit" not in said.out and f"{copy} is written, but cannot be trained yet" in said.err
    assert f"CosineDecay and OneCycle; remove all but one; then tlkit fit --config {copy}\n" in said.err
    assert "OneCycle" in copy.read_text()


def test_a_flat_curve_is_drawn_and_no_rate_is_written(write: Write, capsys: Any) -> None:
    path = write(**SCRATCH)
    copy = path.with_name("copy.yaml")
    message = refused(capsys, "lr-range", "--config", str(path), "--max_lr", "1e-6", "--write", str(copy))
    directory = newest(path.parent / "runs" / "toy", "lr-range")
    assert "no suggestion" in message and "raise max_lr" in message
    assert str(directory / "lr_range.png") in message and (directory / "lr_range.png").exists()
    assert content(directory)["suggestions"] == {} and content(directory)["one_cycle"] is None
    assert not copy.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--min_lr", "1", "--max_lr", "0.1"), "0 < min_lr < max_lr, got min_lr 1 and max_lr 0.1"),
        (("--updates", "5"), "at least 10 updates, got 5"),
        (("--updates", "many"), "--updates: invalid int value: 'many'"),
        (("--sweep", "square"), "exponential"),
        (("--metric", "val/loss", "--updates", "40"), "at least 50 updates"),
        (("--ckpt_path", "last"), "ckpt_path: expected none"),
        (("--write", "{path}"), "expected a new file"),
        (("--write", "nowhere/x.yaml"), "lies in no directory"),
        (("--updatse", "20"), "updatse"),
    ],
)
def test_nonsense_is_refused_before_anything_is_trained(
    words: tuple[str, ...], message: str, write: Write, capsys: Any
) -> None:
    path = write()
    words = tuple(word.format(path=path) for word in words)
    assert message in refused(capsys, "lr-range", "--config", str(path), *words)
    assert not (path.parent / "runs").exists()


def test_a_metric_that_is_not_logged_is_refused_with_those_that_are(write: Write, capsys: Any) -> None:
    message = refused(capsys, "lr-range", "--config", str(write(**SCRATCH)), "--metric", "val/acc")
    assert "got 'val/acc'; did you mean 'val/f1" in message or "did you mean 'val/accuracy'" in message
    assert "logged: " in message and "val/loss" in message


def test_ctrl_c_is_an_interruption(write: Write, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit.lr_sweep import Sweep

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sweep, "on_before_optimizer_step", interrupt)
    assert main(["lr-range", "--config", str(write(**SCRATCH))]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_help_names_its_own_options_and_where_the_others_are(capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["lr-range", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: tlkit lr-range --config FILE [options]\n")
    for word in ("--min_lr RATE", "(1e-07)", "--metric", "--write FILE", "tlkit fit --help"):
        assert word in said
