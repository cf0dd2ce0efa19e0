"""A user's mistake gives one message that says what to do, exit code 2, and leaves nothing half-written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Write
from test_fit import newest, quiet, weights  # noqa: F401  the fixture applies here too

from tlkit.cli import main

TESTS = Path(__file__).parent


def refused(path: Path, capsys: Any, *args: str, command: str = "fit") -> str:
    """Runs a command that must be refused; returns its message."""
    assert main([command, "--config", str(path), *args]) == 2
    message: str = capsys.readouterr().err
    assert "Traceback" not in message
    assert not list(path.parent.glob("runs/*/*")), "something was written"
    return message


def test_all_faults_of_a_file_are_named_at_once(write: Write, capsys: Any) -> None:
    path = write(
        **{
            "model.init_args.network.init_args": {"widht": 8},
            "data.init_args.batch_size": "many",
            "trainer.max_epoch": 3,
            "trainer.callbacks": [{"class_path": "LayerFreezin", "init_args": {"layers": 1}}],
        }
    )
    message = refused(path, capsys)
    assert "4 faults" in message
    for expected in (
        "did you mean 'width'",
        "expected int, got 'many'",
        "did you mean 'max_epochs'",
        "'LayerFreezing'",
    ):
        assert expected in message


def test_what_is_not_yaml_is_named_with_its_line(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("model:\n  class_path: [unclosed\ntrainer: {max_epochs: 3}\n")
    message = refused(path, capsys)
    assert "line" in message and str(path) in message


def test_a_missing_file_is_named(tmp_path: Path, capsys: Any) -> None:
    assert "nope.yaml, which does not exist" in refused(tmp_path / "nope.yaml", capsys)


def test_an_unknown_option_of_the_command_line_is_named(write: Write, capsys: Any) -> None:
    assert "did you mean 'batch_size'" in refused(write(), capsys, "--data.batch_sise", "4")


def test_a_study_in_place_of_an_experiment_is_named(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nbase: toy.yaml\nscientific: {pretrain.layers: [0, 1]}\n")
    assert refused(path, capsys) == (
        f"tlkit: --config: expected an experiment, got {path}, a study; tlkit study run {path}\n"
    )


def test_a_file_without_its_option_is_recognized(capsys: Any) -> None:
    assert main(["fit", "configs/x.yaml", "--trainer.max_epochs", "3"]) == 2
    assert "did you mean --config configs/x.yaml?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("9", "at most 3 layers, got 9"),
        ("convx", "got 'convx'; did you mean 'conv2'"),
        ("x*", "valid layers: conv1, conv2, fc"),
    ],
)
def test_layers_to_transfer_must_exist(write: Write, capsys: Any, layers: str, message: str) -> None:
    assert message in refused(write(), capsys, "--pretrain.layers", layers)


@pytest.mark.parametrize(
    ("layers", "message"), [(3, "all of them frozen"), ("convx", "got 'convx'"), (4, "at most 3 layers")]
)
def test_layers_to_freeze_must_exist_and_leave_one(write: Write, capsys: Any, layers: object, message: str) -> None:
    path = write(**{"trainer.callbacks": [{"class_path": "LayerFreezing", "init_args": {"layers": layers}}]})
    assert message in refused(path, capsys)


def test_layers_without_a_source_are_refused(write: Write, capsys: Any) -> None:
    assert "pretrain.with" in refused(write(**{"pretrain.with": None}), capsys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data.stag": "pretrain"}, "did you mean 'stage'"),
        ({"callbacks.StepDecay.every": 3}, "StepDecay"),
        ({"trainer.max_epochs": "x"}, "expected int"),
    ],
)
def test_a_pretrain_that_differs_in_what_is_not_there_is_refused(
    write: Write, capsys: Any, change: dict[str, Any], message: str
) -> None:
    assert message in refused(write(**{"pretrain.with": change}), capsys)


def test_a_chain_that_refers_to_itself_is_refused(write: Write, capsys: Any) -> None:
    path = write()
    text = path.read_text()
    at = text.index("pretrain:")
    path.write_text(
        text[:at] + "pretrain: &loop\n  layers: 1\n  with:\n    pretrain: *loop\n" + text[text.index("trainer:") :]
    )
    assert "itself" in refused(path, capsys)


def state(width: int = 4) -> dict[str, torch.Tensor]:
    from toy import ToyNet

    return ToyNet(4, 1, width).state_dict()


def test_a_checkpoint_of_another_network_names_the_tensors(write: Write, tmp_path: Path, capsys: Any) -> None:
    torch.save(state(width=6), tmp_path / "other.pth")
    message = refused(write(), capsys, "--pretrain.checkpoint", str(tmp_path / "other.pth"))
    assert "'conv1.weight' has shape (6, 1, 3, 3), not (4, 1, 3, 3)" in message


def test_a_truncated_checkpoint_is_named(write: Write, tmp_path: Path, capsys: Any) -> None:
    torch.save(state(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1000])
    message = refused(write(), capsys, "--pretrain.checkpoint", str(tmp_path / "cut.pth"))
    assert "cut.pth" in message and "truncated" in message


class Evil:
    """Pickles into a call that would write a file."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("open('owned', 'w')",))


