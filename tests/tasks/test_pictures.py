"""Pictures reach TensorBoard and the run directory."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_tasks import QUIET, ImageData, MaskData, TinyData, classifier, image_network, image_pairs, labelled, trainer

from tlkit.tasks import Classification, Restoration, Task
from tlkit.tasks.pictures import confusion_figure

pytestmark = QUIET


def pictures(folder: Path) -> dict[str, list[tuple[int, np.ndarray]]]:
    """Returns tag -> (step, pixels) of each picture in the event files."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {
        tag: [
            (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))) for event in events.Images(tag)
        ]
        for tag in events.Tags()["images"]
    }


def run(task: Task, data: TinyData, folder: Path, test: bool = False) -> dict[str, list[tuple[int, np.ndarray]]]:
    task.run_dir = folder / "run"
    task.run_dir.mkdir()
    runner = trainer(max_epochs=2, logger=TensorBoardLogger(folder, name="", version="board"))
    runner.fit(task, datamodule=data)
    if test:
        runner.test(task, data, verbose=False)
    return pictures(folder / "board")


def test_restored_images_after_each_epoch(tmp_path: Path) -> None:
    data = ImageData(image_pairs(16), image_pairs(6, seed=1))
    found = run(Restoration(image_network()), data, tmp_path)
    assert [step for step, _ in found["val/images"]] == [2, 4]
    (_, first), (_, second) = found["val/images"]
    assert first.shape == second.shape and first.shape[0] > 500
    changed = (first != second).any(-1).any(0)  # per column of pixels, below the title
    assert changed.any() and not (first != second)[120:, : first.shape[1] // 3].any()  # inputs keep their colours
    written = np.asarray(Image.open(tmp_path / "run" / "images.png").convert("RGB"))
    np.testing.assert_array_equal(written, second)


def test_masks(tmp_path: Path) -> None:
    noisy, clean = image_pairs(16)
    part = noisy, (clean[:, 0] > 0.5).long()
    found = run(Restoration(image_network(2)), MaskData(part, part), tmp_path)
    assert len(found["val/images"]) == 2 and (tmp_path / "run" / "images.png").is_file()


def test_confusion_matrices(tmp_path: Path) -> None:
    data = TinyData(labelled(), labelled(seed=1), test=labelled(seed=2))
    data.class_names = ["ant", "bee", "cat"]
    found = run(Classification(classifier()), data, tmp_path, test=True)
    assert {tag: [step for step, _ in images] for tag, images in found.items()} == {
        "val/confusion": [4],
        "test/confusion": [4],
    }
    written = np.asarray(Image.open(tmp_path / "run" / "confusion.png").convert("RGB"))
    np.testing.assert_array_equal(written, found["test/confusion"][0][1])


def test_without_tensorboard_and_run_directory_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlkit.tasks.pictures.Figure", None)
    data = ImageData(image_pairs(8), image_pairs(4), test=image_pairs(4))
    runner, task = trainer(), Restoration(image_network())
    runner.fit(task, datamodule=data)
    runner.test(task, data, verbose=False)


def test_a_confusion_matrix_shows_counts_and_names() -> None:
    figure = confusion_figure(np.array([[5, 1], [0, 4]]), ["ant", "bee"], "test")
    axes = figure.axes[0]
    assert {(t.get_position(), t.get_text()) for t in axes.texts} == {
        ((0, 0), "5"), ((1, 0), "1"), ((0, 1), "0"), ((1, 1), "4")
    }  # fmt: skip
    assert [t.get_text() for t in axes.get_yticklabels()] == ["ant", "bee"]
    np.testing.assert_allclose(np.asarray(axes.images[0].get_array()), [[5 / 6, 1 / 6], [0, 1]])


def test_many_classes_and_an_empty_row() -> None:
    matrix = torch.eye(60, dtype=torch.long).numpy()
    matrix[7] = 0
    figure = confusion_figure(matrix, [str(i) for i in range(60)], "test")
    assert not figure.axes[0].texts and np.isfinite(np.asarray(figure.axes[0].images[0].get_array())).all()
