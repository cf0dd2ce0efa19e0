import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlkit.data import ImageFolder
from tlkit.data.class_images import pack, read_images, readable
from tlkit.data.picture import fit, read_rgb
from tlkit.errors import UserError


def write(path: Path, colour: tuple[int, int, int], height: int = 20, width: int = 30) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)


def folder(root: Path, per_class: int = 10) -> Path:
    """Writes classes ``ant`` (red) and ``bee`` (blue)."""
    for i in range(per_class):
        write(root / "ant" / f"{i}.png", (200, i, 0))
        write(root / "bee" / f"{i}.jpg", (0, i, 200))
    return root


def sided(root: Path, side: str) -> Path:
    folder(root / "train", 3)
    folder(root / side, 2)
    return root


def test_class_folders_are_classes_and_images_are_cropped_to_the_size(tmp_path):
    data = ImageFolder(str(folder(tmp_path / "root")))
    store = pack(data, tmp_path / "cache", 16, budget=10**9)
    assert data.classes == ["ant", "bee"]
    assert store.arrays["input"].shape == (20, 3, 16, 16)
    red = store.take("target", np.arange(20)) == 0
    assert (store.take("input", np.arange(20))[:, 0, 8, 8] > 150).equal(red)


def test_without_a_test_side_a_fifth_is_held_out_by_name_alone(tmp_path):
    first = ImageFolder(str(folder(tmp_path / "a"))).listing
    assert [sum(label == one for _, label in first.test) for one in (0, 1)] == [2, 2]
    assert not set(first.train) & set(first.test) and len(first.train) == 16
    moved = tmp_path / "elsewhere" / "b"
    shutil.copytree(tmp_path / "a", moved)
    assert ImageFolder(str(moved)).listing == first
    assert [len(ImageFolder(str(moved), test_fraction=0.5).listing.test)] == [10]


def test_even_a_class_of_two_images_has_one_to_test_on(tmp_path):
    listing = ImageFolder(str(folder(tmp_path, 2))).listing
    assert len(listing.train) == len(listing.test) == 2


@pytest.mark.parametrize("side", ["test", "val"])
def test_the_folders_own_test_side_is_used(tmp_path, side):
    listing = ImageFolder(str(sided(tmp_path, side))).listing
    assert {name.split("/")[0] for name, _ in listing.train} == {"train"} and len(listing.train) == 6
    assert {name.split("/")[0] for name, _ in listing.test} == {side} and len(listing.test) == 4


