"""The power cap: checked, read back, and the limit that was there put back in every kind of end."""

import json
import multiprocessing.process
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from fake_machine import DIVIDED, NO_POWER, NO_RIGHTS, STUBBORN, UUID, Cards, cards, library
from foreign_module import ForeignModule, loader, trainer
from tlkit_callbacks.energy import power_cap, trained
from tlkit_callbacks.energy.devices import card_of
from tlkit_callbacks.energy.nvml import opened
from tlkit_callbacks.energy.power_cap import PowerCap, directory, recover
from tlkit_callbacks.energy_monitor import EnergyMonitor

from tlkit.errors import UserError

__all__ = ["cards"]

PRIOR, CAP, GREATEST = 300_000, 200_000, 400_000


@pytest.fixture
def on_card(cards: Cards, monkeypatch: pytest.MonkeyPatch) -> Cards:
    """Training takes place on the processor and believes to be on the first card."""
    monkeypatch.setattr(trained, "cuda_index", lambda trainer: 0)
    return cards


class Watches(ForeignModule):
    """Notes the card's limit in each batch; may fail."""

    def __init__(self, cards: Cards, error: BaseException | None = None) -> None:
        super().__init__()
        self.cards, self.error, self.limits = cards, error, list[int]()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.limits.append(self.cards.get().limit)
        if self.error is not None:
            raise self.error


def fit(tmp_path: Path, module: ForeignModule, watts: float | None = 200) -> EnergyMonitor:
    monitor = EnergyMonitor(watts)
    trainer(tmp_path, monitor, epochs=1).fit(module, loader(), loader())
    return monitor


def test_the_cap_holds_while_it_trains_and_the_limit_that_was_there_comes_back(on_card: Cards, tmp_path: Path) -> None:
    module = Watches(on_card)
    summary = fit(tmp_path, module).summary()
    assert (module.limits, on_card.get().limit) == ([CAP] * 3, PRIOR)  # not the card's default or greatest, 400 W
    assert (summary["cap_requested_watts"], summary["cap_enforced_watts"]) == (200, 200)
    assert not list(directory().glob("*.json"))


def test_without_a_cap_nothing_is_set_and_the_limit_in_force_is_recorded(on_card: Cards, tmp_path: Path) -> None:
    on_card.change(flags=NO_RIGHTS)
    summary = fit(tmp_path, ForeignModule(), None).summary()
    assert (summary["cap_requested_watts"], summary["cap_enforced_watts"]) == (None, 300)


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3)])
def test_it_comes_back_after_an_exception_and_an_interrupt(
    error: BaseException, on_card: Cards, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    module = Watches(on_card, error)
    try:
        with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else type(error)):
            fit(tmp_path, module)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (module.limits, on_card.get().limit) == ([CAP], PRIOR)


def train_for_long(folder: Path) -> None:
    """Caps the card and trains until it is killed."""

    class Slow(ForeignModule):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            (folder / "training").touch()
            time.sleep(0.02)
            return super().training_step(batch, batch_idx)

    with suppress(BaseException):  # a child of pytest must not report
        trainer(folder, EnergyMonitor(200), epochs=100_000).fit(Slow(), loader(), loader())
    os._exit(0)


