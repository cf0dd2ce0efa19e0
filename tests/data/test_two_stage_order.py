"""Which batches a trainer sees, in one go, resumed, with workers and among ranks."""

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from tlkit.data import Augmentation, Batch, TwoStageData
from tlkit.data.packed import build
from tlkit.data.sampler import Rows, RowSampler, loader
from tlkit.errors import UserError

N, TRAIN = 26, 22  # 22 to train on: five batches of 5, the last one short
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*is smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks"),
]


class Jitter(Augmentation):
    def __call__(self, batch, random):
        return batch._replace(input=batch.input + random.uniform("jitter").view(-1, 1, 1, 1))


class Counting(TwoStageData):
    """Sample i is the constant image i."""

    def open(self):
        def fill(arrays):
            arrays["input"][:] = np.arange(N, dtype=np.uint8)[:, None, None, None]
            arrays["target"][:] = np.arange(N)

        spec = {"input": (np.uint8, (N, 1, 2, 2)), "target": (np.int64, (N,))}
        return build(self.cache_dir, self.fingerprint(), spec, fill)

    def rows(self, part):
        return {"": np.arange(TRAIN) if part == "train" else np.arange(TRAIN, N)}

    def convert(self, batch):
        return batch._replace(input=batch.input.float())

    def network_arguments(self):
        return {"num_classes": N, "in_channels": 1}

    def describe(self):
        return {}

    def fingerprint(self):
        return "c" * 64


class TwoDomains(Counting):
    def rows(self, part):
        own = super().rows(part)[""]
        return {"near": own, "far": np.array([3, 1])} if part == "test" else {"near": own}


class Recording(LightningModule):
    """Trains one weight and remembers what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.evaluated = [], []

    def training_step(self, batch, batch_idx):
        self.seen.append((batch.sample.tolist(), batch.input.flatten(1).mean(1).tolist()))
        return self.weight * batch.input.mean()

    def validation_step(self, batch, batch_idx):
        self.log("loss", self.weight, sync_dist=True)

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.evaluated.append((dataloader_idx, batch.sample.tolist(), batch.input.flatten(1).mean(1).tolist()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def data_of(tmp_path, **arguments):
    return Counting(batch_size=5, cache_dir=str(tmp_path / "cache"), augment=[Jitter()], **arguments)


def trainer_of(tmp_path, callbacks=None, **arguments):
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
        callbacks=callbacks,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        **arguments,
    )


def fit(tmp_path, workers=0, checkpoint=None, callbacks=None, seed=1, **limits):
    """Returns the batches that a run sees: rows, and augmented means."""
    seed_everything(seed, verbose=False)
    model = Recording()
    trainer = trainer_of(tmp_path, callbacks, **(limits or {"max_epochs": 3}))
    trainer.fit(model, data_of(tmp_path, num_workers=workers), ckpt_path=checkpoint, weights_only=True)
    return model.seen


def test_every_epoch_sees_every_row_once_in_another_order(tmp_path):
    seen = fit(tmp_path)
    assert [len(rows) for rows, _ in seen] == 3 * [5, 5, 5, 5, 2]
    epochs = [sum((rows for rows, _ in seen[start : start + 5]), []) for start in (0, 5, 10)]
    assert all(sorted(epoch) == list(range(TRAIN)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_every_epoch_augments_anew(tmp_path):
    jitter = [
        {row: mean - row for rows, means in fit(tmp_path)[s : s + 5] for row, mean in zip(rows, means, strict=True)}
        for s in (0, 5)
    ]
    assert all(0 <= value < 1 for epoch in jitter for value in epoch.values())
    assert all(jitter[0][row] != jitter[1][row] for row in range(TRAIN))


def test_seeds_order_differently(tmp_path):
    assert fit(tmp_path, seed=1) != fit(tmp_path, seed=2)
    assert fit(tmp_path, seed=1) == fit(tmp_path, seed=1)


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    assert fit(tmp_path, workers=0) == fit(tmp_path, workers=2)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("limits", [{"max_epochs": 3}, {"max_steps": 15, "max_epochs": -1}], ids=["epochs", "steps"])
@pytest.mark.parametrize(
    "saved",
    [
        {"every_n_train_steps": 7},
        {"every_n_epochs": 1, "save_on_train_epoch_end": True},
        {"every_n_epochs": 1, "save_on_train_epoch_end": False},
    ],
    ids=["mid epoch", "epoch end", "validation end"],
)
def test_a_resumed_run_sees_exactly_the_batches_that_were_left(tmp_path, workers, limits, saved):
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", save_top_k=-1, **saved)
    whole = fit(tmp_path, workers, callbacks=[keep], **limits)
    files = {int(path.stem.removeprefix("step=")): path for path in (tmp_path / "kept").iterdir()}
    done = min(files)
    assert done in (5, 7)
    assert fit(tmp_path, workers, checkpoint=files[done], **limits) == whole[done:]


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_overfitting_to_some_batches_repeats_them(tmp_path):
    seed_everything(1, verbose=False)
    model = Recording()
    trainer_of(tmp_path, max_epochs=2, overfit_batches=2).fit(model, data_of(tmp_path))
    assert [rows for rows, _ in model.seen] == 2 * [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_evaluation_is_in_row_order_and_not_augmented(tmp_path):
    model = Recording()
    trainer_of(tmp_path).test(model, data_of(tmp_path), verbose=False)
    assert model.evaluated == [(0, [22, 23, 24, 25], [22.0, 23.0, 24.0, 25.0])]


def test_several_domains_are_tested_one_after_another_the_own_one_first(tmp_path):
    model, data = Recording(), TwoDomains(batch_size=5, cache_dir=str(tmp_path))
    trainer = trainer_of(tmp_path)
    trainer.test(model, data, verbose=False)
    assert list(trainer.test_dataloaders) == ["near", "far"]
    assert [(index, rows) for index, rows, _ in model.evaluated] == [(0, [22, 23, 24, 25]), (1, [3, 1])]


def rank(index: int, world: int):
    """Returns what of a trainer the sampler reads when nothing was trained yet."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=0, processed=0))
    fit_loop = SimpleNamespace(is_resuming=False, epoch_progress=progress)
    return SimpleNamespace(world_size=world, global_rank=index, fit_loop=fit_loop, current_epoch=0)


