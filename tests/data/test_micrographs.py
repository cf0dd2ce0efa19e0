"""Pairs of recorded micrographs: reading, patches, splits by micrograph, damaged files."""

import mrcfile
import numpy as np
import pytest
import tifffile
import torch

from tlkit.data.micrograph_files import read_micrograph
from tlkit.data.micrographs import MicrographPairs
from tlkit.errors import NonFinite, UserError

STEMS = [f"m{index:02d}" for index in range(10)]


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mrc":
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(image)
    else:
        tifffile.imwrite(path, image, compression="zlib")


def fill(root, domains=("near", "far"), suffix=".tif", stems=STEMS, shape=(40, 70)):
    random = np.random.default_rng(0)
    for domain in domains:
        for stem in stems:
            image = random.integers(0, 1000, shape).astype(np.uint16)
            write(root / domain / "input" / f"{stem}{suffix}", image)
            write(root / domain / "target" / f"{stem}{suffix}", (image / 1000).astype(np.float32))
    return root


def pairs(root, tmp_path, **changes) -> MicrographPairs:
    arguments = {"domain": "near", "data_range": 1.0, "image_size": 16, "batch_size": 5, "cache_dir": str(tmp_path)}
    return MicrographPairs(**{"root": str(root), **arguments, **changes})


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".mrc"])
def test_patches_come_back_as_they_were_written(tmp_path, suffix):
    data = pairs(fill(tmp_path / "raw", suffix=suffix), tmp_path / "cache")
    (rows,) = data.rows("train").values()
    batch = data.read(rows)
    seven = 2 * 4  # 40 x 70 px hold 2 x 4 patches of 16
    assert batch.input.shape == (7 * seven, 1, 16, 16)
    stem = sorted(data.describe()["train"])[0]
    image = read_micrograph(tmp_path / "raw" / "near" / "input" / f"{stem}{suffix}")
    assert image.shape == (40, 70)
    np.testing.assert_array_equal(batch.input[0, 0].numpy(), image[:16, :16])
    np.testing.assert_array_equal(batch.input[5, 0].numpy(), image[16:32, 16:32])
    torch.testing.assert_close(batch.target, batch.input / 1000)


def test_inputs_are_standardised_and_targets_are_not(tmp_path):
    data = pairs(fill(tmp_path / "raw"), tmp_path / "cache")
    (rows,) = data.rows("val").values()
    stored = data.read(rows)
    batch = data.convert(stored)
    torch.testing.assert_close(batch.input.mean((1, 2, 3)), torch.zeros(len(rows)), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.input.square().mean((1, 2, 3)), torch.ones(len(rows)))
    assert torch.equal(batch.target, stored.target)
    blank = data.convert(stored._replace(input=torch.full((2, 1, 16, 16), 300.7)))
    assert torch.equal(blank.input, torch.zeros(2, 1, 16, 16))


def test_splits_are_by_micrograph_and_the_same_in_all_domains(tmp_path):
    root = fill(tmp_path / "raw")
    near, far = pairs(root, tmp_path / "cache"), pairs(root, tmp_path / "cache", domain="far", stage="pretrain")
    one, other = near.describe(), far.describe()
    assert one["train"] == other["train"] and one["val"] == other["val"]
    assert (len(one["train"]), len(one["val"]), len(one["test"]["near"])) == (7, 1, 2)
    assert set(one["train"]) | set(one["val"]) | set(one["test"]["far"]) == set(STEMS)
    assert list(near.rows("test")) == ["near", "far"] and list(far.rows("test")) == ["far", "near"]
    rows = [near.rows(part)["near"] for part in ("train", "val", "test")] + [far.rows("train")["far"]]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows))
    assert near.open().folder == far.open().folder
    assert near.fingerprint() != far.fingerprint()


def test_first_micrographs_are_kept(tmp_path):
    root = fill(tmp_path / "raw", domains=["near"])
    train = [pairs(root, tmp_path / "cache", train_micrographs=n).describe()["train"] for n in (2, 5)]
    assert train[1][:2] == train[0] and len(train[1]) == 5
    with pytest.raises(UserError, match="at most 7"):
        pairs(root, tmp_path / "cache", train_micrographs=8).describe()


