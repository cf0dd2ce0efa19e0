import numpy as np
import pytest
import torch

from tlkit.data import Fractals
from tlkit.data.class_images import pack
from tlkit.data.fractals import _draw, category, instances
from tlkit.errors import UserError


def test_the_same_seed_gives_the_same_images_and_another_one_others():
    names = ["train 0", "train 1"]
    assert np.array_equal(instances(0, 3, names, 32), instances(0, 3, names, 32))
    assert not np.array_equal(instances(0, 3, names, 32), instances(1, 3, names, 32))


def test_an_image_does_not_depend_on_how_many_are_generated():
    few, many = Fractals(3, 4, 2), Fractals(5, 9, 2)
    # training image 2 of class 1 is row 1 * 4 + 2 of the one, row 1 * 9 + 2 of the other
    assert np.array_equal(few.images(6, 7, 32)[0], many.images(11, 12, 32)[0])
    # test image 1 of class 2: after the training images, row 2 * 2 + 1
    assert np.array_equal(few.images(12 + 5, 12 + 6, 32)[0], many.images(45 + 5, 45 + 6, 32)[0])


def test_rows_are_read_alike_in_pieces_and_at_once():
    data = Fractals(2, 3, 1)
    whole, readable = data.images(0, 8, 32)
    assert readable.all() and whole.shape == (8, 1, 32, 32) and whole.dtype == np.uint8
    assert np.array_equal(whole, np.concatenate([data.images(row, row + 1, 32)[0] for row in range(8)]))


def test_training_and_test_images_differ():
    whole = Fractals(2, 6, 6).images(0, 24, 32)[0]
    assert len({image.tobytes() for image in whole}) == 24


def test_categories_are_contracting_systems_of_two_to_eight_maps():
    systems = [category(0, index) for index in range(30)]
    assert all(2 <= len(maps) <= 8 and maps.shape[1] == 6 for maps in systems)
    assert len({len(maps) for maps in systems}) > 2
    for maps in systems:
        norms = [torch.linalg.matrix_norm(torch.tensor(m[:4]).view(2, 2), 2).item() for m in maps]
        assert max(norms) < 0.8 and np.abs(maps).max() <= 1


def test_categories_fill_a_fifth_of_the_image_and_are_not_blank():
    for index in range(10):
        image = instances(0, index, ["train 0"], 64)[0]
        assert image.max() == 255 and image.min() == 0
        assert (image > 0).mean() > 0.15


def test_the_chaos_game_draws_the_sierpinski_triangle():
    # three maps that halve towards the corners (0, 0), (1, 0), (0, 1): column & row == 0 in binary, as in Pascal's
    # triangle modulo 2
    half = np.array([[0.5, 0, 0, 0.5, e, f] for e, f in ((0, 0), (0.5, 0), (0, 0.5))])
    uniform = np.random.default_rng(0).random((1, 200, 400))
    image = _draw(half[None], uniform, 16)[0]
    row, column = np.mgrid[:16, :16]
    # the image is stretched to the points' extent, which moves some of them across the edges of pixels
    assert (image == ((row & column) == 0)).mean() > 0.9
    assert image[(row & column) == 0].all()


def test_classes_can_be_told_apart_by_their_nearest_neighbour():
    train = np.concatenate([instances(0, index, [f"train {i}" for i in range(40)], 32) for index in range(5)])
    test = np.concatenate([instances(0, index, [f"test {i}" for i in range(10)], 32) for index in range(5)])
    distance = torch.cdist(*(torch.from_numpy(x).float().flatten(1) for x in (test, train)))
    right = distance.argmin(1) // 40 == torch.arange(50) // 10
    assert right.float().mean() > 0.8, "chance is 0.2"


def test_they_are_packed_at_the_size_asked_for(tmp_path):
    store = pack(Fractals(2, 3, 1), tmp_path, 48, budget=10**9)
    assert store.arrays["input"].shape == (8, 1, 48, 48)
    assert store.arrays["target"].tolist() == [0, 0, 0, 1, 1, 1, 0, 1]
    assert np.array_equal(store.arrays["input"], Fractals(2, 3, 1).images(0, 8, 48)[0])


def test_the_fingerprint_names_the_arguments(tmp_path):
    prints = [
        Fractals(*a).fingerprint(tmp_path)
        for a in ((2, 3, 1, 0), (3, 3, 1, 0), (2, 4, 1, 0), (2, 3, 2, 0), (2, 3, 1, 1))
    ]
    assert len(set(prints)) == 5 and prints[0] == Fractals(2, 3, 1, 0).fingerprint(tmp_path)


@pytest.mark.parametrize("arguments", [{"classes": 0}, {"images_per_class": 0}, {"test_images_per_class": -1}])
def test_bad_arguments_are_the_users_error(arguments):
    with pytest.raises(UserError, match=f"{next(iter(arguments))} of Fractals to be at least"):
        Fractals(**arguments)
