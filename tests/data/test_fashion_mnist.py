import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from tlkit.data import FashionMNIST, fashion_mnist
from tlkit.data.class_images import pack
from tlkit.errors import UserError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write(folder: Path, zipped: bool = False, train: int = 30, test: int = 20) -> np.ndarray:
    """Writes a tiny data set: image i of a side is i at every pixel (the test side 100 + i), its label i modulo 10."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, count, first in (("train", train, 0), ("t10k", test, 100)):
        pixels = np.repeat(np.arange(first, first + count, dtype=np.uint8), 28 * 28)
        images = struct.pack(">4I", 2051, count, 28, 28) + pixels.tobytes()
        labels = struct.pack(">2I", 2049, count) + bytes(i % 10 for i in range(count))
        for name, content in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return np.array([*range(train), *range(100, 100 + test)])


def packed(root: Path, cache: Path, size: int = 28):
    return pack(FashionMNIST(str(root)), cache, size, budget=10**9)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_files_are_read_compressed_or_not_also_where_torchvision_puts_them(tmp_path, zipped, below):
    value = write(tmp_path / "root" / below, zipped)
    store = packed(tmp_path / "root", tmp_path / "cache")
    assert np.array_equal(store.arrays["input"], np.broadcast_to(value[:, None, None, None], (50, 1, 28, 28)))
    assert store.arrays["target"].tolist() == [i % 10 for i in (*range(30), *range(20))]


def test_images_are_resized_to_the_networks_size(tmp_path):
    value = write(tmp_path / "root")
    images = packed(tmp_path / "root", tmp_path / "cache", size=40).arrays["input"]
    assert images.shape == (50, 1, 40, 40) and np.array_equal(images[:, 0, 20, 20], value)


def test_classes_have_their_real_names(tmp_path):
    write(tmp_path)
    names = FashionMNIST(str(tmp_path)).classes
    assert names[0] == "T-shirt/top" and names[9] == "Ankle boot" and len(set(names)) == 10


def test_the_fingerprint_is_that_of_the_content_wherever_and_however_it_is_stored(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", zipped=True)
    write(tmp_path / "c", train=31)
    a, b, c = (FashionMNIST(str(tmp_path / name)).fingerprint(tmp_path / "cache") for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("file", FILES)
def test_a_wrong_magic_number_is_named_with_its_file(tmp_path, file):
    write(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(struct.pack(">I", 1234) + content[4:])
    expected = 2051 if "images" in file else 2049
    with pytest.raises(UserError, match=f"expected magic number {expected} at the start of .*{file}, got 1234"):
        packed(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("change", [lambda b: b[:-3], lambda b: b + b"x"], ids=["short", "long"])
@pytest.mark.parametrize("file", FILES)
def test_a_wrong_length_is_named_with_its_file(tmp_path, file, change):
    write(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(change(content))
    with pytest.raises(UserError, match=f"expected {len(content)} bytes in .*{file}.*got {len(change(content))}"):
        packed(tmp_path, tmp_path / "cache")


def test_an_empty_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / FILES[1]).write_bytes(b"")
    with pytest.raises(UserError, match=FILES[1]):
        packed(tmp_path, tmp_path / "cache")


def test_a_truncated_gzip_file_is_named(tmp_path):
    write(tmp_path, zipped=True)
    path = tmp_path / (FILES[0] + ".gz")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=f"complete gzip file, got .*{FILES[0]}.gz"):
        packed(tmp_path, tmp_path / "cache")


def test_images_without_labels_are_refused(tmp_path):
    write(tmp_path)
    (tmp_path / FILES[1]).write_bytes(struct.pack(">2I", 2049, 29) + bytes(29))
    with pytest.raises(UserError, match="one label per image.*got 30 images and 29 labels"):
        packed(tmp_path, tmp_path / "cache")


def test_a_label_out_of_range_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / FILES[1]).write_bytes(struct.pack(">2I", 2049, 30) + bytes([10] * 30))
    with pytest.raises(UserError, match=r"labels 0 … 9 in .*train-labels.*got 10"):
        packed(tmp_path, tmp_path / "cache")


@pytest.mark.parametrize("missing", [0, 3])
def test_missing_files_name_the_remedies(tmp_path, missing):
    write(tmp_path)
    (tmp_path / FILES[missing]).unlink()
    with pytest.raises(
        UserError, match=r"dataset-fashion-mnist.*--data\.dataset\.root.*--data\.dataset\.download true"
    ):
        FashionMNIST(str(tmp_path))


def test_without_a_root_the_debian_packages_folder_is_read(tmp_path, monkeypatch):
    write(tmp_path, zipped=True)
    monkeypatch.setattr(fashion_mnist, "_DEBIAN", tmp_path)
    assert len(FashionMNIST().labels("train")) == 30


def test_a_download_goes_to_the_root_and_is_asked_for_only_if_files_are_missing(tmp_path, monkeypatch):
    asked = []

    def download(root, train, download):
        asked.append((root, train, download))
        write(Path(root) / "FashionMNIST" / "raw", zipped=True)

    monkeypatch.setattr(fashion_mnist, "Download", download)
    for _ in range(2):
        assert len(FashionMNIST(str(tmp_path), download=True).labels("test")) == 20
    assert asked == [(str(tmp_path), True, True), (str(tmp_path), False, True)]


@pytest.mark.slow
@pytest.mark.skipif(
    not fashion_mnist._DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_real_files_hold_seventy_thousand_balanced_images(tmp_path):
    data = FashionMNIST()
    store = pack(data, tmp_path, 28, budget=10**9)
    assert np.bincount(data.labels("train")).tolist() == [6000] * 10
    assert np.bincount(data.labels("test")).tolist() == [1000] * 10
    # published statistics of the training pixels: mean 0.2860, standard deviation 0.3530
    pixels = np.asarray(store.arrays["input"][:60000]) / np.float32(255)
    assert pixels.mean() == pytest.approx(0.2860, abs=1e-4) and pixels.std() == pytest.approx(0.3530, abs=1e-4)
