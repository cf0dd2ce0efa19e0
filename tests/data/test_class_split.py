import json
import random

import numpy as np
import pytest
import torch

from tlkit.data import ClassImages, ClassSplit, Crop, Fractals, ImageFolder, MixUp, fashion_mnist
from tlkit.errors import UserError

NAMES = ["kiwi", "apple", "fig", "plum", "pear", "lime", "date"]
TRAIN, TEST = 12, 5  # images per class


class Plain(ClassImages):
    """Seven classes whose images come shuffled; the image of row r is constant at r."""

    def __init__(self, size=4, names=tuple(NAMES)):
        self.channels, self.size, self._names = 1, size, list(names)
        shuffled = random.Random(0)
        self._labels = {"train": list(range(len(names))) * TRAIN, "test": list(range(len(names))) * TEST}
        for labels in self._labels.values():
            shuffled.shuffle(labels)

    @property
    def classes(self):
        return self._names

    def labels(self, side):
        return np.array(self._labels[side], dtype=np.int64)

    def images(self, start, stop, size):
        values = np.arange(start, stop, dtype=np.uint8)[:, None, None, None]
        return np.broadcast_to(values, (stop - start, 1, size, size)), np.ones(stop - start, dtype=bool)

    def fingerprint(self, cache_dir):
        return "a" * 64


def split_of(tmp_path, dataset=None, **arguments):
    defaults = {"validation_per_class": 3, "cache_dir": str(tmp_path)}
    return ClassSplit(dataset or Plain(), **(defaults | arguments))


def rows_of(data, part):
    (rows,) = data.rows(part).values()
    return rows


@pytest.mark.parametrize("stage", ["pretrain", "transfer"])
@pytest.mark.parametrize("examples", [1, 4, 9, None])
def test_train_validation_and_test_never_overlap(tmp_path, stage, examples):
    data = split_of(tmp_path, stage=stage, examples_per_class=examples)
    train, val, test = (set(rows_of(data, part).tolist()) for part in ("train", "val", "test"))
    assert not (train & val or train & test or val & test)
    classes = len(data.stage_classes())
    assert [len(train), len(val), len(test)] == [(examples or TRAIN - 3) * classes, 3 * classes, TEST * classes]
    assert max(train | val) < TRAIN * 7 <= min(test)


def test_the_first_x_examples_are_nested_and_the_validation_is_the_same_for_every_x(tmp_path):
    sizes = [1, 2, 5, 9, None]
    data = [split_of(tmp_path, examples_per_class=x) for x in sizes]
    trained = [set(rows_of(one, "train").tolist()) for one in data]
    assert all(small <= large for small, large in zip(trained, trained[1:], strict=False))
    assert len({tuple(rows_of(one, "val")) for one in data}) == 1


def test_examples_are_the_first_of_each_class_and_validation_the_last(tmp_path):
    data = split_of(tmp_path, examples_per_class=2, test_per_class=2)
    labels = Plain().labels("train")
    train, val, test = (set(rows_of(data, part).tolist()) for part in ("train", "val", "test"))
    for name in data.stage_classes():
        of_class = np.flatnonzero(labels == NAMES.index(name))
        assert train & set(of_class) == set(of_class[:2]) and val & set(of_class) == set(of_class[-3:])
        tests = np.flatnonzero(Plain().labels("test") == NAMES.index(name)) + len(labels)
        assert test & set(tests) == set(tests[:2])


@pytest.mark.parametrize("split", range(4))
def test_stages_share_no_class_and_leave_none_out(tmp_path, split):
    source, target = (split_of(tmp_path, stage=s, split=split).stage_classes() for s in ("pretrain", "transfer"))
    assert not set(source) & set(target) and set(source) | set(target) == set(NAMES)
    assert len(source) == 3 and source == sorted(source) and target == sorted(target)


def test_splits_differ_and_depend_on_names_alone(tmp_path):
    splits = [tuple(split_of(tmp_path, split=split).stage_classes()) for split in range(6)]
    assert len(set(splits)) > 3
    other_order = Plain(names=sorted(NAMES))
    assert tuple(split_of(tmp_path, other_order, split=2).stage_classes()) == splits[2]


