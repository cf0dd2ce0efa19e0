"""EMAWeights and PolyakMean: what is warned about and what is refused at the start."""

import math
from pathlib import Path
from typing import Any

import pytest
from foreign_module import trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.strategies import FSDPStrategy
from line import Line, fit
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.polyak_mean import PolyakMean

from tlkit.errors import UserError


@pytest.mark.parametrize(
    ("callback", "epochs", "message"),
    [
        (lambda: EMAWeights(), 1, "4 averagings of this run, 100 % .* (decay 0.999); give decay: 0.316"),
        (lambda: EMAWeights(0.8), 2, "8 averagings of this run, 17 % .* decay: 0.562"),
        (lambda: EMAWeights(half_life=100), 2, "95 % .* (decay 0.9931)"),
        (lambda: EMAWeights(0.8, start=Moment(epoch=1)), 2, "4 averagings"),
        (lambda: EMAWeights(0.8, start=Moment(fraction=0.75)), 2, "2 averagings"),
        (lambda: EMAWeights(0.8, every=2), 2, "4 averagings"),
        (lambda: EMAWeights(0.7), 2, None),  # 6 %
        (lambda: EMAWeights(warmup=True), 2, None),
        (lambda: EMAWeights(0.5, start=Moment(epoch=2)), 2, "nothing will be averaged, .* between epoch 2 and the end"),
        (lambda: PolyakMean(start=Moment(step=8)), 2, "PolyakMean: nothing will be averaged"),
        (lambda: EMAWeights(0.5, every=9), 2, "less than 9 updates lie between its start and the end"),
        (lambda: PolyakMean(), 1, None),
    ],
)
def test_an_average_that_will_mostly_be_the_start_warns(
    callback: Any, epochs: int, message: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(Line(), tmp_path, callback(), epochs=epochs)
    found = [*{record.getMessage() for record in caplog.records if record.name == "tlkit"}]
    assert len(found) == (message is not None)
    if message is not None:
        assert all(part in found[0] for part in message.split(" .* "))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EMAWeights(0.9, half_life=10), "decay or half_life, got both: 0.9 and 10"),
        (lambda: EMAWeights(1.0), "at least 0 and below 1, got 1.0"),
        (lambda: EMAWeights(math.nan), "at least 0 and below 1, got nan"),
        (lambda: EMAWeights(half_life=0), "more than 0 updates, got 0"),
        (lambda: EMAWeights(every=0), "EMAWeights: expected `every` to be at least 1 update, got 0"),
        (lambda: PolyakMean(every=0), "PolyakMean: expected `every`"),
        (lambda: EMAWeights(evaluate="mean"), "`evaluate` to be raw or averaged or both, got mean"),  # type: ignore[arg-type]
        (lambda: EMAWeights(buffers="none"), "`buffers` to be copied or averaged, got none"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_cannot_be_are_refused(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("other", [PolyakMean, lambda: EMAWeightAveraging(), lambda: StochasticWeightAveraging(0.1)])
def test_two_averages_at_once_are_refused(other: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one average of the weights, got EMAWeights and .*; remove all but one"):
        fit(Line(), tmp_path, EMAWeights(0.5), other())


def test_a_strategy_that_divides_the_weights_is_refused(tmp_path: Path) -> None:
    running = trainer(tmp_path, callback := EMAWeights(0.5))
    running.strategy.__class__ = FSDPStrategy  # the real one asks for a GPU
    with pytest.raises(UserError, match="leaves the weights whole, got FSDPStrategy; give trainer.strategy: ddp"):
        callback.check(running, Line())


def test_a_start_in_a_run_of_unknown_length_is_refused(tmp_path: Path) -> None:
    running = trainer(tmp_path, callback := EMAWeights(start=Moment(fraction=0.5)), epochs=-1)
    with pytest.raises(UserError, match="EMAWeights, fraction 0.5: .* neither max_epochs nor max_steps"):
        callback.check(running, Line())
