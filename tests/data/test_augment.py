import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from tlkit.data import Batch, Crop, CutMix, Dihedral, Flip, MixUp, RandAugment, RandomResizedCrop
from tlkit.data.augment import resized_crop
from tlkit.data.mixing import _beta_quantiles
from tlkit.data.rand_augment import _operations
from tlkit.data.random import SampleRandom
from tlkit.errors import UserError

SIZE = 16
PER_SAMPLE = [Flip(), Dihedral(), Crop(2), RandomResizedCrop(), RandAugment(2, 15)]


def batch_of(n: int, channels: int = 3, first: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(first)
    x = torch.rand(n, channels, SIZE, SIZE, generator=generator)
    return Batch(x, torch.arange(n) % 4, torch.arange(first, first + n))


def apply(augmentation, batch: Batch, epoch: int = 0, size: int | None = None) -> Batch:
    augmentation.prepare(4, size)
    return augmentation(batch, SampleRandom(5, epoch, batch.sample))


def select(batch: Batch, places: list[int]) -> Batch:
    return Batch(*(part[places] for part in batch))


def names(augmentation) -> str:
    return type(augmentation).__name__


@pytest.mark.parametrize("augmentation", PER_SAMPLE, ids=names)
def test_a_sample_is_augmented_alike_wherever_it_stands_in_whichever_batch(augmentation):
    batch = batch_of(40)
    places = [33, 2, 17]
    whole, part = apply(augmentation, batch), apply(augmentation, select(batch, places))
    assert torch.equal(part.input, whole.input[places])


@pytest.mark.parametrize("augmentation", [*PER_SAMPLE, MixUp(), CutMix()], ids=names)
def test_epochs_differ_and_repeat_exactly(augmentation):
    batch = batch_of(40)
    assert not torch.equal(apply(augmentation, batch, 0).input, apply(augmentation, batch, 1).input)
    assert torch.equal(apply(augmentation, batch, 1).input, apply(augmentation, batch, 1).input)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augmentation", [*PER_SAMPLE, MixUp(), CutMix()], ids=names)
def test_shape_type_and_range_are_kept(augmentation, channels):
    batch = batch_of(60, channels)
    before = batch.input.clone()
    out = apply(augmentation, batch)
    assert out.input.shape == (60, channels, SIZE, SIZE) and out.input.dtype == torch.float32
    assert out.input.min() >= 0 and out.input.max() <= 1 + 1e-6
    assert torch.equal(out.sample, batch.sample)
    assert torch.equal(batch.input, before), "the batch itself was changed"


def test_flip_mirrors_about_half_of_the_samples_left_to_right():
    batch = batch_of(200)
    out = apply(Flip(), batch).input
    same = (out == batch.input).all(dim=(1, 2, 3))
    mirrored = (out == batch.input.flip(3)).all(dim=(1, 2, 3))
    assert (same ^ mirrored).all() and 70 < int(mirrored.sum()) < 130


def test_dihedral_draws_all_eight_symmetries():
    one = torch.arange(SIZE * SIZE, dtype=torch.float32).view(1, 1, SIZE, SIZE)
    batch = Batch(one.expand(200, 1, SIZE, SIZE), torch.zeros(200, dtype=torch.int64), torch.arange(200))
    wanted = [np.rot90(m, k) for m in (one[0, 0].numpy(), one[0, 0].numpy().T) for k in range(4)]
    out = apply(Dihedral(), batch).input[:, 0].numpy()
    drawn = [[i for i, w in enumerate(wanted) if np.array_equal(image, w)] for image in out]
    assert all(len(found) == 1 for found in drawn)
    assert {found[0] for found in drawn} == set(range(8))


@pytest.mark.parametrize("augmentation", [Flip(), Dihedral(), Crop(3)], ids=names)
def test_image_and_mask_targets_move_with_the_input(augmentation):
    batch = batch_of(30, 1)
    out = apply(augmentation, batch._replace(target=batch.input * 2))
    assert torch.equal(out.target, out.input * 2)
    mask = (batch.input[:, 0] * 10).long()
    out = apply(augmentation, batch._replace(target=mask))
    assert torch.equal(out.target, (out.input[:, 0] * 10).long())


def test_dihedral_of_oblong_images_is_the_users_error():
    batch = batch_of(4)._replace(input=torch.rand(4, 1, 8, 6))
    with pytest.raises(UserError, match=r"square images.*\(8, 6\)"):
        apply(Dihedral(), batch)


def test_crop_shifts_by_up_to_its_padding_and_moves_zeros_in():
    batch = batch_of(300, 1)
    out = apply(Crop(2), batch).input
    padded = torch.nn.functional.pad(batch.input, [2] * 4)
    seen = set()
    for x, y in zip(padded, out, strict=True):
        shifts = [(i, j) for i in range(5) for j in range(5) if torch.equal(x[:, i : i + SIZE, j : j + SIZE], y)]
        assert len(shifts) == 1
        seen.add(shifts[0])
    assert len(seen) == 25


def test_crop_cuts_the_networks_size_from_larger_images():
    out = apply(Crop(0), batch_of(50), size=9).input
    assert out.shape == (50, 3, 9, 9)


def test_resized_crop_equals_torchvisions_antialiased_one():
    x = torch.rand(3, 3, SIZE, SIZE)
    boxes = [(3, 5, 10, 11), (0, 0, 16, 16), (1, 2, 5, 14)]  # top, left, height, width
    columns = [torch.tensor(c, dtype=torch.float32) for c in zip(*boxes, strict=True)]
    got = resized_crop(x, *columns, (12, 7))
    for i, box in enumerate(boxes):
        assert torch.allclose(got[i], tv.resized_crop(x[i], *box, [12, 7], antialias=True), atol=1e-6)


def test_random_resized_crop_gives_the_networks_size():
    assert apply(RandomResizedCrop(), batch_of(10), size=9).input.shape == (10, 3, 9, 9)


def test_random_resized_crop_of_the_whole_image_changes_nothing():
    batch = batch_of(10)
    out = apply(RandomResizedCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)), batch).input
    assert torch.allclose(out, batch.input, atol=1e-6)