def test_a_checkpoint_with_code_is_refused_and_the_code_is_not_run(
    write: Write, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state(), "extra": Evil()}, tmp_path / "evil.pth")
    message = refused(write(), capsys, "--pretrain.checkpoint", "evil.pth")
    assert "evil.pth" in message and "code" in message
    assert not (tmp_path / "owned").exists()


def test_a_directory_without_a_checkpoint_is_named(write: Write, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "empty").mkdir()
    assert "without checkpoints/best.ckpt" in refused(write(), capsys, "--pretrain.checkpoint", str(tmp_path / "empty"))


def test_resuming_from_a_pretrain_is_refused_with_the_remedy(write: Write, capsys: Any) -> None:
    path = write()
    assert main(["fit", "--config", str(path)]) == 0
    pretrain = newest(path.parent / "runs" / "toy", "pretrain")
    before = sorted(path.parent.glob("runs/*/*"))
    capsys.readouterr()
    assert main(["fit", "--config", str(path), "--ckpt_path", str(pretrain / "checkpoints" / "last.ckpt")]) == 2
    message = capsys.readouterr().err
    assert "of a pretrain stage" in message and "pretrain.checkpoint" in message
    assert sorted(path.parent.glob("runs/*/*")) == before


def test_nan_in_the_input_stops_the_run_and_keeps_the_last_good_checkpoint(write: Write, capsys: Any) -> None:
    path = write(**{"pretrain.layers": 0, "data.init_args.bad_row": 60, "trainer.max_epochs": 5})
    assert main(["fit", "--config", str(path)]) == 3  # row 60 is in the validation part: the first epoch's validation
    message = capsys.readouterr().err
    assert "nput" in message and "60" in message


def test_a_diverging_loss_stops_the_run_at_its_step_and_names_a_layer(write: Write, capsys: Any) -> None:
    path = write(**{"pretrain.layers": 0, "model.init_args.optimizer.init_args.lr": 1e22, "trainer.callbacks": []})
    assert main(["fit", "--config", str(path)]) == 3
    message = capsys.readouterr().err
    assert "step" in message and "conv1" in message
    run = newest(path.parent / "runs" / "toy", "transfer")
    assert not (run / "result.json").exists()


def test_a_mistake_found_by_a_constructor_has_no_traceback(write: Write, capsys: Any) -> None:
    path = write(**{"trainer.callbacks": [{"class_path": "StepDecay", "init_args": {"every": 0}}]})
    assert "at least 1 epoch, got 0" in refused(path, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(write: Write, capsys: Any) -> None:
    message = refused(write(), capsys, "--trainer.accelerator", "gpu")
    assert "No supported gpu backend found! accelerator: auto takes what there is" in message


def test_debug_shows_the_traceback(write: Write, capsys: Any) -> None:
    assert main(["fit", "--config", str(write()), "--pretrain.layers", "9", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_written_checkpoint(write: Write, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.decode()}")
    try:
        path = write(**{"trainer.max_epochs": 2000, "pretrain.layers": 0, "runs": str(disk / "runs")})
        process = subprocess.run(
            [sys.executable, "-m", "tlkit", "fit", "--config", str(path)], cwd=TESTS, capture_output=True, text=True
        )
        assert process.returncode == 2, process.stderr
        assert "room on the disk" in process.stderr
        assert "Traceback" not in process.stderr
        run = newest(disk / "runs" / "toy", "transfer")
        assert not (run / "result.json").exists()
        assert {file.name for file in (run / "checkpoints").iterdir()} <= {"best.ckpt", "last.ckpt"}
        assert weights(run)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
