from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlkit.data import ILSVRC2012, ClassSplit
from tlkit.errors import UserError

SYNSETS = ("n01440764", "n01443537", "n02119789")
TRUTH = (2, 0, 1, 1, 0)  # place in SYNSETS of validation images 1 … 5
VAL = [f"ILSVRC2012_val_{i:08}" for i in range(1, 6)]
KIT = "ILSVRC2012_devkit_t12/data"


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16)).save(path, "jpeg")


def kaggle(root: Path, below: str = "") -> Path:
    """Writes the layout of the Kaggle distribution."""
    images = root / below / "Data" / "CLS-LOC"
    for synset in SYNSETS:
        for i in (10026, 10027, 9):
            picture(images / "train" / synset / f"{synset}_{i}.JPEG")
    for name in VAL:
        picture(images / "val" / f"{name}.JPEG")
    # the distribution lists images in random order
    lines = [f"{VAL[i]},{SYNSETS[TRUTH[i]]} 1 2 3 4 {SYNSETS[TRUTH[i]]} 5 6 7 8" for i in (3, 0, 4, 2, 1)]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]) + "\n")
    (root / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn01443537 goldfish\nn02119789 kit fox\n"
    )
    return root


def labels_of_validation(root: Path) -> dict[str, str]:
    data = ILSVRC2012(str(root))
    return {Path(name).stem: data.classes[label] for name, label in data.listing.test}


WANTED = {name: SYNSETS[place] for name, place in zip(VAL, TRUTH, strict=True)}


@pytest.mark.parametrize("below", ["", "ILSVRC"])
def test_kaggles_listing_labels_the_flat_validation_images(tmp_path, below):
    assert labels_of_validation(kaggle(tmp_path, below)) == WANTED


def test_training_images_are_ordered_by_synset_and_name(tmp_path):
    data = ILSVRC2012(str(kaggle(tmp_path)))
    assert data.classes == list(SYNSETS)
    names = [Path(name).stem for name, _ in data.listing.train]
    assert names[:3] == ["n01440764_10026", "n01440764_10027", "n01440764_9"]
    assert data.labels("train").tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_titles_are_the_synsets_words(tmp_path):
    data = ILSVRC2012(str(kaggle(tmp_path)))
    assert data.title("n01440764") == "tench, Tinca tinca"
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    assert ILSVRC2012(str(tmp_path)).title("n01440764") == "n01440764"


def test_validation_images_may_be_sorted_into_synset_folders(tmp_path):
    kaggle(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    val = tmp_path / "Data" / "CLS-LOC" / "val"
    for name, synset in WANTED.items():
        (val / synset).mkdir(exist_ok=True)
        (val / f"{name}.JPEG").rename(val / synset / f"{name}.JPEG")
    assert labels_of_validation(tmp_path) == WANTED


def development_kit(root: Path) -> Path:
    """Writes the listing of the development kit, whose class numbers do not follow the order of synsets."""
    io = pytest.importorskip("scipy.io")
    kaggle(root)
    (root / "LOC_val_solution.csv").unlink()
    (root / KIT).mkdir(parents=True)
    numbers = {"n02119789": 1, "n01440764": 2, "n01443537": 3}
    table = np.zeros(3, dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    for place, (synset, number) in enumerate(numbers.items()):
        table[place] = (number, synset, "words")
    io.savemat(root / KIT / "meta.mat", {"synsets": table})
    truth = "\n".join(str(numbers[SYNSETS[place]]) for place in TRUTH)
    (root / KIT / "ILSVRC2012_validation_ground_truth.txt").write_text(truth + "\n")
    return root


def test_the_development_kits_listing_labels_them_too(tmp_path):
    assert labels_of_validation(development_kit(tmp_path)) == WANTED


def test_plain_train_and_val_folders_are_found(tmp_path):
    kaggle(tmp_path / "k")
    (tmp_path / "k" / "Data" / "CLS-LOC").rename(tmp_path / "plain")
    (tmp_path / "k" / "LOC_val_solution.csv").rename(tmp_path / "plain" / "LOC_val_solution.csv")
    assert labels_of_validation(tmp_path / "plain") == WANTED


def test_the_official_validation_images_of_the_stages_classes_are_tested_on(tmp_path):
    data = ClassSplit(
        ILSVRC2012(str(kaggle(tmp_path / "root"))), validation_per_class=1, pretrain_classes=0, image_size=8,
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    (rows,) = data.rows("test").values()
    assert len(rows) == 5 and data.network_arguments() == {"num_classes": 3, "in_channels": 3}
    described = data.describe()
    assert described["classes"]["n02119789"] == "kit fox"
    batch = data.read(rows)
    assert batch.input.shape == (5, 3, 8, 8)
    names = [Path(data.dataset.image_name(row)).stem for row in rows]
    assert [SYNSETS[label] for label in batch.target.tolist()] == [WANTED[name] for name in names]


def spoil(root: Path, how: str) -> None:
    if how == "no folders":
        (root / "Data" / "CLS-LOC" / "val").rename(root / "elsewhere")
    elif how == "no listing":
        (root / "LOC_val_solution.csv").unlink()
    elif how == "unlisted image":
        picture(root / "Data" / "CLS-LOC" / "val" / "ILSVRC2012_val_00000006.JPEG")
    elif how == "missing image":
        (root / "Data" / "CLS-LOC" / "val" / f"{VAL[0]}.JPEG").unlink()
    elif how == "unknown synset":
        path = root / "LOC_val_solution.csv"
        path.write_text(path.read_text().replace("n02119789", "n99999999"))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no folders", r"folders train and val in one of .*--data\.dataset\.root"),
        ("no listing", r"LOC_val_solution\.csv \(Kaggle\) or ILSVRC2012_validation_ground_truth\.txt.*val/<synset>/"),
        ("unlisted image", r"got 6 images, 5 entries, 1 images without one: \['.*00000006\.JPEG'\]"),
        ("missing image", "got 4 images, 5 entries"),
        ("unknown synset", "one of the 3 training synsets, got 5 images, 5 entries, 1 images without one"),
    ],
)
def test_a_listing_that_does_not_fit_is_the_users_error(tmp_path, how, message):
    spoil(kaggle(tmp_path), how)
    with pytest.raises(UserError, match=message):
        _ = ILSVRC2012(str(tmp_path)).listing


def test_a_development_kit_without_its_meta_file_is_the_users_error(tmp_path):
    root = development_kit(tmp_path)
    (root / KIT / "meta.mat").unlink()
    with pytest.raises(UserError, match=r"meta\.mat.*copy it from the development kit"):
        _ = ILSVRC2012(str(root)).listing


def test_a_development_kit_of_other_images_is_the_users_error(tmp_path):
    root = development_kit(tmp_path)
    with (root / KIT / "ILSVRC2012_validation_ground_truth.txt").open("a") as file:
        file.write("1\n")
    with pytest.raises(UserError, match="expected 6 validation images, as .*, got 5"):
        _ = ILSVRC2012(str(root)).listing