def shares(n: int, world: int, batch_size: int, shuffle: bool) -> list[list[np.ndarray]]:
    rows = Rows(np.arange(n), batch_size, lambda rows: Batch(rows, rows, rows))
    samplers = [RowSampler(rows, rank(index, world), shuffle) for index in range(world)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(one) for one in batches] == [len(sampler) for sampler in samplers]
    return batches


@pytest.mark.parametrize(("n", "world", "batch_size"), [(22, 2, 5), (23, 2, 5), (21, 4, 5), (3, 4, 2), (7, 3, 1)])
def test_ranks_train_equally_many_equally_large_batches_on_all_rows(n, world, batch_size):
    ranks = shares(n, world, batch_size, shuffle=True)
    sizes = [[len(batch) for batch in one] for one in ranks]
    assert all(one == sizes[0] for one in sizes)
    assert set(np.concatenate([batch for one in ranks for batch in one])) == set(range(n))


def test_the_ranks_batches_together_are_one_process_larger_batches():
    alone = shares(20, 1, 10, shuffle=True)[0]
    ranks = shares(20, 2, 5, shuffle=True)
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert set(whole) == set(np.concatenate(parts))


@pytest.mark.parametrize(("n", "world", "batch_size"), [(22, 2, 5), (21, 2, 5), (41, 4, 5), (22, 4, 2)])
def test_ranks_evaluate_equally_many_batches_and_each_row_once(n, world, batch_size):
    ranks = shares(n, world, batch_size, shuffle=False)
    assert len({len(one) for one in ranks}) == 1
    assert sorted(np.concatenate([batch for one in ranks for batch in one])) == list(range(n))
    assert all(1 <= len(batch) <= batch_size for one in ranks for batch in one)


def test_ranks_evaluate_equally_many_batches_even_of_too_few_rows():
    assert [len(one) for one in shares(3, 4, 2, shuffle=False)] == [1, 1, 1, 1]
    assert [len(one) for one in shares(7, 3, 1, shuffle=False)] == [3, 3, 3]


def test_without_a_trainer_loaders_give_the_first_epoch(tmp_path, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    data = data_of(tmp_path)
    rows = [batch.sample.tolist() for batch in data.train_dataloader()]
    assert sorted(sum(rows, [])) == list(range(TRAIN)) and rows == [b.sample.tolist() for b in data.train_dataloader()]


def test_statistics_are_those_of_the_training_rows(tmp_path):
    mean, deviation = data_of(tmp_path).statistics()
    assert mean == pytest.approx((np.arange(TRAIN).mean(),)) and deviation == pytest.approx((np.arange(TRAIN).std(),))


def test_a_loader_that_yields_batches_of_rows_needs_no_trainer(tmp_path):
    data = data_of(tmp_path)
    batches = list(loader(Rows(np.array([4, 2, 9]), 2, data.read), None, shuffle=False, num_workers=0))
    assert [batch.target.tolist() for batch in batches] == [[4, 2], [9]]
    assert batches[0].input.dtype == torch.uint8


def load_as_daemon(queue, folder):
    queue.put([batch.sample.tolist() for batch in data_of(folder, num_workers=2).val_dataloader()])


def test_a_daemon_which_may_have_no_children_loads_by_itself(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=load_as_daemon, args=(queue, tmp_path), daemon=True)
    process.start()
    assert queue.get(timeout=30) == [[22, 23, 24, 25]]
    process.join()


class Unvalidated(Counting):
    def rows(self, part):
        return {"": np.arange(0)} if part == "val" else super().rows(part)


def test_a_run_without_validation_images_trains_and_validates_nothing(tmp_path):
    model = Recording()
    trainer = trainer_of(tmp_path, max_epochs=1)
    trainer.fit(model, Unvalidated(batch_size=5, cache_dir=str(tmp_path)))
    assert len(model.seen) == 5 and "loss" not in trainer.callback_metrics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "finetune"}, "'pretrain' or 'transfer', got 'finetune'"),
        ({"batch_size": 0}, "batch_size to be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers to be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_the_users_error(arguments, message):
    with pytest.raises(UserError, match=message):
        Counting(**arguments)


class Filing(Recording):
    """Writes what its rank saw to a file."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_train_end(self):
        torch.save([rows for rows, _ in self.seen], self.folder / f"rank{self.global_rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("inject", [True, False])
def test_two_processes_share_each_epoch_whether_or_not_lightning_wants_to_shard_it(tmp_path, inject):
    seed_everything(1, verbose=False)
    trainer = trainer_of(tmp_path, max_epochs=1, strategy="ddp_fork", devices=2, use_distributed_sampler=inject)
    trainer.fit(Filing(tmp_path), data_of(tmp_path))
    ranks = [torch.load(tmp_path / f"rank{index}.pt") for index in (0, 1)]
    assert [[len(rows) for rows in one] for one in ranks] == [[5, 5, 1]] * 2
    assert sorted(sum(ranks[0] + ranks[1], [])) == list(range(TRAIN))
