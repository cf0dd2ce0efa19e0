"""`tlkit fit` as a user sees it: two stages, what they leave, what is found again, what a resumed run gives."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Write
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tlkit.cli import main
from tlkit.runs import read_result

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The command filters Lightning's remarks itself; pytest's own filters would turn them into errors first."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


def fit(path: Path, *args: str) -> Path:
    """Fits and returns the newest transfer run."""
    assert main(["fit", "--config", str(path), *args]) == 0
    return newest(path.parent / "runs" / path.stem, "transfer")


def newest(directory: Path, stage: str) -> Path:
    return max(directory.glob(f"{stage}-*"), key=lambda path: path.stat().st_mtime_ns)


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_what_is_needed_to_look_at_it_and_to_trust_it(write: Write) -> None:
    run = fit(write())
    assert {path.name for path in run.iterdir()} >= {
        *("config.yaml", "result.json", "metrics.csv", "curves.png", "log.txt", "split.json", "confusion.png"),
    }
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    result = read_result(run)
    assert result["metric"]["name"] == "val/accuracy"
    accuracy = [row["val/accuracy"] for row in rows(run)]
    assert len(set(accuracy)) > 1, "the toy problem is too easy to tell epochs apart"
    assert (result["metric"]["best"], result["metric"]["last"]) == (max(accuracy), accuracy[-1])
    assert result["metric"]["best_epoch"] == accuracy.index(max(accuracy))
    assert result["metrics"]["val/accuracy"] == max(accuracy)
    assert set(result["seconds"]) == {"fit", "train", "validate", "test", "checkpoint", "setup"}
    assert result["parameters"] == {"total": 456, "trainable": 408}  # conv1: 4·9 + 4, its norm: 8
    assert result["pretrain"]["layers"] == ["conv1", "conv2"]
    assert (result["device"], result["seed"], result["energy"]) == ("cpu", 0, None)
    assert result["memory"]["peak_bytes"] > 50e6


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can start the record of a process anew")
def test_peak_memory_is_that_of_the_run_not_of_what_its_process_did_before(write: Write) -> None:
    path = write()
    ballast = bytearray(b"x" * 2**30)
    del ballast
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    assert main(["fit", "--config", str(path)]) == 0
    run = newest(path.parent / "runs" / "toy", "transfer")
    assert read_result(run)["memory"]["peak_bytes"] < before + 2**29


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process may inherit the record of its parent")
def test_peak_memory_is_not_that_of_the_process_that_started_this_one() -> None:
    child = "import torch; from tlkit.memory import peak_bytes; print(peak_bytes(torch.device('cpu')))"
    ballast = bytearray(b"x" * 2**31)
    inside = int(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True).stdout)
    del ballast
    assert 2**24 < inside < 2**30


def rows(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.csv").read_text().splitlines()
    keys = lines[0].split(",")
    return [dict(zip(keys, map(float, line.split(",")), strict=True)) for line in lines[1:]]


def test_tensorboard_shows_losses_metrics_and_the_rate_of_each_layer(write: Write) -> None:
    run = fit(write())
    events = EventAccumulator(str(run), size_guidance={"images": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"train/loss", "val/loss", "val/accuracy", "lr/conv1", "lr/conv2", "lr/fc", "test/accuracy"} <= scalars
    assert "final/test/accuracy" in scalars
    assert [event.value for event in events.Scalars("lr/fc")] == pytest.approx([0.05] * 3)
    assert events.Tags()["images"]


def test_transferred_and_frozen_layers_hold_the_pretrains_weights(write: Write) -> None:
    run = fit(write())
    pretrained = weights(newest(run.parent, "pretrain"), "best")
    after = weights(run)
    frozen = [key for key in after if key.startswith(("network.conv1", "network.norm1"))]
    assert len(frozen) == 7
    assert all(torch.equal(after[key], pretrained[key]) for key in frozen)
    assert not torch.equal(after["network.conv2.weight"], pretrained["network.conv2.weight"])
    assert torch.equal(after["input_mean"], pretrained["input_mean"])


def test_a_finished_pretrain_is_used_again_and_the_result_is_the_same(write: Write, capsys: Any) -> None:
    path = write()
    first = fit(path)
    second = fit(path)
    assert second.name == f"{first.name}-2"
    assert "reusing the finished pretrain" in capsys.readouterr().out
    assert len(list(first.parent.glob("pretrain-*"))) == 1
    assert read_result(first)["metrics"] == read_result(second)["metrics"]
    assert equal(weights(first), weights(second))


def test_reuse_can_be_refused(write: Write) -> None:
    path = write()
    run = fit(path)
    fit(path, "--pretrain.reuse", "false")
    assert len(list(run.parent.glob("pretrain-*"))) == 2


def test_reordering_and_comments_change_no_identity_but_a_value_does(write: Write) -> None:
    path = write()
    run = fit(path)
    config = yaml.safe_load(path.read_text())
    path.write_text("# a comment\n" + yaml.safe_dump(dict(reversed(config.items()))))
    assert fit(path).name == f"{run.name}-2"
    assert not fit(path, "--trainer.max_epochs", "4").name.startswith(run.name)
    assert len(list(run.parent.glob("pretrain-*"))) == 1
    fit(path, "--model.optimizer.lr", "0.02")
    assert len(list(run.parent.glob("pretrain-*"))) == 2


def test_the_resolved_configuration_repeats_the_run(write: Write, tmp_path: Path) -> None:
    run = fit(write())
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    again = newest(run.parent, "transfer")
    assert again.name == f"{run.name}-2"
    assert equal(weights(run), weights(again))


def test_zero_layers_train_from_scratch_without_a_pretrain(write: Write) -> None:
    run = fit(write(), "--pretrain.layers", "0", "--trainer.callbacks", "[]")
    assert not list(run.parent.glob("pretrain-*"))
    assert read_result(run)["pretrain"] is None


def test_the_number_of_data_workers_changes_nothing(write: Write) -> None:
    path = write()
    first = fit(path)
    shutil.rmtree(path.parent / "cache")
    second = fit(path, "--data.num_workers", "2", "--pretrain.reuse", "false")
    assert second.name == f"{first.name}-2"
    assert equal(weights(first), weights(second))


def test_without_validation_the_last_checkpoint_is_tested(write: Write) -> None:
    run = fit(write(**{"data.init_args.validation": False}))
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    result = read_result(run)
    assert result["metric"]["name"] == "train/loss"
    assert result["metric"]["best_epoch"] == 2
    assert "test/accuracy" in result["metrics"]


def test_a_chain_of_three_stages(write: Write) -> None:
    path = write()
    config = yaml.safe_load(path.read_text())
    config["pretrain"]["with"]["pretrain"] = {
        "layers": "conv1",
        "with": {"seed_everything": 7, "data.stage": "pretrain"},
    }
    path.write_text(yaml.safe_dump(config))
    run = fit(path)
    pretrains = [read_result(path) for path in run.parent.glob("pretrain-*")]
    middle = next(result for result in pretrains if result["pretrain"])
    assert sorted(result["seed"] for result in pretrains) == [0, 7]
    assert middle["pretrain"]["layers"] == ["conv1"]
    assert read_result(run)["pretrain"]["id"] == middle["id"]


def test_external_weights_start_a_run_from_a_directory_a_checkpoint_or_a_state_dict(
    write: Write, tmp_path: Path
) -> None:
    run = fit(write())
    pretrain = newest(run.parent, "pretrain")
    state = {
        key.removeprefix("network."): value for key, value in weights(pretrain, "best").items() if "network" in key
    }
    torch.save(state, tmp_path / "plain.pth")
    for source in (pretrain, pretrain / "checkpoints" / "best.ckpt"):
        other = fit(write(), "--pretrain.checkpoint", str(source))
        assert equal(weights(run), weights(other))
    plain = weights(fit(write(), "--pretrain.checkpoint", str(tmp_path / "plain.pth")))
    assert torch.equal(plain["network.conv1.weight"], weights(run)["network.conv1.weight"])


def start(path: Path, *args: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tlkit", "fit", "--config", str(path), *args]
    return subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path: Path, pattern: str, process: "subprocess.Popen[str]", seconds: float = 120) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        found = sorted(path.glob(pattern))
        if found:
            return found[0]
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"no {pattern}: {process.communicate(timeout=60)[0]}")


@pytest.mark.parametrize(
    "moment", ["pretrain-*/checkpoints/last.ckpt", "transfer-*/config.yaml", "transfer-*/checkpoints/last.ckpt"]
)
def test_a_killed_run_that_is_resumed_ends_as_if_it_had_not_been(write: Write, tmp_path: Path, moment: str) -> None:
    longer = {"trainer.max_epochs": 30, "pretrain.with": {"data.stage": "pretrain", "trainer.max_epochs": 30}}
    path = write("killed.yaml", **longer)
    process = start(path)
    wait_for(tmp_path / "runs" / "killed", moment, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((tmp_path / "runs" / "killed").glob("transfer-*/result.json"))
    resumed = fit(path, "--ckpt_path", "last")
    reference = fit(write("reference.yaml", **longer), "--pretrain.reuse", "false")
    assert read_result(resumed)["metrics"] == read_result(reference)["metrics"]
    assert (resumed / "metrics.csv").read_text() == (reference / "metrics.csv").read_text()
    assert equal(weights(resumed), weights(reference))
    assert equal(weights(resumed, "best"), weights(reference, "best"))
    assert not list(resumed.parent.glob("transfer-*-2"))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_keeps_the_last_checkpoint_and_prints_how_to_go_on(
    write: Write, tmp_path: Path, stop: signal.Signals
) -> None:
    path = write(**{"trainer.max_epochs": 2000})
    process = start(path)
    checkpoint = wait_for(tmp_path / "runs" / "toy", "transfer-*/checkpoints/last.ckpt", process)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"tlkit fit --config {path} --ckpt_path last" in output
    assert "Traceback" not in output
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= 0


def test_two_processes_that_want_the_same_pretrain_train_it_once(write: Write, tmp_path: Path) -> None:
    slow = {"pretrain.with": {"data.stage": "pretrain", "trainer.max_epochs": 150}}
    processes = [start(write(f"{name}.yaml", **slow)) for name in ("one", "two")]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(list((tmp_path / "runs").glob("*/pretrain-*"))) == 1
    assert sum("reusing the finished pretrain" in output for output in outputs) == 1
    results = [read_result(newest(tmp_path / "runs" / name, "transfer")) for name in ("one", "two")]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_json_of_the_result_is_strict(write: Write) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads((fit(write()) / "result.json").read_text(), parse_constant=refuse)


def test_lightnings_own_checkpoint_callback_keeps_every_epoch_where_it_is_asked_to(write: Write) -> None:
    every = {"class_path": "ModelCheckpoint", "init_args": {"save_top_k": -1, "filename": "{epoch}"}}
    run = fit(write(**{"trainer.callbacks": [every]}))
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"best.ckpt", "last.ckpt", "epoch=0.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"}


def test_early_stopping_ends_a_run_that_is_complete_all_the_same(write: Write) -> None:
    stop = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss", "patience": 1, "min_delta": 100.0}}
    run = fit(write(**{"trainer.callbacks": [stop]}), "--trainer.max_epochs", "50")
    assert len(rows(run)) == 2
    assert "test/accuracy" in read_result(run)["metrics"]


def test_steps_limit_a_run_in_the_middle_of_an_epoch(write: Write) -> None:
    run = fit(write(), "--trainer.max_epochs", "-1", "--trainer.max_steps", "9")
    assert read_result(run)["metrics"]["test/accuracy"] >= 0
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 9


def test_an_extended_run_goes_on_where_it_ended(write: Write) -> None:
    path = write()
    short = fit(path)
    longer = fit(path, "--trainer.max_epochs", "5", "--ckpt_path", str(short / "checkpoints" / "last.ckpt"))
    assert [row["epoch"] for row in rows(longer)] == [0, 1, 2, 3, 4]
    assert rows(longer)[:3] == rows(short)
    assert equal(weights(longer), weights(fit(path, "--trainer.max_epochs", "5")))


def test_a_foreign_module_with_its_own_data_is_trained_frozen_and_recorded(tmp_path: Path) -> None:
    config = {
        "model": {"class_path": "foreign.Foreign"},
        "trainer": {
            "max_epochs": 2,
            "enable_progress_bar": False,
            "callbacks": [{"class_path": "LayerFreezing", "init_args": {"layers": "body"}}],
        },
        "runs": str(tmp_path / "runs"),
    }
    (tmp_path / "foreign.yaml").write_text(yaml.safe_dump(config))
    run = fit(tmp_path / "foreign.yaml")
    losses = [row["train/loss"] for row in rows(run)]
    result = read_result(run)
    assert result["metric"] | {"mode": "min"} == {
        **{"name": "train/loss", "mode": "min", "best": losses[1], "best_epoch": 1, "best_step": 8, "last": losses[1]}
    }
    assert losses[1] < losses[0]
    assert result["parameters"] == {"total": 21, "trainable": 5}


def test_a_torchvision_network_is_transferred_by_its_own_layer_names(write: Write) -> None:
    small = {"classes": 4, "images_per_class": 12, "test_images_per_class": 4}
    fractals = {"class_path": "Fractals", "init_args": small}
    path = write(
        **{
            "model.init_args.network": {"class_path": "TorchvisionNetwork", "init_args": {"name": "resnet18"}},
            "data": {
                "class_path": "ClassSplit",
                "init_args": {"dataset": fractals, "validation_per_class": 4, "image_size": 32, "batch_size": 8},
            },
            "pretrain": {"layers": ["conv1", "layer1"], "with": {"data.stage": "pretrain", "trainer.max_epochs": 1}},
            "trainer.callbacks": [{"class_path": "LayerFreezing", "init_args": {"layers": "conv1"}}],
            "trainer.max_epochs": 1,
        }
    )
    run = fit(path, "--data.cache_dir", str(path.parent / "cache"))
    assert read_result(run)["pretrain"]["layers"] == ["conv1", *(f"layer1.{i}.conv{j}" for i in (0, 1) for j in (1, 2))]
    pretrained = weights(newest(run.parent, "pretrain"), "best")
    assert torch.equal(weights(run)["network.conv1.weight"], pretrained["network.conv1.weight"])
    assert not torch.equal(weights(run)["network.fc.weight"], pretrained["network.fc.weight"])


def test_a_resumed_run_is_evaluated_before_its_transfer_like_any_other(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlkit.tasks import Classification

    monkeypatch.setattr(Classification, "evaluate_before", True)
    path = write()
    first = fit(path)
    whole = fit(path, "--trainer.max_epochs", "5")
    resumed = fit(path, "--trainer.max_epochs", "5", "--ckpt_path", str(first / "checkpoints" / "last.ckpt"))
    assert "before/accuracy" in read_result(whole)["metrics"]
    assert read_result(resumed)["metrics"] == read_result(whole)["metrics"]
    assert equal(weights(resumed), weights(whole))


def test_weights_without_their_normalisation_are_said_to_be(write: Write, tmp_path: Path, capsys: Any) -> None:
    from toy import ToyNet

    torch.save(ToyNet(4, 1).state_dict(), tmp_path / "plain.pth")
    fit(write(), "--pretrain.checkpoint", str(tmp_path / "plain.pth"))
    assert "without the normalisation" in capsys.readouterr().out
    given = {"mean": [0.5], "std": [2.0]}
    run = fit(write(**{"model.init_args.normalisation": given}), "--pretrain.checkpoint", str(tmp_path / "plain.pth"))
    assert "without the normalisation" not in capsys.readouterr().out
    assert (weights(run)["input_mean"].item(), weights(run)["input_std"].item()) == (0.5, 2.0)


def test_a_run_that_was_cut_off_is_named_when_another_is_started(write: Write, capsys: Any) -> None:
    path = write()
    first = fit(path)
    (first / "result.json").unlink()
    capsys.readouterr()
    second = fit(path)
    assert second.name == f"{first.name}-2"
    assert f"was cut off: {first}; --ckpt_path last" in capsys.readouterr().out


def test_the_log_holds_the_command_each_epoch_and_the_result(write: Write) -> None:
    run = fit(write())
    log = (run / "log.txt").read_text()
    assert log.count("epoch 2, step 18") == 1
    assert "command: " in log and '"test/accuracy"' in log
    assert "weights_only" not in log
