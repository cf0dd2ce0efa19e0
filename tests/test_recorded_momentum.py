"""The momentum of each group in TensorBoard, beside its rate."""

from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_fit import fit, quiet, rows  # noqa: F401  the fixture applies here too

from tlkit.schedules import one_cycle, one_cycle_momentum

ONE_CYCLE = {"class_path": "tlkit_callbacks.one_cycle.OneCycle", "init_args": {"peak_lr": 0.02}}


def scalars(run: Path) -> dict[str, dict[int, float]]:
    events = EventAccumulator(str(run)).Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.mark.parametrize(
    "optimizer",
    [{"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.9}}, {"class_path": "AdamW"}],
    ids=["sgd", "adamw"],
)
def test_momentum_is_shown_as_it_is_at_each_step_and_is_no_column_of_the_metrics(optimizer: Any, write: Write) -> None:
    run = fit(write(**{"trainer.callbacks": [ONE_CYCLE], "model.init_args.optimizer": optimizer, "pretrain.layers": 0}))
    shown = scalars(run)
    curve: Any = {"pct_start": 0.3, "div_factor": 10, "final_div_factor": 1e4}
    for group in ("conv1", "conv2", "fc"):
        assert shown[f"lr/{group}"] == {t: pytest.approx(0.02 * one_cycle(t, 18, **curve)) for t in (0, 6, 12)}
        expected = {t: one_cycle_momentum(t, 18, pct_start=0.3, low=0.85, high=0.95) for t in (0, 6, 12)}
        assert shown[f"momentum/{group}"] == {t: pytest.approx(value) for t, value in expected.items()}
    assert not [column for column in rows(run)[0] if column.startswith("momentum")]


def test_an_optimizer_without_momentum_has_none(write: Write) -> None:
    changes: dict[str, Any] = {"model.init_args.optimizer": {"class_path": "SGD", "init_args": {"lr": 0.05}}}
    shown = scalars(fit(write(**changes, **{"pretrain.layers": 0})))
    assert "lr/fc" in shown and not [name for name in shown if name.startswith("momentum")]