def test_moving_the_folder_changes_nothing_and_a_pixel_does(tmp_path):
    data = pairs(fill(tmp_path / "raw"), tmp_path / "cache")
    before = data.fingerprint()
    (tmp_path / "raw").rename(tmp_path / "moved")
    moved = pairs(tmp_path / "moved", tmp_path / "cache")
    assert moved.fingerprint() == before
    path = tmp_path / "moved" / "near" / "input" / "m00.tif"
    write(path, tifffile.imread(path) + np.uint16(1))
    assert moved.fingerprint() != before


def test_a_truncated_file_is_named(tmp_path):
    for suffix in (".tif", ".mrc"):
        root = fill(tmp_path / suffix, domains=["near"], suffix=suffix)
        path = root / "near" / "target" / f"m03{suffix}"
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(UserError, match=f"readable micrograph, got .*target/m03{suffix}"):
            pairs(root, tmp_path / "cache").open()
        path.write_bytes(b"no image at all")
        with pytest.raises(UserError, match=f"readable micrograph, got .*target/m03{suffix}"):
            pairs(root, tmp_path / "cache").open()
    assert not list((tmp_path / "cache").glob("micrographs-*[!k]"))


def test_a_missing_partner_is_named(tmp_path):
    root = fill(tmp_path, domains=["near"])
    (root / "near" / "target" / "m05.tif").unlink()
    with pytest.raises(UserError, match="partner of .*input/m05.tif in .*near/target"):
        pairs(root, tmp_path / "cache").open()
    (root / "near" / "input" / "m05.tif").unlink()
    (root / "near" / "input" / "m06.tif").unlink()
    with pytest.raises(UserError, match="partner of .*target/m06.tif in .*near/input"):
        pairs(root, tmp_path / "cache").open()


def test_two_files_of_one_name_are_refused(tmp_path):
    root = fill(tmp_path, domains=["near"])
    write(root / "near" / "input" / "m05.mrc", np.zeros((40, 70), np.float32))
    with pytest.raises(UserError, match="one file per name.*m05"):
        pairs(root, tmp_path / "cache").open()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((40, 71), np.float32), UserError, "one size"),
        (np.zeros((5, 40, 70), np.float32), UserError, "one grey image"),
        (np.zeros((40, 70), np.complex64), UserError, "real numbers"),
        (np.full((40, 70), np.nan, np.float32), NonFinite, "NaN"),
    ],
)
def test_what_is_no_partner_is_named(tmp_path, image, error, message):
    root = fill(tmp_path, domains=["near"])
    write(root / "near" / "target" / "m02.tif", image)
    with pytest.raises(error, match=f"{message}.*m02"):
        pairs(root, tmp_path / "cache").open()


def test_micrographs_smaller_than_a_patch_are_refused(tmp_path):
    with pytest.raises(UserError, match="smaller image_size"):
        pairs(fill(tmp_path, domains=["near"]), tmp_path / "cache", image_size=64).open()


def test_an_empty_part_or_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="<domain>/input"):
        pairs(tmp_path, tmp_path / "cache").open()
    root = fill(tmp_path, stems=STEMS[:2])
    with pytest.raises(UserError, match="for train, got none"):
        pairs(root, tmp_path / "cache").describe()
    with pytest.raises(UserError, match="did you mean 'near'"):
        pairs(root, tmp_path / "cache", domain="neat").open()


@pytest.mark.parametrize(
    "changes",
    [
        {"data_range": 0.0},
        {"image_size": 0},
        {"train_micrographs": 0},
        {"test_fraction": 0.0},
        {"test_fraction": 0.6, "validation_fraction": 0.4},
    ],
)
def test_wrong_arguments_are_refused(tmp_path, changes):
    with pytest.raises(UserError, match=next(iter(changes))):
        pairs(tmp_path, tmp_path, **changes)