@contextmanager
def child(folder: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that has capped the card."""
    process = multiprocessing.get_context("fork").Process(target=train_for_long, args=(folder,))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (folder / "training").exists():
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_comes_back_after_sigterm(on_card: Cards, tmp_path: Path) -> None:
    with child(tmp_path) as process:
        assert on_card.get().limit == CAP
        process.terminate()
        process.join(60)
        assert (process.exitcode, on_card.get().limit) == (0, PRIOR)


ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fake_machine import install
from tlkit_callbacks.energy.devices import card_of
from tlkit_callbacks.energy.nvml import opened
from tlkit_callbacks.energy.power_cap import PowerCap

install(Path(sys.argv[2]))
nvml = opened()
nvml.__enter__()
PowerCap(card_of(0), 200).apply()
print(card_of(0).limit())
"""


@pytest.mark.slow  # imports everything anew
def test_it_comes_back_when_a_process_ends_that_nobody_told_of_it(cards: Cards) -> None:
    command = [sys.executable, "-c", ALONE, str(Path(__file__).parent), str(library())]
    done = subprocess.run(command, capture_output=True, check=True)
    assert (int(done.stdout), cards.get().limit) == (CAP, PRIOR)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_sigkill_the_next_start_puts_it_back_and_a_living_owner_keeps_it(on_card: Cards, tmp_path: Path) -> None:
    with child(tmp_path) as process:
        with pytest.raises(UserError, match=f"capped at 200 W by process {process.pid} on "):
            fit(tmp_path, ForeignModule(), 250)
        fit(tmp_path, ForeignModule(), None)
        assert on_card.get().limit == CAP  # its owner lives
        process.kill()
        process.join()
        assert on_card.get().limit == CAP
        module = Watches(on_card)
        fit(tmp_path, module, None)
    assert (module.limits, on_card.get().limit) == ([PRIOR] * 3, PRIOR)
    assert not list(directory().glob("*.json"))


def abandoned(cards: Cards, cap: int = CAP) -> Path:
    """A note of a process that was killed while it capped the card."""
    note = directory() / f"{UUID}.json"
    note.parent.mkdir(parents=True)
    note.write_text(json.dumps({"prior": PRIOR, "cap": cap, "host": "here", "pid": 1}))
    cards.change(limit=CAP)
    return note


def test_the_next_cap_comes_back_to_what_was_there_before_the_killed_one(on_card: Cards, tmp_path: Path) -> None:
    abandoned(on_card)
    module = Watches(on_card)
    fit(tmp_path, module, 150)
    assert (module.limits, on_card.get().limit) == ([150_000] * 3, PRIOR)


def test_a_cap_after_a_killed_one_notes_what_was_there_before_both(cards: Cards) -> None:
    abandoned(cards)
    with opened():
        cap = PowerCap(card_of(0), 150)
        cap.apply()
        assert cards.get().limit == 150_000
        cap.restore()
    assert cards.get().limit == PRIOR


def test_a_limit_that_somebody_has_set_since_is_left_alone(cards: Cards) -> None:
    note = abandoned(cards, cap=150_000)
    with opened():
        recover()
    assert (cards.get().limit, note.exists()) == (CAP, False)


def test_a_limit_that_cannot_be_put_back_is_named_and_tried_again(
    cards: Cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(power_cap.log, "warning", lambda text, *arguments: said.append(text % arguments))
    note = abandoned(cards)
    cards.change(flags=NO_RIGHTS)
    with opened():
        recover()
        assert len(said) == 1 and f"do it with `sudo nvidia-smi -i {UUID} -pl 300`" in said[0]
        cards.change(flags=0)
        recover()
    assert (cards.get().limit, note.exists()) == (PRIOR, False)


def test_a_note_of_another_machine_is_left_alone(cards: Cards) -> None:
    note = abandoned(cards)
    other = note.rename(note.with_name("GPU-elsewhere.json"))
    with opened():
        recover()
    assert (cards.get().limit, other.exists()) == (CAP, True)


@pytest.mark.parametrize(
    ("card", "watts", "message"),
    [
        ({}, 99, f"power_cap_watts from 100 to 400 W, the limits of Fake 0 {UUID}, got 99"),
        ({}, 401, "from 100 to 400 W.* got 401"),
        ({"flags": NO_RIGHTS}, 200, rf"takes root \(CAP_SYS_ADMIN\).*`sudo nvidia-smi -i {UUID} -pl 200`"),
        ({"flags": NO_POWER}, 200, "whose power can be capped, got Fake 0.* Not Supported"),
        ({"flags": DIVIDED}, 200, "a whole card to cap, got a part of Fake 0"),
    ],
)
def test_a_cap_that_cannot_be_set_is_refused_before_anything_is_trained(
    card: dict[str, int], watts: float, message: str, on_card: Cards, tmp_path: Path
) -> None:
    on_card.change(**card)
    with pytest.raises(UserError, match=message):
        EnergyMonitor(watts).check(trainer(tmp_path), ForeignModule())
    module = Watches(on_card)
    with pytest.raises(UserError, match=message):
        fit(tmp_path, module, watts)
    assert (module.limits, on_card.get().limit) == ([], PRIOR)


def test_the_limits_of_the_card_themselves_are_allowed(on_card: Cards, tmp_path: Path) -> None:
    for watts in (100, 400):
        EnergyMonitor(watts).check(trainer(tmp_path), ForeignModule())
    assert on_card.get().limit == PRIOR


def test_a_card_that_says_yes_and_does_nothing_is_found_out(on_card: Cards, tmp_path: Path) -> None:
    on_card.change(flags=STUBBORN)
    with pytest.raises(UserError, match="to take 200 W, it took 300 W"):
        fit(tmp_path, ForeignModule())
    assert not list(directory().glob("*.json"))


def test_a_cap_without_a_gpu_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"an NVIDIA GPU to cap at 200 W \(power_cap_watts\), got a run on cpu"):
        EnergyMonitor(200).check(trainer(tmp_path), ForeignModule())
    with pytest.raises(UserError, match="got a run on cpu; leave the cap out"):
        fit(tmp_path, ForeignModule())


def test_a_cap_of_a_gpu_that_nvml_does_not_know_is_refused(
    on_card: Cards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(UserError, match="got none for cuda:0: no card for '7'"):
        fit(tmp_path, ForeignModule())


@pytest.mark.parametrize("watts", [0, -5, float("nan")])
def test_a_cap_that_is_none_is_refused_at_once(watts: float) -> None:
    with pytest.raises(UserError, match="above 0 W"):
        EnergyMonitor(watts)


def test_two_caps_of_one_card_are_refused(cards: Cards) -> None:
    with opened():
        first, second = PowerCap(card_of(0), 200), PowerCap(card_of(0), 250)
        first.apply()
        with pytest.raises(UserError, match=f"capped at 200 W by process {os.getpid()} on "):
            second.apply()
        second.restore()
        assert cards.get().limit == CAP
        first.restore()
    assert cards.get().limit == PRIOR


def test_without_a_place_for_the_note_nothing_is_capped(
    cards: Cards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with opened(), pytest.raises(UserError, match="set XDG_STATE_HOME"):
        PowerCap(card_of(0), 200).apply()
    assert cards.get().limit == PRIOR
