"""What a task says it will log, against what a fit does log."""

from typing import Any

import pytest
from tiny_tasks import QUIET, ImageData, MaskData, TinyData, classifier, image_network, image_pairs, labelled, trainer

from tlkit.tasks import Classification, Restoration

pytestmark = QUIET
NOISY, CLEAN = image_pairs()
MASKS = (NOISY, (CLEAN[:, 0] > 0.6).long())


class SevenClasses(TinyData):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.arguments = {"num_classes": 7, "in_channels": 1}


@pytest.mark.parametrize(
    ("task", "data"),
    [
        (Classification(classifier()), TinyData(labelled(), labelled())),
        (Classification(classifier(7)), SevenClasses(labelled(classes=7), labelled(classes=7))),
        (Restoration(image_network()), ImageData((NOISY, CLEAN), (NOISY, CLEAN))),
        (Restoration(image_network(2)), MaskData(MASKS, MASKS)),
    ],
    ids=["classification", "with top5", "images", "masks"],
)
def test_a_fit_logs_exactly_what_the_task_says_beforehand(task: Any, data: TinyData) -> None:
    task.adapt(data)
    said = task.logged()
    run = trainer()
    run.fit(task, datamodule=data)
    assert set(said) == set(run.callback_metrics) and len(said) == len(set(said))
    assert task.monitor in said
