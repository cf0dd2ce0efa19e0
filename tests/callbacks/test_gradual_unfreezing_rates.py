"""GradualUnfreezing: the rate of each layer, as it trains."""

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_module import ForeignModule
from thawing import LR, Named, rates, run
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.schedule import Curve
from tlkit_callbacks.step_decay import StepDecay

from tlkit.errors import UserError


def test_what_is_thawed_later_trains_at_a_tenth_and_schedules_go_on(tmp_path: Path) -> None:
    for epoch, found in enumerate(
        rates(Named(), tmp_path, StepDecay(every=1, factor=0.5), GradualUnfreezing(), epochs=4)
    ):
        decayed = LR * 0.5**epoch
        assert found == pytest.approx({"conv1": 0.1 * decayed, "conv2": 0.1 * decayed, "fc": decayed})


def test_multipliers_of_what_trains_already_accumulate(tmp_path: Path) -> None:
    phases = [
        Phase("fc", rate=2.0),
        Phase("conv2", epoch=1, rate=0.5, rate_before=0.1),
        Phase("conv1", epoch=2, rate=3.0, rate_before=0.2),
    ]
    found = rates(Named(), tmp_path, GradualUnfreezing(phases), epochs=3)
    assert found[0]["fc"] == pytest.approx(2.0 * LR)
    assert (found[1]["fc"], found[1]["conv2"]) == pytest.approx((0.2 * LR, 0.5 * LR))
    assert found[2] == pytest.approx({"fc": 0.04 * LR, "conv2": 0.1 * LR, "conv1": 3.0 * LR})


@pytest.mark.parametrize("together", [True, False])
def test_discriminative_rates_of_ulmfit(together: bool, tmp_path: Path) -> None:
    factor = 1 / 2.6
    body = (
        [Phase("rest", epoch=1, rate=1.0, depth_factor=factor)]
        if together
        else [Phase(name, epoch=n, rate=1.0, depth_factor=factor) for n, name in ((1, "conv2"), (2, "conv1"))]
    )
    found = rates(Named(), tmp_path, GradualUnfreezing([Phase("fc"), *body]), epochs=3)[-1]
    assert found == pytest.approx({"fc": LR, "conv2": LR / 2.6, "conv1": LR / 2.6 / 2.6})


def test_one_group_for_all_layers_has_one_rate_and_that_is_said(tmp_path: Path, caplog: Any) -> None:
    module, gradual = ForeignModule(), GradualUnfreezing()
    watch = run(module, tmp_path, gradual, epochs=3)
    assert watch.moved[-1] == "conv1 conv2 fc" and module.rates == [[LR]] * 9
    (warned,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "full rate" in warned and "tlkit.optim.build_optimizer" in warned


def test_rates_that_one_group_cannot_have_are_refused_with_the_helper(tmp_path: Path) -> None:
    gradual = GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=0.1)])
    with pytest.raises(UserError, match=r"conv2 at 0.1, got one that holds both; .*tlkit.optim.build_optimizer"):
        run(ForeignModule(), tmp_path, gradual, epochs=2)


def test_a_rate_that_is_the_same_for_all_needs_no_names(tmp_path: Path) -> None:
    module = ForeignModule()
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=0.1, rate_before=0.1)]), epochs=2)
    assert [rate for (rate,) in module.rates] == pytest.approx([LR] * 3 + [0.1 * LR] * 3)


def test_groups_of_the_users_own_suffice_where_each_has_one_rate(tmp_path: Path) -> None:
    class HeadAndBody(ForeignModule):
        def configure_optimizers(self) -> Any:
            body = [p for part in (self.conv1, self.norm1, self.conv2, self.norm2) for p in part.parameters()]
            return torch.optim.SGD([{"params": body}, {"params": self.fc.parameters(), "lr": 1.0}], lr=LR)

    module = HeadAndBody()
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1)]), epochs=2)
    assert module.rates[-1] == pytest.approx([0.1 * LR, 1.0])


def test_beside_a_scheduler_of_torch_only_full_rates_may_stand(tmp_path: Path) -> None:
    module = ForeignModule(scheduler=True)  # StepLR: × 0.1 an epoch
    run(module, tmp_path, GradualUnfreezing([Phase("fc"), Phase("rest", epoch=1, rate=1.0)]), epochs=2)
    assert [rate for (rate,) in module.rates] == pytest.approx([LR] * 3 + [0.1 * LR] * 3)
    with pytest.raises(UserError, match="GradualUnfreezing and the scheduler"):
        phases = [Phase("fc"), Phase("rest", epoch=1, rate=0.5, rate_before=0.5)]
        run(ForeignModule(scheduler=True), tmp_path, GradualUnfreezing(phases), epochs=2)


class Noted(Curve):
    """A curve that notes where it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def curve(self, step: int, steps: int) -> float:
        self.asked.append((step, steps))
        return 1 - step / steps


@pytest.mark.parametrize("first", [True, False])
def test_a_restart_begins_schedules_anew(first: bool, tmp_path: Path) -> None:
    phases = [
        Phase("fc"),
        Phase("conv2", epoch=1, rate=1.0, restart=True),
        Phase("conv1", step=9, rate=1.0, restart=True),
    ]
    curve, gradual = Noted(), GradualUnfreezing(phases)
    module = Named()
    run(module, tmp_path, *((curve, gradual) if first else (gradual, curve)), epochs=4)
    places = list(dict.fromkeys(curve.asked))
    assert places == [*((n, 3) for n in range(3)), *((n, 6) for n in range(6))]  # and once more of 3 updates
    assert [found[0] for found in module.rates] == pytest.approx(
        [LR * (1 - n / 3) for n in range(3)]
        + [LR * (1 - n / 6) for n in range(6)]
        + [LR * (1 - n / 3) for n in range(3)]
    )


def test_a_restart_at_an_unknown_moment_leaves_the_course_before_it_to_the_end_of_the_run(tmp_path: Path) -> None:
    phases = [Phase("fc"), Phase("rest", plateau=Plateau("val/loss", patience=1), rate=1.0, restart=True)]
    module = Named(losses=[1.0] * 4)
    run(module, tmp_path, GradualUnfreezing(phases), Noted(), epochs=4)
    expected = [1 - n / 12 for n in range(6)] + [1 - n / 6 for n in range(6)]
    assert [found[0] / LR for found in module.rates] == pytest.approx(expected)
