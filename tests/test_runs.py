"""Run directories: never used twice, found by identity, locked while they run, never half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlkit import runs
from tlkit.errors import UserError

ID = "0123456789abcdef" * 4
OTHER = "01234567" + "f" * 56  # the same first eight characters


def finish(run: runs.Run) -> None:
    run.last.parent.mkdir()
    run.last.write_text("weights")
    runs.write_text(run.path / "result.json", json.dumps({"id": run.id}))


def test_a_rerun_takes_the_next_number(tmp_path: Path) -> None:
    made = [runs.create(tmp_path, "study", "transfer", ID) for _ in range(3)]
    names = ["transfer-01234567", "transfer-01234567-2", "transfer-01234567-3"]
    assert [run.path for run in made] == [tmp_path / "study" / name for name in names]


def test_a_finished_run_is_found_by_its_whole_identity_in_any_experiment(tmp_path: Path) -> None:
    first = runs.create(tmp_path, "one", "pretrain", ID)
    assert runs.find_finished(tmp_path, "pretrain", ID) is None
    finish(first)
    finish(runs.create(tmp_path, "one", "pretrain", OTHER))
    finish(runs.create(tmp_path, "one", "transfer", ID))
    assert runs.find_finished(tmp_path, "pretrain", ID) == first
    assert first.result() == {"id": ID}
    newer = runs.create(tmp_path, "two", "pretrain", ID)
    finish(newer)
    os.utime(first.path, (1, 1))
    assert runs.find_finished(tmp_path, "pretrain", ID) == newer
    newer.last.unlink()  # a result without weights is of no use as a pretrain
    assert runs.find_finished(tmp_path, "pretrain", ID) == first


def test_the_best_checkpoint_is_the_last_one_where_nothing_selected(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "one", "transfer", ID)
    finish(run)
    assert run.best == run.last
    (run.path / "checkpoints" / "best.ckpt").write_text("weights")
    assert run.best.name == "best.ckpt"


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a finished run in"):
        runs.read_result(tmp_path)
    (tmp_path / "result.json").write_text('{"id":')
    with pytest.raises(UserError, match="expected a finished run in"):
        runs.read_result(tmp_path)


def test_writing_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    runs.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        runs.write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


HOLD = """
import sys, time
from pathlib import Path
from tlkit.runs import running
with running(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
WANT = """
import sys
from pathlib import Path
from tlkit.runs import lock
with lock(Path(sys.argv[1])):
    print("got", flush=True)
"""


def start(code: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_a_run_is_unfinished_once_its_process_has_died_however_it_died(tmp_path: Path) -> None:
    run = runs.create(tmp_path, "one", "transfer", ID)
    holder = start(HOLD, run.path)
    try:
        assert line(holder) == "held"
        assert runs.is_running(run.path)
        assert runs.find_unfinished(tmp_path, "transfer", ID) is None
        assert json.loads((run.path / ".lock").read_text())["pid"] == holder.pid
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    finally:
        holder.kill()
        holder.communicate()
    assert not runs.is_running(run.path)
    assert runs.find_unfinished(tmp_path, "transfer", ID) == run
    with runs.running(run.path):
        assert runs.is_running(run.path)
    assert not (run.path / ".lock").exists()
    finish(run)
    assert runs.find_unfinished(tmp_path, "transfer", ID) is None


def test_who_waits_says_for_whom_and_goes_on_when_that_one_is_done(tmp_path: Path) -> None:
    path = tmp_path / ".locks" / "pretrain.lock"
    with runs.lock(path):
        waiting = [start(WANT, path) for _ in range(2)]
        said = [line(process) for process in waiting]
    assert all(f"waiting for process {os.getpid()} on " in text for text in said)  # the second one, too
    assert [process.communicate(timeout=30)[0] for process in waiting] == ["got\n", "got\n"]


def test_many_processes_that_make_a_directory_at_once_get_one_each(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tlkit.runs import create\n"
        "print([create(Path(sys.argv[1]), 'one', 'transfer', 'a' * 64).path.name for _ in range(20)])"
    )
    processes = [start(code, tmp_path) for _ in range(3)]
    names = [name for process in processes for name in json.loads(process.communicate()[0].replace("'", '"'))]
    assert len(names) == len(set(names)) == 60


def test_sixteen_writers_at_once_never_leave_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    code = (
        "import json, os, sys; from pathlib import Path; from tlkit.runs import write_text\n"
        "for _ in range(50): write_text(Path(sys.argv[1]), json.dumps([os.getpid()] * 5_000))"
    )
    processes = [start(code, file) for _ in range(16)]
    seen = set()
    while any(process.poll() is None for process in processes):
        if file.exists():
            content = json.loads(file.read_text())
            assert len(content) == 5_000 and len(set(content)) == 1
            seen.add(content[0])
    assert [process.communicate()[0] for process in processes] == [""] * 16
    assert len(seen) > 1 and os.listdir(tmp_path) == ["result.json"]
