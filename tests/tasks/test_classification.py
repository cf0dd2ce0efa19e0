"""Classification: what is logged, and what it equals."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score, top_k_accuracy_score
from tiny_tasks import QUIET, TinyData, classifier, labelled, trainer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from tlkit.data.batch import Batch
from tlkit.errors import UserError
from tlkit.tasks import Classification, Normalisation

pytestmark = QUIET
UNIT = Normalisation((0.0,), (1.0,))


def judged(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Runs a test whose network hands out the given logits."""
    data = TinyData(test=(logits.view(*logits.shape, 1, 1), labels), batch_size=7)
    data.arguments = {"num_classes": logits.shape[1]}
    task = Classification(nn.Flatten(), normalisation=Normalisation([0.0] * logits.shape[1], [1.0] * logits.shape[1]))
    return dict(trainer().test(task, data, verbose=False)[0])


@pytest.mark.parametrize("case", ["all classes", "one never predicted", "one never a target", "one in neither"])
def test_metrics_equal_scikit_learn(case: str) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(7, (50,), generator=generator)
    logits = torch.randn(50, 7, generator=generator) + 2 * F.one_hot(labels, 7)
    if case in ("one never predicted", "one in neither"):
        logits[:, 4] = -20 - torch.rand(50, generator=generator)
    if case in ("one never a target", "one in neither"):
        labels[labels == 4] = 1
    results = judged(logits, labels)
    predicted = logits.argmax(1)
    macro = {"average": "macro", "zero_division": 0}
    assert results["test/precision"] == pytest.approx(precision_score(labels, predicted, **macro), abs=1e-6)
    assert results["test/recall"] == pytest.approx(recall_score(labels, predicted, **macro), abs=1e-6)
    assert results["test/f1"] == pytest.approx(f1_score(labels, predicted, **macro), abs=1e-6)
    assert results["test/accuracy"] == pytest.approx((labels == predicted).float().mean().item())
    top5 = top_k_accuracy_score(labels, logits, k=5, labels=range(7))
    assert results["test/top5"] == pytest.approx(top5, abs=1e-6)
    assert results["test/loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)


def test_a_fit_logs_these_names() -> None:
    run = trainer(max_epochs=2)
    task = Classification(classifier())
    run.fit(task, datamodule=TinyData(labelled(), labelled(seed=1)))
    names = {"train/loss", *(f"val/{name}" for name in ("loss", "accuracy", "precision", "recall", "f1"))}
    assert set(run.callback_metrics) == names  # no top5 among three classes, and the confusion matrix is a picture
    assert task.monitor in names


def test_train_loss_is_the_mean_over_samples() -> None:
    run = trainer(max_epochs=1)
    task = Classification(classifier(), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0), normalisation=UNIT)
    inputs, labels = labelled(19)  # the last batch is smaller
    run.fit(task, datamodule=TinyData((inputs, labels)))
    expected = F.cross_entropy(task(inputs), labels).item()
    assert run.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-5)


def test_no_validation_rows_give_no_validation_metrics() -> None:
    run = trainer()
    run.fit(Classification(classifier()), datamodule=TinyData(labelled()))
    assert set(run.callback_metrics) == {"train/loss"}


def test_soft_targets_and_smoothing() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    task = Classification(classifier(), label_smoothing=0.1)
    task.adapt(TinyData())
    mixed = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]])
    smooth = 0.9 * mixed + 0.1 / 3
    assert task.criterion(logits, mixed).item() == pytest.approx(-(smooth * logits.log_softmax(1)).sum(1).mean().item())
    task.eval()
    assert task.criterion(logits, mixed).item() == pytest.approx(-(mixed * logits.log_softmax(1)).sum(1).mean().item())


def test_a_fit_with_soft_targets_validates_on_hard_ones() -> None:
    inputs, labels = labelled()
    run = trainer()
    run.fit(Classification(classifier()), datamodule=TinyData((inputs, F.one_hot(labels, 3).float()), labelled(seed=1)))
    assert 0 <= run.callback_metrics["val/accuracy"] <= 1


def test_predictions_are_probabilities() -> None:
    inputs, labels = labelled(10)
    batches = trainer().predict(Classification(classifier(), normalisation=UNIT), TinyData(test=(inputs, labels)))
    assert [tuple(batch.shape) for batch in batches] == [(8, 3), (2, 3)]
    np.testing.assert_allclose(torch.cat(batches).sum(1), 1, rtol=1e-5)


def test_several_domains_are_named_and_the_first_is_the_own() -> None:
    task = Classification(classifier(), normalisation=UNIT)
    test = {"own": labelled(8, seed=1), "other": labelled(8, seed=2)}
    run = trainer()
    run.test(task, TinyData(test=test), verbose=False)
    metrics = run.callback_metrics
    for domain, (inputs, labels) in test.items():
        accuracy = (task(inputs).argmax(1) == labels).float().mean()
        assert metrics[f"test/accuracy/{domain}"] == pytest.approx(accuracy.item())
    assert metrics["test/loss"] == metrics["test/loss/own"] != metrics["test/loss/other"]
    assert not any("dataloader_idx" in name for name in metrics)


def test_a_test_before_the_fit_has_its_own_prefix(tmp_path: Path) -> None:
    task = Classification(classifier(), normalisation=UNIT)
    task.phase_prefix, task.run_dir = "before", tmp_path
    run = trainer()
    run.test(task, TinyData(test=labelled()), verbose=False)
    assert "before/accuracy" in run.callback_metrics and not any(n.startswith("test") for n in run.callback_metrics)
    assert [path.name for path in tmp_path.iterdir()] == ["confusion-before.png"]


def test_a_network_of_other_classes_is_an_error() -> None:
    with pytest.raises(UserError, match=r"\(batch, 3\).*got \(8, 5\); set model.network.num_classes to 3"):
        trainer().fit(Classification(classifier(5)), datamodule=TinyData(labelled()))


def test_data_without_classes_are_an_error() -> None:
    data = TinyData(labelled())
    data.arguments = {"in_channels": 1}
    with pytest.raises(UserError, match="num_classes"):
        trainer().fit(Classification(classifier()), datamodule=data)


def test_bare_loaders_are_an_error() -> None:
    with pytest.raises(UserError, match="expected a data module"):
        trainer().fit(Classification(classifier()), [Batch(*labelled(), torch.arange(16))])
