import hashlib

import pytest
import torch

from tlkit.data.random import SampleRandom, key

SAMPLES = torch.arange(20_000)


def test_draws_are_those_of_splitmix64():
    # SplitMix64 in Python's unbounded integers, from the published algorithm
    mask = 2**64 - 1
    z = (123 * 0x9E3779B97F4A7C15 + key(7, 2, "flip")) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    random = SampleRandom(7, 2, torch.tensor([123]))
    assert random.uniform("flip").item() == (z >> 40) / 2**24
    assert random.integers("flip", 10).item() == (z >> 1) % 10


def test_draws_are_uniform():
    random = SampleRandom(0, 0, SAMPLES)
    u = random.uniform("x")
    assert u.dtype == torch.float32 and u.min() >= 0 and u.max() < 1
    # standard error of the mean of 20,000 draws: 0.289 / 141 = 0.002
    assert u.mean().item() == pytest.approx(0.5, abs=0.008)
    assert u.var().item() == pytest.approx(1 / 12, abs=0.003)
    counts = random.integers("y", 7).bincount(minlength=7)
    assert counts.shape == (7,) and (counts - 20_000 / 7).abs().max() < 4 * (20_000 / 7) ** 0.5


@pytest.mark.parametrize("other", [(1, 0, "x"), (0, 1, "x"), (0, 0, "y")])
def test_seed_epoch_and_name_each_give_independent_draws(other):
    seed, epoch, name = other
    first = SampleRandom(0, 0, SAMPLES).uniform("x")
    second = SampleRandom(seed, epoch, SAMPLES).uniform(name)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.03


def test_neighbouring_samples_are_independent():
    u = SampleRandom(0, 0, SAMPLES).uniform("x")
    assert abs(torch.corrcoef(torch.stack([u[1:], u[:-1]]))[0, 1].item()) < 0.03


def test_a_draw_depends_on_its_sample_only_not_on_batch_or_order():
    whole = SampleRandom(3, 1, torch.arange(10)).uniform("x")
    part = SampleRandom(3, 1, torch.tensor([7, 2])).uniform("x")
    assert torch.equal(part, whole[[7, 2]])


def test_keys_do_not_depend_on_the_process():
    # Python's own hash of strings is salted per process
    assert key("flip", 3) == int.from_bytes(hashlib.sha256(b"flip\x1f3").digest()[:8], "little")
