"""`tlkit study clean` asks first, and a study is afterwards what it was."""

# ruff: noqa: F811  fixtures

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Write
from test_study_clean import clean, directory, files, made, missing, planned  # noqa: F401  fixtures are among them
from test_study_plan import HERE, say

from tlkit.runs import read_result
from tlkit.study.plan import Planned, plan_study
from tlkit.study.todo import to_run


@pytest.mark.parametrize("words", [("status", "table"), pytest.param(("report",), marks=pytest.mark.slow)])
def test_status_table_and_report_say_the_same_afterwards(
    words: tuple[str, ...], planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    def numbers() -> list[str]:
        texts = [say(capsys, word, planned.study.path) for word in words]
        tables = sorted(directory(planned).rglob("*.csv"))
        return texts + [file.read_text() for file in tables if "-" not in file.parent.name]

    (directory(planned) / "failed" / missing(planned)[:8]).mkdir(parents=True)
    before = numbers()
    assert len(before) > (4 if "report" in words else 2)
    assert len(clean(capsys, planned, "--checkpoints")[1]) == 9
    assert numbers() == before


def answer(planned: Planned, typed: str) -> tuple[int, str]:
    """Runs the command on a terminal, where somebody types."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tlkit", "study", "clean", str(planned.study.path)],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(ours, typed.encode())
    text = process.communicate()[0]
    os.close(ours)
    os.close(theirs)
    return process.returncode, text


def test_it_asks_and_does_as_it_is_told(planned: Planned) -> None:
    before = files(planned.plan.root)
    for typed in ("\n", "n\n"):
        code, text = answer(planned, typed)
        assert code == 0 and "delete 250 kB? [y/N]" in text and "nothing was deleted" in text
        assert files(planned.plan.root) == before
    code, text = answer(planned, "y\n")
    assert code == 0 and "deleted: 250 kB" in text
    assert len(before - files(planned.plan.root)) == 5


def test_without_a_terminal_it_only_says_what_could_go(planned: Planned) -> None:
    before = files(planned.plan.root)
    done = subprocess.run(
        [sys.executable, "-m", "tlkit", "study", "clean", str(planned.study.path)],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "250 kB can go" in done.stdout and "--yes" in done.stderr and "Traceback" not in done.stderr
    assert files(planned.plan.root) == before


def test_a_cleaned_study_runs_nothing_until_a_new_stage_needs_the_weights(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    path = tmp_path / "s.yaml"
    text = "name: s\ngoal: Does it run?\nbase: toy.yaml\nscientific: {pretrain.layers: [0, 2]}\n"
    path.write_text(text + "metric: {name: test/accuracy, mode: max}\n")
    say(capsys, "run", path, "--engine", "inline")
    say(capsys, "clean", path, "--checkpoints", "--yes")
    before = files(tmp_path / "runs")
    assert not [name for name in before if name.endswith(".ckpt")]
    assert "3/3 done" in say(capsys, "run", path, "--engine", "inline")
    assert files(tmp_path / "runs") == before
    path.write_text(path.read_text().replace("[0, 2]", "[0, 2, 1]"))
    assert [stage.stage for stage in to_run(plan_study(path).plan)] == ["pretrain", "transfer"]
    say(capsys, "run", path, "--engine", "inline")
    first, again = (tmp_path / "runs" / "s").glob("pretrain-*")
    assert read_result(first)["metrics"] == read_result(again)["metrics"]
    assert to_run(plan_study(path).plan) == []
