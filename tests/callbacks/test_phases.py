"""Phase: what cannot be, known before anything is trained; what a list of them means."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, loader, snapshot, trainer
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.phase import Begin, Phase, segment_in
from tlkit_callbacks.phase_rates import rates_in, transition
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.schedule import Segment
from toy import ToyData, ToyNet

from tlkit.errors import UserError
from tlkit.tasks import Classification

HEAD = Phase("fc")
PLATEAU = Plateau("val/loss")


def refused(message: str, callbacks: list[Any], tmp_path: Path, **arguments: Any) -> None:
    """By `check` alone, before there are data, and by a fit, which leaves the module as it was."""
    module = ForeignModule()
    runner = trainer(tmp_path, *callbacks, **{"epochs": 6} | arguments)
    with pytest.raises(UserError, match=message):
        for callback in callbacks:
            callback.check(runner, module)
    before = snapshot(module)
    with pytest.raises(UserError, match=message):
        runner.fit(module, loader(), loader())
    assert not changed(module, before)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([], "phases: expected at least one, got none"),
        ([Phase("fc", epoch=1)], r"phases\[0\]: expected no trigger"),
        ([Phase("fc", plateau=PLATEAU)], r"phases\[0\]: expected no trigger"),
        ([Phase("fc", restore_best=True)], r"phases\[0\]: expected no trigger, restart or restore_best"),
        ([HEAD, Phase("rest")], r"phases\[1\]: expected epoch, step, fraction or plateau, got none"),
        ([HEAD, Phase("rest", epoch=0)], r"phases\[1\]: expected epoch to be larger than 0"),
        ([HEAD, Phase("conv2", epoch=3), Phase("conv1", epoch=3)], r"phases\[2\]: .* larger than 3, .* got 3"),
        ([HEAD, Phase("conv2", step=9), Phase("conv1", step=4, epoch=5)], r"phases\[2\]: .* larger than 9, .* got 4"),
        ([HEAD, Phase("rest", epoch=6)], r"phases\[1\]: expected a moment before the end .* trainer.max_epochs is 6"),
        ([HEAD, Phase("rest", epoch=6, plateau=PLATEAU, when="all")], "expected a moment before the end"),
        ([HEAD, Phase("rest", fraction=1.0)], "expected a moment before the end .* got fraction 1;"),
        ([HEAD, Phase("conv8", epoch=1)], "got 'conv8'; did you mean 'conv2'"),
        ([HEAD, Phase(4, epoch=1)], "at most 3 layers, got 4"),
        ([HEAD, Phase(0, epoch=1)], r"phases\[1\]: expected at least one layer to thaw, got none from 0"),
        (
            [Phase("all"), Phase("rest", epoch=1)],
            r"phases\[1\]: expected at least one layer to thaw, got none from 'rest'",
        ),
        ([HEAD, Phase(-2, epoch=1)], r"phases\[1\]: .* got fc, which is in phases\[0\]"),
    ],
)
def test_phases_that_cannot_be_are_refused_at_the_start(phases: list[Phase], message: str, tmp_path: Path) -> None:
    refused(message, [GradualUnfreezing(phases)], tmp_path)


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase("fc", rate=0.0), r"GradualUnfreezing: phases\[0\]: expected rate to be larger than 0, got 0"),
        (Phase("fc", rate_before=-1.0), "expected rate_before to be larger than 0"),
        (Phase("fc", depth_factor=0.0), "expected depth_factor to be larger than 0"),
        (Phase("fc", when="some"), "expected when: any or all, got some"),  # type: ignore[arg-type]
        (Phase("fc", epoch=-1), r"phases\[0\]: expected epoch at least 0, got -1"),
        (Phase("fc", fraction=1.5), "expected fraction between 0 and 1, got 1.5"),
    ],
)
def test_values_out_of_range_are_refused(phase: Phase, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GradualUnfreezing([phase])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers_per_phase": 0}, "at least 1 layer"),
        ({"epochs_per_phase": -1}, "1 epoch per phase"),
        ({"phases": [HEAD], "layers_per_phase": 2}, "got both"),
        ({"norm": "statistics"}, "norm eval, affine or train"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        GradualUnfreezing(**arguments)


def test_a_generated_phase_after_the_end_of_the_run_is_refused(tmp_path: Path) -> None:
    refused(r"phases\[2\]: .* got epoch 2; trainer.max_epochs is 2", [GradualUnfreezing()], tmp_path, epochs=2)


def test_a_step_after_the_last_is_refused(tmp_path: Path) -> None:
    gradual = GradualUnfreezing([HEAD, Phase("rest", step=5)])
    refused("got step 5; .* trainer.max_steps 5", [gradual], tmp_path, max_steps=5)


def test_a_moment_that_only_the_data_show_to_be_too_late_is_refused_before_the_first_update(tmp_path: Path) -> None:
    late = GradualUnfreezing([HEAD, Phase("rest", step=18)])  # 6 epochs of 3 updates
    with pytest.raises(UserError, match="expected a moment before the end of the run, got step 18"):
        trainer(tmp_path, late, epochs=6).fit(ForeignModule(), loader(), loader())
    backwards = GradualUnfreezing([HEAD, Phase("conv2", epoch=3), Phase("conv1", step=7)])
    with pytest.raises(UserError, match=r"phases\[2\]: expected a moment after update 9, .* got step 7"):
        trainer(tmp_path, backwards, epochs=6).fit(ForeignModule(), loader(), loader())


def test_a_moment_that_may_come_late_beside_a_plateau_is_none(tmp_path: Path) -> None:
    gradual = GradualUnfreezing([HEAD, Phase("rest", epoch=6, plateau=PLATEAU)])
    gradual.check(trainer(tmp_path, gradual, epochs=6), ForeignModule())


def test_a_short_trial_run_is_none_of_its_business(tmp_path: Path) -> None:
    trainer(tmp_path, GradualUnfreezing(epochs_per_phase=9), fast_dev_run=True).fit(ForeignModule(), loader(), loader())


def test_a_fraction_of_a_run_without_a_known_end_is_refused(tmp_path: Path) -> None:
    gradual = GradualUnfreezing([HEAD, Phase("rest", fraction=0.5)])
    refused(r"phases\[1\], fraction 0.5: expected a run whose", [gradual], tmp_path, max_time={"hours": 1})


@pytest.mark.parametrize("first", [True, False])
def test_a_layer_frozen_for_the_whole_run_cannot_be_thawed(first: bool, tmp_path: Path) -> None:
    callbacks: list[Any] = [LayerFreezing("conv1"), GradualUnfreezing()]
    refused("got conv1, which LayerFreezing freezes for the whole run", callbacks[:: 1 if first else -1], tmp_path)


def test_one_frozen_for_a_while_or_in_its_statistics_alone_can(tmp_path: Path) -> None:
    others = [LayerFreezing("conv1", end=Moment(epoch=1)), LayerFreezing("all", "statistics")]
    gradual = GradualUnfreezing()
    gradual.check(trainer(tmp_path, *others, gradual, epochs=6), ForeignModule())


def task() -> Classification:
    return Classification(ToyNet(num_classes=4, in_channels=1))


@pytest.mark.parametrize(
    ("plateau", "message"),
    [
        (
            Plateau("val/los"),
            "GradualUnfreezing: expected a metric that is logged, got 'val/los'; did you mean 'val/loss'",
        ),
        (Plateau("val/accuracy", "min"), "expected mode max for val/accuracy, got min"),
    ],
)
def test_a_plateau_on_what_a_task_does_not_log_is_refused_at_the_start(
    plateau: Plateau, message: str, tmp_path: Path
) -> None:
    module = task()
    before = snapshot(module)
    runner = trainer(tmp_path, GradualUnfreezing([HEAD, Phase("rest", plateau=plateau)]))
    with pytest.raises(UserError, match=message):
        runner.fit(module, ToyData(cache_dir=str(tmp_path)))
    assert not changed(module, before) or not any(key.startswith("network") for key in changed(module, before))


def test_a_plateau_on_what_a_foreign_module_does_not_log_is_refused_when_that_shows(tmp_path: Path) -> None:
    class Logs(ForeignModule):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/accuracy", torch.tensor(0.5))

    phases = [HEAD, Phase("conv2", epoch=1), Phase("conv1", plateau=Plateau("val/loss"))]
    module = Logs()
    before = snapshot(module)
    with pytest.raises(UserError, match="got 'val/loss'; logged: val/accuracy"):
        trainer(tmp_path, GradualUnfreezing(phases), epochs=6).fit(module, loader(), loader())
    assert not changed(module, before)  # found by the validation before the training
    watched = [HEAD, Phase("conv2", epoch=3), Phase("conv1", plateau=Plateau("los"))]
    runner = trainer(tmp_path, GradualUnfreezing(watched), epochs=6)
    with pytest.raises(UserError, match="got 'los'; .*logged: val/accuracy"):
        runner.fit(Logs(), loader(), loader())
    assert runner.current_epoch == 0  # though only the third phase waits for it


def test_the_layers_frozen_at_first_are_named() -> None:
    assert GradualUnfreezing().frozen(ForeignModule()) == ["conv1", "conv2"]
    assert GradualUnfreezing([Phase(1), Phase("fc", epoch=1)]).frozen(ForeignModule()) == ["conv2", "fc"]


def test_rates_are_a_function_of_the_phase() -> None:
    phases = [
        Phase("d", rate=2.0),
        Phase(["b", "c"], epoch=1, rate_before=0.5, depth_factor=0.1),
        Phase("a", epoch=2, rate=0.3, rate_before=0.2),
    ]
    layers, names = [["d"], ["b", "c"], ["a"]], ["a", "b", "c", "d"]
    # the topmost layer is d: c is one below it, b two
    assert rates_in(0, phases, layers, names, 4.0) == pytest.approx({"d": 2.0, "c": 0.4, "b": 0.04, "a": 0.3})
    assert rates_in(1, phases, layers, names, 4.0) == pytest.approx({"d": 1.0, "c": 0.4, "b": 0.04, "a": 0.3})
    assert rates_in(2, phases, layers, names, 4.0) == pytest.approx({"d": 0.2, "c": 0.08, "b": 0.008, "a": 0.3})


def test_a_layer_in_several_phases_has_the_rate_of_the_last_that_has_begun() -> None:
    phases = [Phase("b"), Phase("a", epoch=1, rate=0.5), Phase("all", epoch=2, rate=0.1)]
    layers, names = [["b"], ["a"], ["a", "b"]], ["a", "b"]
    found = [rates_in(index, phases, layers, names, 1.0) for index in range(3)]
    assert found == [{"a": 0.5, "b": 1.0}, {"a": 0.5, "b": 1.0}, {"a": 0.1, "b": 0.1}]


def test_a_transition_is_told_in_words() -> None:
    rates = {"a": 0.1, "b": 0.1, "c": 1.0}
    assert transition(rates, ["c"], ["a", "b", "c"]) == "it thaws a, b (rate × 0.1), goes on with c (rate × 1)"
    assert transition(rates, ["c"], ["a"]) == "it thaws a (rate × 0.1), freezes c"


def test_the_course_of_schedules_ends_where_the_next_restart_is_known_to_come(tmp_path: Path) -> None:
    phases = [
        HEAD,
        Phase("conv2", epoch=1, restart=True),
        Phase("conv1", plateau=PLATEAU, restart=True),
    ]
    runner = trainer(tmp_path, epochs=6)
    runner.fit(ForeignModule(), loader(), loader())  # 3 updates an epoch
    start, second = Begin(0, 0, ""), Begin(1, 3, "")
    assert segment_in(runner, phases[:1], [start]) is None
    assert segment_in(runner, phases, [start]) == Segment(0, 0, 3)
    assert segment_in(runner, phases, [start, second]) == Segment(3, 1, None)
    assert segment_in(runner, phases, [start, second, Begin(2, 7, "")]) == Segment(7, 2, None)