def test_the_order_is_that_of_names_whatever_the_file_system_lists_first(tmp_path, monkeypatch):
    folder(tmp_path)
    listing, walk = ImageFolder(str(tmp_path)).listing, os.walk

    def backwards(place, **arguments):
        for one, folders, files in walk(place, **arguments):
            yield one, folders, sorted(files, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    assert ImageFolder(str(tmp_path)).listing == listing


def test_the_fingerprint_follows_content_and_names_not_place_and_time(tmp_path):
    def of(root: Path) -> str:
        return ImageFolder(str(root)).fingerprint(tmp_path / "cache")

    original = of(folder(tmp_path / "a"))
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    assert of(tmp_path / "b") == original
    file = tmp_path / "b" / "ant" / "3.png"
    os.utime(file, (1, 1))
    assert of(tmp_path / "b") == original
    content = bytearray(file.read_bytes())
    content[-20] ^= 1  # same size
    file.write_bytes(content)
    assert of(tmp_path / "b") != original
    (tmp_path / "a" / "ant" / "3.png").rename(tmp_path / "a" / "ant" / "33.png")
    assert of(tmp_path / "a") != original


def test_files_are_hashed_again_only_when_they_change(tmp_path, monkeypatch):
    root = folder(tmp_path / "root", 2)
    first = ImageFolder(str(root)).fingerprint(tmp_path / "cache")
    for file in root.rglob("*.*"):  # unreadable for hashing, but neither size nor time changes
        status = file.stat()
        file.write_bytes(bytes(status.st_size))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ImageFolder(str(root)).fingerprint(tmp_path / "cache") == first


def breakage(root: Path) -> list[str]:
    whole = (root / "bee" / "1.jpg").read_bytes()
    (root / "bee" / "1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "ant" / "notes.txt").write_text("not an image")
    (root / "ant" / "empty.png").write_bytes(b"")
    return ["bee/1.jpg", "ant/notes.txt", "ant/empty.png"]


@pytest.mark.parametrize("budget", [10**9, 1], ids=["raw", "jpeg"])
def test_truncated_and_other_files_are_refused_by_name(tmp_path, budget):
    broken = breakage(folder(tmp_path / "root"))
    with pytest.raises(UserError, match="got 3 files.*skip_broken true") as caught:
        pack(ImageFolder(str(tmp_path / "root")), tmp_path / "cache", 16, budget)
    assert all(name in str(caught.value) for name in broken)
    assert not [
        path for path in (tmp_path / "cache").iterdir() if path.name.startswith("ImageFolder") and path.is_dir()
    ]


@pytest.mark.parametrize("budget", [10**9, 1], ids=["raw", "jpeg"])
def test_broken_files_are_left_out_and_counted_if_asked_for(tmp_path, caplog, budget):
    broken = breakage(folder(tmp_path / "root"))
    data = ImageFolder(str(tmp_path / "root"), skip_broken=True)
    with caplog.at_level(logging.WARNING):
        store = pack(data, tmp_path / "cache", 16, budget)
    assert "3 of 22 images cannot be read" in caplog.text
    assert {data.image_name(row) for row in np.flatnonzero(~readable(store))} == set(broken)


def test_hidden_files_and_folders_are_no_images_and_no_classes(tmp_path):
    folder(tmp_path, 3)
    (tmp_path / "ant" / ".DS_Store").write_text("")
    (tmp_path / ".git").mkdir()
    listing = ImageFolder(str(tmp_path)).listing
    assert listing.classes == ["ant", "bee"] and len(listing.train) + len(listing.test) == 6


def test_beyond_the_budget_images_are_stored_as_jpeg_and_read_nearly_alike(tmp_path):
    root = tmp_path / "root"
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(4):
            small = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(small.repeat(8, 0).repeat(8, 1)).save(root / name / f"{i}.png")
    data, rows = ImageFolder(str(root)), np.array([5, 0, 7])
    raw = pack(data, tmp_path / "cache", 32, budget=8 * 3 * 32 * 32)
    jpeg = pack(data, tmp_path / "cache", 32, budget=8 * 3 * 32 * 32 - 1)
    assert "input" in raw.arrays and "jpeg.bytes" in jpeg.arrays
    exact, lossy = read_images(raw, rows), read_images(jpeg, rows)
    assert lossy.shape == exact.shape and lossy.dtype == torch.uint8
    assert (lossy.float() - exact.float()).abs().mean() < 12


def save(path: Path, kind: str) -> None:
    grey = np.full((12, 12), 100, dtype=np.uint8)
    if kind == "16 bit":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path, "png")
    elif kind == "animation":
        Image.fromarray(grey).save(path, "gif", save_all=True, append_images=[Image.fromarray(grey + 50)])
    elif kind == "grey":
        Image.fromarray(grey).save(path, "png")
    elif kind == "transparent":
        Image.merge("RGBA", [Image.fromarray(grey)] * 3 + [Image.fromarray(grey // 100 * 255)]).save(path, "png")
    elif kind == "webp":
        Image.merge("RGB", [Image.fromarray(grey)] * 3).save(path, "webp", lossless=True)
    elif kind == "tiff":
        Image.fromarray(grey).save(path, "tiff")
    elif kind == "transparent palette":
        Image.fromarray(grey).convert("P").save(path, "png", transparency=b"\x00\x80")
    elif kind == "cmyk":
        Image.new("CMYK", (12, 12), (155, 155, 155, 0)).save(path, "jpeg")


@pytest.mark.parametrize(
    "kind", ["16 bit", "animation", "grey", "transparent", "webp", "cmyk", "tiff", "transparent palette"]
)
def test_unusual_images_are_read_as_rgb(tmp_path, kind):
    save(tmp_path / "image", kind)
    image = read_rgb(tmp_path / "image")
    assert image is not None and image.shape == (3, 12, 12) and image.dtype == torch.uint8
    assert (image.int() - 100).abs().max() <= 2


def test_photographs_are_turned_as_their_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.new("RGB", (30, 20)).save(tmp_path / "image.jpg", exif=exif)
    image = read_rgb(tmp_path / "image.jpg")
    assert image is not None and image.shape == (3, 30, 20)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40), (17, 90), (20, 20), (9, 11)])
def test_the_centre_of_the_resized_image_is_kept(height, width):
    x = torch.arange(width).expand(1, height, width).to(torch.uint8)
    out = fit(x, 20)
    assert out.shape == (1, 20, 20)
    if width > height:  # the middle column stays in the middle
        assert abs(out[0, :, 9:11].float().mean().item() - (width - 1) / 2) < 1


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"expected a folder of images.*--data\.dataset\.root"),
        (lambda root: root.mkdir(), r"one folder per class in .*, got none.*--data\.dataset\.root"),
        (lambda root: (root / "train").mkdir(parents=True), r"one folder per class in .*train, got none"),
        (lambda root: (folder(root), (root / "cat").mkdir()), r"images of every class in .*got none of \['cat'\]"),
        (
            lambda root: (sided(root, "val"), (root / "val" / "bee").rename(root / "val" / "cow")),
            r"same class folders.*missing: \['bee'\], unknown: \['cow'\]",
        ),
    ],
    ids=["no folder", "empty folder", "empty train", "empty class", "other classes"],
)
def test_a_folder_without_what_is_needed_is_the_users_error(tmp_path, prepare, message):
    prepare(tmp_path / "root")
    with pytest.raises(UserError, match=message):
        _ = ImageFolder(str(tmp_path / "root")).listing


def test_a_file_that_cannot_be_read_at_all_is_named(tmp_path):
    folder(tmp_path / "root", 2)
    (tmp_path / "root" / "ant" / "gone.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected to read .*gone\.png, got No such file"):
        ImageFolder(str(tmp_path / "root")).fingerprint(tmp_path / "cache")


def test_a_cache_directory_that_is_a_file_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"writable cache directory.*--data\.cache_dir"):
        ImageFolder(str(folder(tmp_path / "root", 2))).fingerprint(tmp_path / "file")


def test_a_test_fraction_out_of_range_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="test_fraction of ImageFolder between 0 and 1, got 1"):
        ImageFolder(str(tmp_path), test_fraction=1)