@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_each_operation_of_rand_augment_equals_torchvisions(magnitude):
    from torchvision.transforms.v2 import RandAugment as Reference

    reference, x = Reference(), torch.rand(2, 3, SIZE, SIZE)
    names = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"]
    names += ["Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"]
    operations = _operations(magnitude / 30, SIZE, SIZE)
    assert len(operations) == len(names) == len(reference._AUGMENTATION_SPACE)
    for name, operation in zip(names, operations, strict=True):
        magnitudes, signed = reference._AUGMENTATION_SPACE[name]
        values = magnitudes(31, SIZE, SIZE)
        value = 0.0 if values is None else float(values[magnitude])
        for sign in (1.0, -1.0):
            applied = (sign * value) if signed else value
            want = reference._apply_image_or_video_transform(x, name, applied, reference.interpolation, reference._fill)
            assert torch.allclose(operation(x, sign), want, atol=1e-5), (name, sign)


def test_rand_augment_draws_every_operation_and_both_signs():
    batch = batch_of(1)
    many = Batch(batch.input.expand(600, -1, -1, -1), torch.zeros(600).long(), torch.arange(600))
    out = apply(RandAugment(1, 20), many).input
    # 9 signed operations give 18 images, 5 unsigned ones give 5; Identity is one of them
    assert len({tuple(image.flatten().tolist()) for image in out}) in range(20, 24)


def test_rand_augment_at_magnitude_zero_keeps_images_that_fill_the_range():
    out = apply(RandAugment(1, 0), batch_of(100))
    changed = (out.input - batch_of(100).input).abs().amax((1, 2, 3)) > 0.01
    assert int(changed.sum()) < 40, "only equalising and solarising at 1 may change anything"


@pytest.mark.parametrize("augmentation", [MixUp(0.4), CutMix()], ids=names)
def test_mixed_targets_are_probabilities_in_the_share_of_pixels(augmentation):
    batch = batch_of(40, 1)
    constant = batch._replace(input=batch.target.float().view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE))
    out = apply(augmentation, constant)
    assert out.target.shape == (40, 4) and torch.allclose(out.target.sum(1), torch.ones(40))
    # images are constant at their label, so the mean pixel is the expected label
    assert torch.allclose(out.input.mean((1, 2, 3)), out.target @ torch.arange(4.0), atol=1e-4)
    assert (out.target > 0).sum(1).max() == 2


@pytest.mark.parametrize("augmentation", [MixUp(0.4), CutMix()], ids=names)
def test_mixing_does_not_depend_on_the_order_of_the_batch(augmentation):
    batch = batch_of(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    whole, turned = apply(augmentation, batch), apply(augmentation, select(batch, order))
    assert torch.equal(turned.input, whole.input[order]) and torch.equal(turned.target, whole.target[order])


def test_cutmix_pastes_one_box():
    batch = batch_of(30, 1)
    out = apply(CutMix(), batch).input
    for x, y in zip(batch.input[:, 0], out[:, 0], strict=True):
        rows, columns = (x != y).any(1).nonzero(), (x != y).any(0).nonzero()
        if len(rows):
            assert (x != y)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


def test_mixing_twice_mixes_probabilities():
    out = apply(CutMix(), apply(MixUp(), batch_of(20)))
    assert torch.allclose(out.target.sum(1), torch.ones(20))


def test_a_batch_of_one_sample_is_mixed_with_itself():
    batch = batch_of(1)
    assert torch.allclose(apply(MixUp(), batch).input, batch.input)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha):
    beta = pytest.importorskip("scipy.stats").beta
    assert np.abs(_beta_quantiles(alpha) - beta.ppf(np.linspace(0, 1, 4097), alpha, alpha)).max() < 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Crop(-1), "padding.*at least 0.*-1"),
        (lambda: RandomResizedCrop(scale=(0.5, 1.5)), "scale"),
        (lambda: RandomResizedCrop(ratio=(2, 1)), "ratio"),
        (lambda: RandAugment(0), "num_ops.*at least 1"),
        (lambda: RandAugment(2, 31), r"magnitude.*0 … 30.*31"),
        (lambda: MixUp(0), "alpha of MixUp.*greater than 0"),
        (lambda: MixUp().prepare(None, None), "class targets for MixUp"),
        (lambda: apply(RandAugment(), batch_of(2)._replace(target=torch.rand(2, 1, 4, 4))), "class targets"),
        (lambda: apply(RandomResizedCrop(), batch_of(2)._replace(target=torch.rand(2, 4, 4))), "class targets"),
    ],
)
def test_bad_arguments_are_the_users_error(make, message):
    with pytest.raises(UserError, match=message):
        make()
