"""What a user sees when a study's command is interrupted, the disk is full, or a run directory was damaged by hand."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from test_study_plan import HERE

from tlkit.cli import main
from tlkit.study import commands
from tlkit.study.engine import sole_driver
from tlkit.study.plan import plan_study

STUDY = """\
name: toys
goal: Does it survive?
base: toy.yaml
scientific: {pretrain.layers: [2]}
metric: {name: test/accuracy, mode: max}
"""
WIDTH, LIMIT = 48, 100_000  # of the network; bytes of a file: less than its checkpoint, more than anything before it


def a_study(path: Path) -> Path:
    study = path.with_name("study.yaml")
    study.write_text(STUDY)
    return study


def start(*words: Any, limit: int | None = None, **options: Any) -> "subprocess.Popen[str]":
    """Starts ``tlkit study``, which may be allowed to write files of so many bytes only."""
    return subprocess.Popen(
        [sys.executable, "-m", "tlkit", "study", *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(HERE)},
        stdout=subprocess.PIPE,
        stderr=options.get("stderr", subprocess.STDOUT),
        text=True,
        preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
    )


@pytest.mark.slow
def test_a_full_disk_stops_a_study_which_then_goes_on(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    study = a_study(write(**{"model.init_args.network.init_args": {"width": WIDTH}}))
    root = plan_study(study).plan.root
    process = start("run", study, "--engine", "inline", limit=LIMIT)
    said = process.communicate()[0]
    assert process.returncode == 2, said
    assert "room on the disk" in said and "again to go on" in said and "Traceback" not in said
    assert list(root.glob("toys/pretrain-*")) and not list(root.rglob("*.tmp")) and not list(root.rglob("result.json"))
    assert main(["study", "run", str(study), "--engine", "inline"]) == 0
    assert "2/2 done, 0 running, 0 failed" in capsys.readouterr().out
    assert len(list(root.glob("toys/*/identity.json"))) == 2  # the one that was stopped went on
    assert (root / "toys" / "table.csv").stat().st_size > 0


def test_a_disk_that_is_full_for_the_driver(write: Write) -> None:
    study = a_study(write())
    root = plan_study(study).plan.root
    process = start("table", study, limit=1000)
    said = process.communicate()[0]
    assert process.returncode == 2, said
    assert said.startswith("tlkit: expected room on the disk, got ")
    assert said.endswith(f"then start again: tlkit study table {study}\n") and "Traceback" not in said
    assert [path.name for path in root.glob("toys/*")] == ["plan.json"]


@pytest.mark.parametrize(
    ("command", "in_the_way"),
    [
        ("plan {study} --runs {file}", "{file}/toys"),
        ("export {study} --to snakemake --out {file}/flow", "{file}/flow"),
        ("table {study}", "{runs}/toys/table.csv"),
        ("plan {study} --runs {folder}", "{folder}/toys/plan.json"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    command: str, in_the_way: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"study": a_study(write()), "runs": tmp_path / "runs", "file": tmp_path / "f", "folder": tmp_path / "d"}
    (tmp_path / "f").write_text("")
    for folder in ("runs/toys/table.csv/in", "d/toys/plan.json/in"):
        (tmp_path / folder).mkdir(parents=True)
    command = "tlkit study " + command.format(**places)
    assert main(command.split()[1:]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"tlkit: expected to read or write {in_the_way.format(**places)}, got '")
    assert said.endswith(f"name another place, then start again: {command}\n") and said.count("\n") == 1
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_second_driver_leaves_the_plan_of_the_first_alone(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    study = a_study(write())
    plan = plan_study(study).plan
    stored = (plan.root / "toys" / "plan.json").read_text()
    study.write_text(STUDY.replace("[2]", "[1, 2]"))
    with sole_driver(plan.root / "toys" / ".driver.lock"):
        assert main(["study", "run", str(study), "--engine", "inline"]) == 2
        assert f"got process {os.getpid()} on" in capsys.readouterr().err
        assert main(["study", "status", str(study)]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split() == ["transfer", "0", "1", "1"]
        assert (plan.root / "toys" / "plan.json").read_text() == stored
    assert len(plan_study(study).plan.stages) == 3 and plan_study(study).cached


@pytest.mark.parametrize(
    ("word", "second", "expected"),
    [
        ("run", False, "interrupted; to go on: tlkit study run {}"),
        ("run", True, "interrupted; to go on: tlkit study run {}"),
        ("plan", False, "interrupted"),
    ],
)
def test_an_interrupt_is_no_traceback(
    word: str,
    second: bool,
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            if second:
                raise RuntimeError("half-done")  # as a pool whose end is interrupted, too

    monkeypatch.setitem(commands.COMMANDS, word, interrupt)
    assert main(["study", word, str(tmp_path / "s.yaml")]) == 130
    assert capsys.readouterr().err == f"tlkit: {expected.format(tmp_path / 's.yaml')}\n"


@pytest.mark.slow
def test_an_interrupt_says_how_to_go_on(write: Write) -> None:
    study = a_study(write(**{"trainer.max_epochs": 10_000, "pretrain.with": {"data.stage": "pretrain"}}))
    process = start("run", study, "--engine", "inline")
    while not list(study.parent.glob("runs/toys/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert said.endswith(f"tlkit: interrupted; to go on: tlkit study run {study} --engine inline\n")
    assert "Traceback" not in said and not list(study.parent.glob("runs/toys/failed/*"))


def test_whoever_reads_may_stop_reading() -> None:
    with start("--help", stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before it says anything
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_the_traceback_is_there_for_the_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in (([], False), (["--debug"], True)):
        assert main(["study", "plan", str(tmp_path / "none.yaml"), *words]) == 2
        said = capsys.readouterr().err
        assert ("Traceback" in said) == expected
        assert said.splitlines()[-1].startswith("tlkit: expected a study in YAML")
