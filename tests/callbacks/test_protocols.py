"""LP-FT, chain-thaw and surgical fine-tuning: what trains when, at which rate; and that each is a few lines."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule, changed, snapshot
from lightning.pytorch.callbacks import ModelCheckpoint
from thawing import BATCHES, LR, Named, rates, run
from tlkit_callbacks import ChainThaw, GradualUnfreezing, LayerFreezing, LinearProbeThenFineTune, SurgicalFineTuning
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.step_decay import StepDecay

from tlkit.errors import UserError

ALL = "conv1 conv2 fc"


@pytest.mark.parametrize("protocol", [LinearProbeThenFineTune, ChainThaw, SurgicalFineTuning])
def test_a_protocol_is_at_most_15_lines(protocol: type) -> None:
    body = inspect.getsource(protocol).split('"""', 2)[2]
    assert len([line for line in body.splitlines() if line.strip()]) <= 15


def test_the_head_is_probed_before_everything_is_fine_tuned_at_a_lower_rate(tmp_path: Path) -> None:
    watch = run(Named(momentum=0.9), tmp_path, LinearProbeThenFineTune(probe_epochs=2), epochs=4)
    assert watch.trains[::BATCHES] == ["fc", "fc", ALL, ALL]
    assert watch.moved[1:] == watch.trains[1:]


def test_schedules_run_once_for_the_probe_and_once_for_the_fine_tuning(tmp_path: Path) -> None:
    callbacks = [StepDecay(every=1, factor=0.5), LinearProbeThenFineTune(probe_epochs=2)]
    found = rates(Named(), tmp_path, *callbacks, epochs=4)
    assert [epoch["fc"] for epoch in found] == pytest.approx([LR, 0.5 * LR, 0.1 * LR, 0.05 * LR])
    assert [epoch["conv1"] for epoch in found[2:]] == pytest.approx([0.1 * LR, 0.05 * LR])


def test_a_probe_needs_no_named_groups(tmp_path: Path) -> None:
    module = ForeignModule()
    run(module, tmp_path, LinearProbeThenFineTune(probe_epochs=1, head=["conv2", "fc"], rate=0.2), epochs=2)
    assert [rate for (rate,) in module.rates] == pytest.approx([LR] * 3 + [0.2 * LR] * 3)


def test_a_chain_thaws_the_head_then_each_other_layer_alone_then_all(tmp_path: Path) -> None:
    module = Named(momentum=0.9, weight_decay=0.01)
    watch = run(module, tmp_path, ChainThaw(), epochs=5)
    assert watch.trains[::BATCHES] == ["fc", "conv1", "conv2", ALL, ALL]
    assert watch.moved[1:] == watch.trains[1:]  # what is frozen again does not move by its momentum
    assert module.rates[0][2] == LR
    assert module.rates[3][0] == module.rates[6][1] == pytest.approx(0.1 * LR)
    assert module.rates[-1] == pytest.approx([0.1 * LR] * 3)


def test_a_chain_may_wait_for_a_plateau_and_go_on_from_the_best_weights(tmp_path: Path) -> None:
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]  # the first epoch stays the best
    chain = ChainThaw(plateau=Plateau("val/loss", patience=1), head="fc", rate=1.0)
    module = Named(losses=losses)
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    watch = run(module, tmp_path, chain, best, epochs=6, enable_checkpointing=True)
    # a phase's first value is its best so far, so that each lasts two epochs
    assert watch.trains[::BATCHES] == ["fc", "fc", "conv1", "conv1", "conv2", "conv2"]
    kept = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    moved = {key for key, value in module.state_dict().items() if not torch.equal(value, kept[key])}
    assert "conv2.weight" in moved and not {"fc.weight", "conv1.weight"} & moved


def test_surgery_trains_one_block_alone(tmp_path: Path) -> None:
    module = ForeignModule("AdamW", weight_decay=0.1)
    before = snapshot(module)
    run(module, tmp_path, SurgicalFineTuning("conv2"), epochs=2)
    assert {key.partition(".")[0] for key in changed(module, before)} == {"conv2", "norm2"}
    assert SurgicalFineTuning(1).frozen(module) == ["conv2", "fc"]


def test_surgery_is_refused_where_it_leaves_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="all of them frozen"):
        run(ForeignModule(), tmp_path, SurgicalFineTuning(0), epochs=1)
    with pytest.raises(UserError, match="got 'conv7'; did you mean 'conv2'"):
        run(ForeignModule(), tmp_path, SurgicalFineTuning("conv7"), epochs=1)
    with pytest.raises(UserError, match="which SurgicalFineTuning freezes for the whole run"):
        run(ForeignModule(), tmp_path, SurgicalFineTuning(-2), GradualUnfreezing(), epochs=4)


@pytest.mark.parametrize(
    ("callback", "named"),
    [
        (SurgicalFineTuning("conv2"), "SurgicalFineTuning freezes .* not transferred: fc;"),
        (LayerFreezing("fc"), "LayerFreezing freezes .* not transferred: fc;"),
        (LayerFreezing("fc", start=Moment(epoch=2)), "LayerFreezing freezes .* not transferred: fc;"),
        (LayerFreezing("all", "statistics"), None),
        (GradualUnfreezing(), None),
        (LinearProbeThenFineTune(1, head="conv1"), "LinearProbeThenFineTune freezes .* not transferred: fc;"),
    ],
)
def test_a_new_layer_that_is_frozen_is_warned_about(
    callback: Any, named: str | None, tmp_path: Path, caplog: Any
) -> None:
    module = Named()
    module.transferred = ["conv1", "conv2"]  # type: ignore[assignment]
    run(module, tmp_path, callback, epochs=3)
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) == (1 if named else 0)
    assert named is None or re.match(named, messages[0])
