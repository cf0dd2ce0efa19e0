"""The line that says how far a study is: on a terminal in place, in a file line by line."""

import io
import os
import pty

import pytest

from tlkit.study.live import Live


def halfway(seconds: list[float], stream: io.TextIOBase) -> Live:
    """Returns a study of 60 stages: ten were done before, ten ended within two minutes, one of them badly."""
    live = Live(60, 10, clock=lambda: seconds[0], stream=stream)
    assert live.line() == "10/60 done, 0 running, 0 failed"
    seconds[0], live.done, live.failed, live.running = 120.0, 19, 1, 2
    for best, id_ in ((0.5, "a"), (0.9, "b"), (0.7, "c")):
        live.take({"name": "val/accuracy", "mode": "max", "best": best}, id_ * 64)
    return live


# ten stages in two minutes, forty to go
LINE = "19/60 done, 2 running, 1 failed · 5/min · ETA 8 min 00 s · best val/accuracy 0.9 (bbbbbbbb)"


def test_in_a_file_every_twenty_seconds():
    seconds, stream = [0.0], io.StringIO()
    live = halfway(seconds, stream)
    live.draw(lambda: 2)
    seconds[0] += 19
    live.draw(lambda: 3)
    live.say("failed: transfer c0ffee: NaN")
    assert stream.getvalue() == f"{LINE}\nfailed: transfer c0ffee: NaN\n"
    live.draw(lambda: 0, last=True)
    assert stream.getvalue().count("\n") == 3


def test_the_lowest_is_the_best_of_a_loss():
    live = Live(3, 0, clock=lambda: 1.0, stream=io.StringIO())
    for best, id_ in ((float("nan"), "d"), (0.5, "a"), (0.2, "b"), (0.7, "c")):
        live.take({"name": "val/loss", "mode": "min", "best": best}, id_ * 64)
    assert live.line().endswith("best val/loss 0.2 (bbbbbbbb)")


def test_what_was_selected_by_another_metric_does_not_compare():
    live = Live(3, 0, clock=lambda: 1.0, stream=io.StringIO())
    for name, best, id_ in (("val/accuracy", 0.5, "a"), ("val/psnr", 28.0, "b"), ("val/accuracy", 0.7, "c")):
        live.take({"name": name, "mode": "max", "best": best}, id_ * 64)
    assert live.line().endswith("best val/accuracy 0.7 (cccccccc)")


@pytest.mark.parametrize("columns", [200, 60])
def test_on_a_terminal_it_is_drawn_over_and_never_wraps(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    ours, theirs = pty.openpty()
    with open(theirs, "w", encoding="utf-8") as stream:
        seconds = [0.0]
        live = halfway(seconds, stream)
        live.draw(lambda: 2)
        live.say("failed: transfer c0ffee: NaN")
        seconds[0] += 0.4
        live.draw(lambda: 5)  # too soon
        live.draw(lambda: 2, last=True)
        shown = b""
        while shown.count(b"\n") < 2:  # a terminal hands on what it has so far
            shown += os.read(ours, 4096)
    os.close(ours)
    first, second = LINE, LINE.replace("5/min · ETA 8 min 00 s", "4.98/min · ETA 8 min 02 s")
    clear = "\r\x1b[K"
    assert shown.decode() == "".join(
        [clear, first[: columns - 1], clear, "failed: transfer c0ffee: NaN\r\n", clear, second[: columns - 1], "\r\n"]
    )
