"""Every curve runs on across a thaw: the rate of what trains already does not jump, and nothing breaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from recorded import Recorded, data, fit, scaler
from tlkit_callbacks import (
    ConstantRate,
    CosineDecay,
    CyclicCosine,
    ExponentialDecay,
    GradualUnfreezing,
    InverseSqrtDecay,
    LinearDecay,
    OneCycle,
    Phase,
    ReduceOnPlateau,
    StepDecay,
)

EPOCHS, BATCHES = 4, 3
CURVES: dict[str, Callable[[], Callback]] = {
    "OneCycle": OneCycle,
    "StepDecay": lambda: StepDecay(every=2),
    "CosineDecay": CosineDecay,
    "LinearDecay": LinearDecay,
    "InverseSqrtDecay": InverseSqrtDecay,
    "ConstantRate": lambda: ConstantRate(warmup=8),
    "ExponentialDecay": ExponentialDecay,
    "CyclicCosine": lambda: CyclicCosine(cycles=2),
    "ReduceOnPlateau": lambda: ReduceOnPlateau("val/loss", patience=1, min_delta=100.0),
}
SCALES = {"conv1": 1.0, "conv2": 0.5, "fc": 2.0}


class Logs(Recorded):
    """Logs a validation loss, for the schedule that looks at it."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self(batch[0]).square().mean())


def by_update(tmp_path: Path, scales: dict[str, float] | None, *callbacks: Callback) -> list[list[float]]:
    module = Logs(lr=0.1, scales=scales)
    fit(module, data(BATCHES), tmp_path, *callbacks, epochs=EPOCHS)
    return module.by_update


@pytest.mark.parametrize("name", CURVES)
def test_the_rate_of_a_thawed_layer_is_a_tenth_of_its_curve_and_the_others_go_on(name: str, tmp_path: Path) -> None:
    curve = by_update(tmp_path, SCALES, CURVES[name]())
    phases = [Phase("fc"), Phase("conv2", epoch=1), Phase("conv1", step=7)]
    thawing = by_update(tmp_path, SCALES, GradualUnfreezing(phases), CURVES[name]())
    assert len(thawing) == len(curve) == EPOCHS * BATCHES
    for (conv1, conv2, fc), expected in zip(thawing, curve, strict=True):
        assert [conv1, conv2, fc] == pytest.approx([0.1 * expected[0], 0.1 * expected[1], expected[2]], rel=1e-12)


@pytest.mark.parametrize("name", CURVES)
def test_with_one_group_for_all_layers_a_thaw_leaves_the_curve_as_it_is(name: str, tmp_path: Path) -> None:
    phases = [Phase("fc"), Phase("conv2", epoch=1, rate=1.0), Phase("conv1", step=7, rate=1.0)]
    assert by_update(tmp_path, None, GradualUnfreezing(phases), CURVES[name]()) == by_update(
        tmp_path, None, CURVES[name]()
    )


def test_a_step_that_the_scaler_skips_is_not_counted_up_to_a_thaw(tmp_path: Path) -> None:
    module = Recorded(overflow=(1, 2), lr=0.1, scales=SCALES)
    phases = [Phase("fc"), Phase("rest", step=3)]
    gradual = GradualUnfreezing(phases)
    trains: list[tuple[int, bool]] = []

    class Notes(Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            trains.append((len(module.by_update), pl_module.conv1.weight.requires_grad))

    fit(module, data(BATCHES), tmp_path, gradual, Notes(), epochs=2, plugins=[scaler()])
    assert trains == [(0, False), (1, False), (1, False), (1, False), (2, False), (3, True)]
