"""Data that are missing, too few or damaged: one message that says what to do, exit code 2, nothing half-written."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Write
from PIL import Image
from test_configs import fashion_mnist
from test_fit import newest, quiet  # noqa: F401  the fixture applies here too

from tlkit.cli import main
from tlkit.data import ClassSplit, ImageFolder
from tlkit.runs import read_result

PER_CLASS = 8


def folder(root: Path, classes: int = 4, images: int = PER_CLASS) -> Path:
    """Writes noise, 20 × 20 pixels, with a brightness for each class."""
    random = np.random.default_rng(0)
    for label in range(classes):
        (root / f"c{label}").mkdir(parents=True)
        for number in range(images):
            pixels = random.integers(40 * label, 40 * label + 80, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"c{label}" / f"{number}.png")
    return root


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A small AlexNet on the folder ``images``, one epoch of 2 images per class in each stage."""
    content = {
        "model": {
            "class_path": "Classification",
            "init_args": {
                "network": {
                    "class_path": "AlexNet",
                    "init_args": {"image_size": 64, "width": 0.1, "fc_width": 8, "pool": 1},
                }
            },
        },
        "data": {
            "class_path": "ClassSplit",
            "init_args": {
                "dataset": {"class_path": "ImageFolder", "init_args": {"root": str(tmp_path / "images")}},
                "examples_per_class": 2,
                "validation_per_class": 1,
                "cache_dir": str(tmp_path / "cache"),
            },
        },
        "pretrain": {"layers": 2, "with": {"data.stage": "pretrain"}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "runs": str(tmp_path / "runs"),
    }
    path = tmp_path / "images.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def refused(config: Path, capsys: Any, *args: str) -> str:
    """Runs a fit that must be refused; returns its message."""
    code = main(["fit", "--config", str(config), *args])
    message: str = capsys.readouterr().err
    assert code == 2, message
    assert message.count("tlkit: ") == 1 and len(message.strip().splitlines()) == 1
    assert "Traceback" not in message
    assert not (config.parent / "runs").exists()
    packed = [path for path in (config.parent / "cache").glob("*") if path.is_dir() and path.name != "hashes"]
    assert not [path for path in packed if not (path / "meta.json").exists()]
    return message


def fitted(config: Path, *args: str) -> Path:
    """Runs a fit that must succeed; returns its directory."""
    assert main(["fit", "--config", str(config), *args]) == 0
    return newest(config.parent / "runs" / config.stem, "transfer")


def test_a_missing_folder_is_named_with_its_option(config: Path, capsys: Any) -> None:
    message = refused(config, capsys)
    assert f"got {config.parent / 'images'}" in message and "--data.dataset.root" in message


def test_a_file_in_place_of_the_folder_is_named(config: Path, capsys: Any) -> None:
    (config.parent / "images").write_text("no folder")
    assert "expected a folder of images" in refused(config, capsys)


def test_an_empty_folder_is_named_with_its_option(config: Path, capsys: Any) -> None:
    (config.parent / "images").mkdir()
    message = refused(config, capsys)
    assert f"one folder per class in {config.parent / 'images'}, got none" in message
    assert "--data.dataset.root" in message


def test_an_empty_class_is_named(config: Path, capsys: Any) -> None:
    (folder(config.parent / "images") / "empty").mkdir()
    assert "got none of ['empty']" in refused(config, capsys)


def test_too_few_classes_for_two_stages_are_counted(config: Path, capsys: Any) -> None:
    folder(config.parent / "images", classes=3)
    assert "at least 2 of the 3 classes in stage pretrain, got 1" in refused(config, capsys)


@pytest.mark.parametrize("stage", ["pretrain", "transfer"])
def test_a_class_with_too_few_images_is_named_before_anything_is_trained(config: Path, capsys: Any, stage: Any) -> None:
    images = folder(config.parent / "images")
    name = ClassSplit(ImageFolder(str(images)), stage=stage).stage_classes()[1]
    for number in range(PER_CLASS - 2):
        (images / name / f"{number}.png").unlink()
    message = refused(config, capsys)
    expected = f"at least 3 training images (2 to train on, 1 to validate on) of class '{name}', got 1"
    assert expected in message and "lower --data.examples_per_class" in message


def test_truncated_files_and_other_types_are_refused_by_name(config: Path, capsys: Any) -> None:
    images = folder(config.parent / "images")
    whole = (images / "c1" / "3.png").read_bytes()
    (images / "c1" / "3.png").write_bytes(whole[: len(whole) // 2])
    (images / "c2" / "notes.txt").write_text("no image")
    message = refused(config, capsys)
    assert "got 2 files" in message and "c1/3.png" in message and "c2/notes.txt" in message
    assert "--data.dataset.skip_broken true" in message


def test_broken_files_are_skipped_and_counted_by_option(config: Path, capsys: Any) -> None:
    images = folder(config.parent / "images")
    (images / "c1" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    (images / "c2" / "notes.txt").write_text("no image")
    run = fitted(config, "--data.dataset.skip_broken", "true")
    output = capsys.readouterr().out
    assert output.count("2 of 33 images cannot be read and are left out") == 1
    described = json.loads((run / "split.json").read_text())
    assert described["left_out"] == 2
    used = json.dumps(described["images"])
    assert "notes.txt" not in used and "c1/3.png" not in used


def idx_config(config: Path) -> Path:
    """Turns the experiment to IDX files of 60 images each; returns their folder."""
    content = yaml.safe_load(config.read_text())
    root = fashion_mnist(config.parent / "idx")
    content["data"]["init_args"]["dataset"] = {"class_path": "FashionMNIST", "init_args": {"root": str(root)}}
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return root


def test_a_wrong_magic_number_is_named_with_its_file(config: Path, capsys: Any) -> None:
    path = idx_config(config) / "train-images-idx3-ubyte"
    path.write_bytes(b"\x00\x00\x08\x01" + path.read_bytes()[4:])
    message = refused(config, capsys)
    assert "expected magic number 2051" in message and f"{path}, got 2049" in message


def test_a_wrong_length_is_named_with_its_file(config: Path, capsys: Any) -> None:
    path = idx_config(config) / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused(config, capsys)
    assert f"expected {16 + 60 * 784} bytes in {path}" in message and f"got {16 + 60 * 784 - 100}" in message


def test_a_cut_off_compressed_file_is_named(config: Path, capsys: Any) -> None:
    path = idx_config(config) / "train-labels-idx1-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(packed[: len(packed) // 2])
    assert f"expected a complete gzip file, got {path}.gz" in refused(config, capsys)


def test_missing_idx_files_are_named_with_their_package(config: Path, capsys: Any) -> None:
    (idx_config(config) / "t10k-labels-idx1-ubyte").unlink()
    message = refused(config, capsys)
    assert "four IDX files" in message and "dataset-fashion-mnist" in message


def test_images_too_small_for_the_network_are_refused_with_the_smallest_size(config: Path, capsys: Any) -> None:
    folder(config.parent / "images")
    network = "--model.network.image_size"
    assert "at least 63 x 63 pixels, got 40 x 40" in refused(config, capsys, network, "40")
    assert "at least 63 x 63 pixels, got 40 x 40" in refused(config, capsys, "--data.image_size", "40")


def test_images_too_small_for_another_network_are_refused(config: Path, capsys: Any) -> None:
    folder(config.parent / "images")
    network = ("--model.network", "TorchvisionNetwork", "--model.network.name", "alexnet")
    message = refused(config, capsys, *network, "--data.image_size", "20", "--pretrain.layers", "0")
    assert "(3, 20, 20)" in message and "data.image_size" in message


def test_a_cache_entry_that_was_cut_off_is_built_again_and_the_run_goes_on(config: Path, capsys: Any) -> None:
    folder(config.parent / "images")
    first = read_result(fitted(config))
    (packed,) = config.parent.glob("cache/ImageFolder-*/input.npy")
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    capsys.readouterr()
    second = read_result(fitted(config, "--pretrain.reuse", "false"))
    assert "incomplete or damaged; building it again" in capsys.readouterr().out
    assert packed.read_bytes() == whole
    assert first["metrics"] == second["metrics"]


def test_a_pretrain_that_is_found_needs_none_of_its_data(write: Write, tmp_path: Path) -> None:
    path = write()
    assert main(["fit", "--config", str(path)]) == 0
    packed = list(tmp_path.glob("cache/toy-*/"))
    assert len(packed) == 2
    for entry in packed:
        for file in entry.iterdir():
            file.unlink()
        entry.rmdir()
    assert main(["fit", "--config", str(path)]) == 0
    assert len(list(tmp_path.glob("cache/toy-*/"))) == 1


def test_freezing_more_than_was_transferred_warns(config: Path, capsys: Any) -> None:
    folder(config.parent / "images")
    callbacks = '[{"class_path": "LayerFreezing", "init_args": {"layers": 3}}]'
    run = fitted(config, "--trainer.callbacks", callbacks)
    warning = "freezes layers with random weights, they were not transferred: conv3;"
    assert warning in capsys.readouterr().out and warning in (run / "log.txt").read_text()