def test_a_split_is_the_order_of_hashes_of_number_and_name(tmp_path):
    from hashlib import sha256

    order = sorted(NAMES, key=lambda name: sha256(f"5/{name}".encode()).hexdigest())
    data = split_of(tmp_path, split=5, stage="pretrain", pretrain_classes=4)
    assert data.stage_classes() == sorted(order[:4])


def test_labels_count_the_stages_classes_by_name(tmp_path):
    data = split_of(tmp_path)
    rows = rows_of(data, "test")
    names = [NAMES[label] for label in np.concatenate([Plain().labels(s) for s in ("train", "test")])[rows]]
    batch = data.read(rows)
    assert [data.stage_classes()[label] for label in batch.target.tolist()] == names
    assert batch.target.max() == data.network_arguments()["num_classes"] - 1 == 3
    assert batch.input[:, 0, 0, 0].tolist() == rows.tolist() == batch.sample.tolist()


def test_inputs_are_converted_to_the_unit_interval(tmp_path):
    data = split_of(tmp_path)
    rows = rows_of(data, "test")
    x = data.on_after_batch_transfer(data.read(rows), 0).input
    assert x.dtype == torch.float32 and torch.equal(x[:, 0, 0, 0], torch.tensor(rows / 255, dtype=torch.float32))


def test_statistics_are_those_of_the_training_subset(tmp_path):
    data = split_of(tmp_path, examples_per_class=2)
    values = rows_of(data, "train") / 255
    mean, deviation = data.statistics()
    assert mean == pytest.approx((values.mean(),)) and deviation == pytest.approx((values.std(),))


def test_images_of_one_colour_are_the_users_error(tmp_path):
    class Grey(Plain):
        def images(self, start, stop, size):
            return np.full((stop - start, 1, size, size), 7, np.uint8), np.ones(stop - start, dtype=bool)

    with pytest.raises(UserError, match="vary in every channel"):
        split_of(tmp_path, Grey()).statistics()


@pytest.mark.parametrize(
    ("arguments", "own", "size"),
    [({}, 4, 4), ({}, None, 224), ({"image_size": 6}, 4, 6), ({"image_size": 6, "store_size": 9}, 4, 6)],
)
def test_the_images_have_the_networks_size_or_their_own(tmp_path, arguments, own, size):
    data = split_of(tmp_path, Plain(own), **arguments)
    assert data.image_size == size
    batch = data.read(rows_of(data, "test")[:2])
    assert batch.input.shape[-1] == arguments.get("store_size", size)
    assert data.on_after_batch_transfer(batch, 0).input.shape == (2, 1, size, size)


def test_images_stored_larger_are_cut_by_the_augmentation_or_in_the_centre(tmp_path):
    class Columns(Plain):
        def images(self, start, stop, size):
            x = np.broadcast_to(np.arange(size, dtype=np.uint8), (stop - start, 1, size, size))
            return x, np.ones(stop - start, dtype=bool)

    data = split_of(tmp_path, Columns(), image_size=4, store_size=10, augment=[Crop(0)])
    batch = data.convert(data.read(rows_of(data, "train")))
    cut = data.augmented(batch, epoch=0)
    assert cut.input.shape[-2:] == (4, 4)
    assert len((cut.input[:, 0, 0, 0] * 255).round().unique()) == 7, "all offsets 0 … 6 are drawn"
    evaluated = data.on_after_batch_transfer(data.read(rows_of(data, "val")), 0).input
    assert (evaluated[0, 0, 0] * 255).round().tolist() == [3, 4, 5, 6]


def test_augmentations_learn_the_number_of_classes_from_the_data(tmp_path):
    data = split_of(tmp_path, augment=[MixUp()])
    batch = data.augmented(data.convert(data.read(rows_of(data, "train"))), epoch=0)
    assert batch.target.shape[1] == 4


def test_jpeg_beyond_the_budget_gives_the_same_batches_for_any_number_of_workers(tmp_path):
    batches = []
    for workers in (0, 2):
        data = split_of(tmp_path, num_workers=workers, batch_size=16, memory_map_budget_gb=0.0, image_size=16)
        assert "jpeg.bytes" in data.store.arrays
        batches.append(list(data.test_dataloader()))
    assert len(batches[0]) == 2
    for alone, helped in zip(*batches, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(alone, helped, strict=True))
    assert torch.equal(batches[0][0].input[:, 0, 0, 0], batches[0][0].sample.to(torch.uint8))


