"""What all tasks share: normalisation, checkpoints, the loss log, the optimizer, the command line."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import CSVLogger
from tiny_tasks import QUIET, ImageData, TinyData, classifier, image_network, image_pairs, labelled, trainer

from tlkit.errors import UserError
from tlkit.tasks import Classification, Normalisation, Restoration, Task

pytestmark = QUIET


def fitted(tmp_path: Path, data: TinyData, **kwargs: Any) -> tuple[Classification, Path]:
    run, task = trainer(**kwargs), Classification(classifier())
    run.fit(task, datamodule=data)
    run.save_checkpoint(tmp_path / "task.ckpt")
    return task, tmp_path / "task.ckpt"


def test_normalisation_is_that_of_the_training_images(tmp_path: Path) -> None:
    inputs, labels = labelled()
    task, _ = fitted(tmp_path, TinyData((inputs, labels)))
    assert task.input_mean.shape == (1, 1, 1)
    assert task.input_mean.item() == pytest.approx(inputs.mean().item(), rel=1e-5)
    normalised = task.normalise(inputs)
    assert (normalised.mean().item(), normalised.std().item()) == pytest.approx((0, 1), abs=1e-5)


def test_a_given_normalisation_is_kept() -> None:
    data = TinyData(labelled())
    task = Classification(classifier(), normalisation=Normalisation([0.25], [2.0]))
    trainer().fit(task, datamodule=data)
    assert (task.input_mean.item(), task.input_std.item(), data.asked) == (0.25, 2.0, 0)


def test_a_checkpoint_is_plain_data_and_restores_the_normalisation(tmp_path: Path) -> None:
    task, path = fitted(tmp_path, TinyData(labelled(), labelled(seed=1)))
    state = torch.load(path, weights_only=True)["state_dict"]
    assert set(state) == {"input_mean", "input_std", *(f"network.{key}" for key in classifier().state_dict())}
    other = TinyData((labelled()[0] + 100, labelled()[1]), test=labelled(seed=2))
    restored = Classification(classifier())
    trainer().test(restored, other, ckpt_path=path, weights_only=True, verbose=False)
    assert restored.normalised and other.asked == 0
    torch.testing.assert_close(restored.input_mean, task.input_mean, rtol=0, atol=0)
    restored = Classification(classifier())
    restored.load_state_dict(state)  # as a transfer does, before the fit
    trainer().fit(restored, datamodule=other)
    assert other.asked == 0 and torch.equal(restored.input_std, task.input_std)


def test_resuming_takes_the_normalisation_of_the_checkpoint(tmp_path: Path) -> None:
    task, path = fitted(tmp_path, TinyData(labelled()))
    other = TinyData((labelled()[0] + 100, labelled()[1]))
    resumed = Classification(classifier())
    trainer(max_epochs=2).fit(resumed, datamodule=other, ckpt_path=path, weights_only=True)
    assert torch.equal(resumed.input_mean, task.input_mean)


def test_normalisation_per_channel_comes_back_from_a_checkpoint() -> None:
    given = Classification(classifier(), normalisation=Normalisation([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]))
    fresh = Classification(classifier())
    fresh.load_state_dict(given.state_dict())
    assert fresh.normalised and fresh.input_std.flatten().tolist() == [1.0, 2.0, 3.0]


def test_a_test_before_the_fit_leaves_a_task_that_trains() -> None:
    data = ImageData(image_pairs(), test=image_pairs(seed=1))
    task, run = Restoration(image_network()), trainer()
    task.phase_prefix = "before"
    run.test(task, data, verbose=False)
    assert "before/psnr" in run.callback_metrics
    deepcopy(task).load_state_dict(task.state_dict())  # not possible for tensors made in inference mode
    trainer().fit(task, datamodule=data)
    assert data.asked == 1


@pytest.mark.parametrize(("mean", "std"), [([0.1], [0.0]), ([0.1], [1.0, 1.0]), ([float("nan")], [1.0]), ([], [])])
def test_a_senseless_normalisation_is_an_error(mean: list[float], std: list[float]) -> None:
    with pytest.raises(UserError, match="one mean and one standard deviation above 0 per channel"):
        Classification(classifier(), normalisation=Normalisation(mean, std))


def test_data_without_statistics_need_a_normalisation() -> None:
    data = TinyData(labelled())
    data.statistics = None  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match="give model.normalisation or a checkpoint"):
        trainer().fit(Classification(classifier()), datamodule=data)


def test_the_loss_of_a_step_is_logged_every_n_steps(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    trainer(logger=logger, max_epochs=2, log_every_n_steps=3).fit(
        Classification(classifier()), datamodule=TinyData(labelled(32))
    )
    rows = logger_rows(tmp_path / "metrics.csv", "train/loss_step")
    assert [int(row["step"]) for row in rows] == [2, 5]  # eight steps, counted from 0
    assert len(logger_rows(tmp_path / "metrics.csv", "train/loss")) == 2


def logger_rows(path: Path, column: str) -> list[dict[str, str]]:
    header, *lines = path.read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    return [row for row in rows if row[column]]


def test_accumulated_batches_log_one_loss_per_step(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="")
    run = trainer(logger=logger, accumulate_grad_batches=4, log_every_n_steps=1)
    run.fit(Classification(classifier()), datamodule=TinyData(labelled(32), batch_size=4))
    assert [int(row["step"]) for row in logger_rows(tmp_path / "metrics.csv", "train/loss_step")] == [0, 1]


def test_the_optimizer_has_named_groups_with_scaled_rates() -> None:
    task = Classification(classifier(), lr_scale={"4": 10.0}, decay_norm_and_bias=False)
    groups = {group["name"]: group for group in task.configure_optimizers().param_groups}
    assert list(groups) == ["0", "0/no_decay", "4", "4/no_decay"]
    assert (groups["0"]["lr"], groups["4"]["lr"]) == pytest.approx((0.01, 0.1))
    assert groups["0"]["momentum"] == 0.9


def test_a_task_is_built_from_plain_data() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--model", type=Task)
    network = {"class_path": "torch.nn.Conv2d", "init_args": {"in_channels": 1, "out_channels": 1, "kernel_size": 1}}
    arguments = {
        "network": network,
        "loss": "l1",
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.002}},
        "normalisation": {"mean": [0.5], "std": [0.25]},
    }
    config = parser.parse_object({"model": {"class_path": "tlkit.tasks.Restoration", "init_args": arguments}})
    task = parser.instantiate(config).model
    assert isinstance(task.configure_optimizers(), torch.optim.Adam)
    assert task.configure_optimizers().param_groups[0]["lr"] == 0.002
    assert task.input_std.item() == 0.25
    del arguments["optimizer"]
    config = parser.parse_object({"model": {"class_path": "tlkit.tasks.Restoration", "init_args": arguments}})
    (group, *_) = parser.instantiate(config).model.configure_optimizers().param_groups
    assert (group["lr"], group["momentum"]) == (0.01, 0.9)
