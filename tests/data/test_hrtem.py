"""The simulated data module: splits, determinism, targets, errors."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tlkit.data import hrtem_generate
from tlkit.data.batch import Batch
from tlkit.data.hrtem import DATA_RANGE, HRTEM, domain_name
from tlkit.data.hrtem_generate import Recipe, one_torch_thread, simulate
from tlkit.errors import UserError

DOMAINS = [-5.0, 0.0, 5.0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(hrtem_generate, "BLOCK", 2)


def tiny(cache: str, **changes) -> HRTEM:
    arguments = {
        "stage": "transfer",
        "domains": DOMAINS,
        "train_structures": 3,
        "validation_structures": 1,
        "test_structures": 2,
        "image_size": 32,
        "batch_size": 2,
        "cache_dir": cache,
    }
    return HRTEM(**{**arguments, **changes})


def read(data: HRTEM, part: str, domain: str | None = None) -> Batch:
    rows = data.rows(part)
    return data.read(rows[domain or next(iter(rows))])


def test_batches_are_standardised_counts_and_phase(cache):
    data = tiny(cache)
    batches = [data.convert(batch) for batch in data.train_dataloader()]
    assert [tuple(batch.input.shape) for batch in batches] == [(2, 1, 32, 32), (1, 1, 32, 32)]
    for batch in batches:
        assert batch.input.dtype == batch.target.dtype == torch.float32
        assert batch.target.shape == batch.input.shape
        torch.testing.assert_close(batch.input.mean((1, 2, 3)), torch.zeros(len(batch.input)), atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.input.square().mean((1, 2, 3)), torch.ones(len(batch.input)))
    assert data.statistics() == ((0.0,), (1.0,))


def test_stored_counts_have_the_dose_as_their_mean(cache):
    stored = read(tiny(cache), "test").input
    assert stored.dtype == torch.int32
    # 400 e/Å² · 0.16 Å² on two images of 32² px; the beam that scatters beyond the aperture is lost.
    assert 0.93 * 64 < float(stored.float().mean()) <= 64 + 4 * 8 / 45
    faint = read(tiny(cache, dose=40.0), "test").input
    assert float(faint.float().mean()) == pytest.approx(float(stored.float().mean()) / 10, rel=0.05)


def test_own_domain_comes_first_in_the_test():
    assert list(HRTEM(defocus=10.0).rows("test")) == ["+10nm", "-20nm", "-10nm", "-5nm", "0nm", "+5nm", "+20nm"]
    assert list(HRTEM(defocus=-2.5, domains=[0]).rows("test")) == ["-2.5nm", "0nm"]
    assert list(HRTEM(defocus=-0.0, domains=[0, 5]).rows("test")) == ["0nm", "+5nm"]
    assert list(HRTEM(defocus=10.0).rows("train")) == list(HRTEM(defocus=10.0).rows("val")) == ["+10nm"]
    assert domain_name(12.5) == "+12.5nm"


def test_no_structure_has_two_roles_and_the_stages_train_on_different_ones(cache):
    source, target = tiny(cache, stage="pretrain").describe(), tiny(cache).describe()
    assert source["test"] == target["test"] and source["val"] == target["val"]
    sets = [set(source["train"]), set(target["train"]), set(source["val"]), set(source["test"])]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 3 + 3 + 1 + 2
    json.dumps(source)
    one, other = read(tiny(cache, stage="pretrain"), "train"), read(tiny(cache), "train")
    assert not torch.equal(one.target, other.target)
    assert torch.equal(read(tiny(cache, stage="pretrain"), "test", "0nm").input, read(tiny(cache), "test").input)


def test_splits_hold_for_many_structures():
    data = HRTEM(train_structures=512, test_structures=200, validation_structures=100)
    source = HRTEM(stage="pretrain", train_structures=512)
    parts = [data.describe()[part] for part in ("train", "val", "test")] + [source.describe()["train"]]
    assert len(set().union(*parts)) == 512 + 200 + 100 + 512


def test_more_structures_keep_the_first_ones_and_their_rows(cache):
    few, many = tiny(cache), tiny(cache, train_structures=5)
    assert many.describe()["train"][:3] == few.describe()["train"]
    np.testing.assert_array_equal(many.rows("train")["0nm"][:3], few.rows("train")["0nm"])
    assert torch.equal(read(many, "train").input[:3], read(few, "train").input)
    assert torch.equal(read(many, "val").input, read(few, "val").input)
    assert few.fingerprint() != many.fingerprint()


def test_phase_is_the_same_in_all_domains_and_counts_are_not(cache):
    data = tiny(cache)
    batches = [read(data, "test", domain) for domain in data.rows("test")]
    assert all(torch.equal(batches[0].target, other.target) for other in batches[1:])
    assert not any(torch.equal(batches[0].input, other.input) for other in batches[1:])
    assert float(batches[0].target.max()) > 0.3


def test_clean_target_is_what_the_counts_scatter_around(cache):
    data = tiny(cache, target="clean", dose=10_000.0)
    for domain in data.rows("test"):
        batch = read(data, "test", domain)
        expected = batch.target * 10_000.0 * 0.16
        pull = (batch.input - expected) / expected.sqrt()
        assert abs(float(pull.mean())) < 0.1 and float(pull.std()) == pytest.approx(1.0, abs=0.06)
    assert data.network_arguments() == {"in_channels": 1, "out_channels": 1}


def test_mask_is_where_the_phase_is_large(cache):
    data, phase = tiny(cache, target="mask"), read(tiny(cache), "test").target
    mask = data.convert(read(data, "test")).target
    assert mask.shape == (2, 32, 32) and mask.dtype == torch.int64
    assert torch.equal(mask.bool(), phase[:, 0] > np.pi / 16)
    assert data.network_arguments() == {"in_channels": 1, "out_channels": 2}


@pytest.mark.parametrize("material", ["Au", "CdSe"])
def test_targets_lie_within_the_data_range(cache, material):
    for target in ("phase", "clean"):
        data = tiny(cache, material=material, target=target)
        for domain in data.rows("test"):
            values = read(data, "test", domain).target
            assert 0.05 * data.data_range < float(values.max() - values.min()) <= data.data_range
    assert HRTEM(material="Au").data_range == DATA_RANGE["phase"]["Au"]


def test_jitter_moves_the_defocus_but_not_the_target(cache):
    exact, loose = tiny(cache), tiny(cache, defocus_sd=1.5)
    assert torch.equal(read(exact, "test").target, read(loose, "test").target)
    assert not torch.equal(read(exact, "test").input, read(loose, "test").input)
    drawn = [hrtem_generate._true_defoci(Recipe("Au", 32, 1.0, 1.5, "phase", (10.0,)), n)[0] for n in range(400)]
    assert np.mean(drawn) == pytest.approx(10.0, abs=4 * 1.5 / 20)
    assert np.std(drawn) == pytest.approx(1.5, abs=4 * 1.5 / 800**0.5)


def digest(recipe: Recipe, number: int) -> str:
    with one_torch_thread():
        return hashlib.sha256(b"".join(array.tobytes() for array in simulate(recipe, number))).hexdigest()


def test_simulation_is_the_same_in_another_process_alone_and_in_parallel(cache):
    data = tiny(cache)
    rows, number = data.rows("train")["0nm"], data.describe()["train"][1]
    code = f"from test_hrtem import digest, Recipe; print(digest({data.recipe!r}, {number}))"
    path = str(__file__).rpartition("/")[0]
    other = subprocess.run([sys.executable, "-c", code], cwd=path, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest(data.recipe, number)
    counts, _ = simulate(data.recipe, number)
    np.testing.assert_array_equal(data.read(rows).input[1, 0].numpy(), counts[DOMAINS.index(0.0)])


def test_other_stages_and_sizes_read_the_same_blocks(tmp_path, monkeypatch):
    tiny(str(tmp_path), train_structures=2).open()
    simulated = []
    genuine = hrtem_generate.simulate
    monkeypatch.setattr(
        hrtem_generate, "simulate", lambda recipe, number: simulated.append(number) or genuine(recipe, number)
    )
    tiny(str(tmp_path), train_structures=2, defocus=5.0).open()
    assert simulated == []
    data = tiny(str(tmp_path), train_structures=3)
    data.open()
    assert sorted(simulated) == hrtem_generate.numbers("transfer", 4)[2:]


def test_generation_leaves_the_number_of_threads_alone(tmp_path):
    before = torch.get_num_threads()
    tiny(str(tmp_path)).open()
    assert torch.get_num_threads() == before


def test_no_validation_structures_mean_no_validation(cache):
    data = tiny(cache, validation_structures=0)
    assert len(data.rows("val")["0nm"]) == 0
    assert len(data.val_dataloader()) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"material": "CdS"}, "did you mean 'CdSe'"),
        ({"target": "amplitude"}, "phase, clean, mask"),
        ({"train_structures": 0}, "train_structures"),
        ({"validation_structures": -1}, "validation_structures"),
        ({"test_structures": 0}, "test_structures"),
        ({"image_size": 16}, "image_size"),
        ({"dose": 0.0}, "dose"),
        ({"dose": float("nan")}, "dose"),
        ({"dose": 1e6}, "62500"),
        ({"defocus_sd": -1.0}, "defocus_sd"),
        ({"defocus": 30.0}, "larger image_size"),
        ({"domains": [float("inf")]}, "larger image_size"),
    ],
)
def test_wrong_arguments_are_refused(cache, changes, message):
    with pytest.raises(UserError, match=message):
        tiny(cache, **changes)


def test_fingerprint_depends_on_what_determines_the_images():
    base = HRTEM().fingerprint()
    assert HRTEM().fingerprint() == HRTEM(domains=[20, 10, 5, -5, -10, -20]).fingerprint() == base
    for changes in ({"dose": 300.0}, {"defocus": 5.0}, {"material": "Au"}, {"stage": "pretrain"}, {"target": "clean"}):
        assert HRTEM(**changes).fingerprint() != base