def test_two_stages_and_all_sizes_share_one_packed_store(tmp_path):
    for arguments in ({"stage": "pretrain"}, {"examples_per_class": 2}, {"split": 3}):
        _ = split_of(tmp_path, **arguments).store
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1


def test_the_description_names_classes_and_images(tmp_path):
    data = split_of(tmp_path, examples_per_class=2)
    described = json.loads(json.dumps(data.describe()))
    mine = data.stage_classes()
    assert list(described["classes"]) == mine
    assert sorted(described["classes_of_other_stage"] + mine) == sorted(NAMES)
    of_class = np.flatnonzero(Plain().labels("train") == NAMES.index(mine[0]))
    assert described["images"]["train"][mine[0]] == [f"train/{row}" for row in of_class[:2]]
    assert described["images"]["test"][mine[0]] == TEST


def test_broken_images_are_not_counted_among_the_first_x(tmp_path):
    class Broken(Plain):
        skip_broken = True

        def images(self, start, stop, size):
            pixels, good = super().images(start, stop, size)
            return pixels, np.arange(start, stop) % 5 != 0

    data = split_of(tmp_path, Broken(), examples_per_class=4)
    rows = rows_of(data, "train")
    assert len(rows) == 4 * 4 and (rows % 5 != 0).all()


def test_a_whole_stage_runs_on_fractals(tmp_path):
    data = split_of(tmp_path, Fractals(4, 5, 2), validation_per_class=1, image_size=16, batch_size=3)
    batches = list(data.train_dataloader())
    assert [len(batch.target) for batch in batches] == [3, 3, 2] and batches[0].input.shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"examples_per_class": 10}, r"at least 13 training images \(10 to train on, 3 to .*\).*got 12; lower --data"),
        ({"validation_per_class": 12}, r"at least 13 training images \(1 to train on, 12 to validate on\).*got 12"),
        ({"test_per_class": 6}, r"at least 6 test images of class '\w+', got 5; lower --data\.test_per_class"),
        ({"pretrain_classes": 6}, r"at least 2 of the 7 classes in stage transfer, got 1 with 6 classes"),
        ({"pretrain_classes": 8}, r"at least 2 of the 7 classes in stage transfer, got 0"),
        ({"pretrain_classes": 1, "stage": "pretrain"}, r"at least 2 of the 7 classes in stage pretrain, got 1"),
    ],
)  # fmt: skip
def test_too_few_images_or_classes_are_the_users_error(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        data = split_of(tmp_path, **arguments)
        _ = data.rows("test"), data.rows("train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "fractal"}, r"one of fractals, fashion_mnist, image_folder, ilsvrc2012.*did you mean 'fractals'"),
        ({"dataset": "image_folder"}, r"--data\.dataset ImageFolder --data\.dataset\.root FOLDER"),
        ({"dataset": "ilsvrc2012"}, r"--data\.dataset ILSVRC2012 --data\.dataset\.root FOLDER"),
        ({"examples_per_class": 0}, "examples_per_class to be at least 1, got 0"),
        ({"validation_per_class": -1}, "validation_per_class to be at least 0, got -1"),
        ({"test_per_class": 0}, "test_per_class to be at least 1, got 0"),
        ({"image_size": 8, "store_size": 6}, r"store_size of at least image_size \(8\), got 6"),
    ],
)
def test_bad_arguments_are_the_users_error(arguments, message):
    with pytest.raises(UserError, match=message):
        ClassSplit(**arguments)


def test_without_the_files_fashion_mnist_names_the_remedies(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "_DEBIAN", tmp_path)
    with pytest.raises(UserError, match="dataset-fashion-mnist"):
        ClassSplit("fashion_mnist")


def test_what_cannot_change_a_result_is_not_part_of_the_identity():
    assert {"cache_dir", "num_workers", "root", "download"} == ClassSplit.not_identity


def test_a_folder_that_moves_keeps_its_fingerprint(tmp_path):
    from PIL import Image

    def of(root):
        for name in ("ant", "bee"):
            (root / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (9, 9), (i, 0, 0)).save(root / name / f"{i}.png")
        return split_of(tmp_path, ImageFolder(str(root))).fingerprint()

    assert of(tmp_path / "here") == of(tmp_path / "there")
