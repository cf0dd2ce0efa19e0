"""A study for a workflow manager: its files, and the stage that its jobs call."""

import csv
import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from test_study_plan import finish, say, study, transfers  # noqa: F401  the fixture applies here too

from tlkit.errors import UserError
from tlkit.study import commands
from tlkit.study.export import SHORT, gpus
from tlkit.study.plan import Planned, plan_study
from tlkit.study.planned import PlannedStage

SMALL = """\
name: toys
goal: Does transfer help?
base: toy.yaml
scientific:
  pretrain.layers: [0, 2]
metric: {name: test/accuracy, mode: max}
"""


@pytest.fixture
def small(write: Write, tmp_path: Path) -> Path:
    """A study of a pretrain and two transfers."""
    write()
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def exported(path: Path, capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[Path, dict[str, dict[str, str]]]:
    """Exports a study; returns the directory and id -> row of its stages."""
    out = path.parent / "flow"
    say(capsys, "export", path, "--to", "snakemake", "--out", out, *words)
    with (out / "stages.tsv").open(newline="") as file:
        return out, {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}


def stage(path: Path, id_: str, *words: Any) -> None:
    commands.run([str(word) for word in ("stage", path, id_, *words)])


def of_kind(planned: Planned, kind: str) -> list[str]:
    return [id_ for id_, stage in planned.plan.stages.items() if stage.stage == kind]


def test_a_manager_that_is_unknown(study: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="no workflow manager 'snakmake'; did you mean 'snakemake'.*valid: snakemake"):
        commands.run(["export", str(study), "--to", "snakmake", "--out", str(tmp_path / "flow")])
    assert not (tmp_path / "flow").exists()


def test_every_stage_with_what_it_starts_from_and_needs(study: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    planned = plan_study(study)
    memory = {"peak_bytes": 4 * 2**30, "device": "process"}
    pretrain, *_ = of_kind(planned, "pretrain")
    run = finish(planned, pretrain, seconds={"setup": 5.0, "fit": 590.0, "train": 500.0, "test": 5.0}, memory=memory)
    out, rows = exported(study, capsys)
    assert len(rows) == len(planned.plan.stages)
    for id_, planned_stage in planned.plan.stages.items():
        row = rows[id_[:SHORT]]
        assert row["stage"] == planned_stage.stage
        assert row["pretrain"] == (planned_stage.pretrain or "")[:SHORT]
        # measured: 600 s and 4 GiB; nothing is known of a transfer yet
        assert (row["runtime"], row["mem_mb"]) == (("25", "6144") if row["stage"] == "pretrain" else ("", "2048"))
        assert row["gpu"] == ""
    (result,) = (out / "results").iterdir()
    assert result.name == f"pretrain-{pretrain[:SHORT]}.json"
    assert json.loads(result.read_text())["run"] == str(run)
    shutil.rmtree(run)
    exported(study, capsys)
    assert list((out / "results").iterdir()) == []


def test_gpus_are_asked_for_where_a_stage_cannot_do_without() -> None:
    def asked(**trainer: Any) -> Any:
        return gpus(PlannedStage("", "transfer", {"trainer": trainer}, None))

    assert [asked(accelerator=name) for name in ("auto", "cpu", "gpu", "cuda")] == ["", "", 1, 1]
    assert [asked(accelerator="gpu", devices=devices) for devices in (2, [0, 3], "auto", -1)] == [2, 2, 1, 1]


def test_only_an_earlier_export_is_replaced(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = exported(small, capsys)
    exported(small, capsys)
    (out / "Snakefile").write_text("rule all: input: 'mine'\n")
    with pytest.raises(UserError, match="earlier export, got .*flow with other files"):
        exported(small, capsys)
    (mine := small.parent / "mine").mkdir()
    (mine / "config.yaml").write_text("precious: 1\n")
    with pytest.raises(UserError, match="earlier export, got .*mine with other files"):
        commands.run(["export", str(small), "--to", "snakemake", "--out", str(mine)])
    assert (mine / "config.yaml").read_text() == "precious: 1\n"
    with pytest.raises(UserError, match="expected a directory, got the file"):
        commands.run(["export", str(small), "--to", "snakemake", "--out", str(small)])


def test_a_study_beyond_its_budget_is_not_exported(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.write_text(SMALL + "budget: {stages: 2}\n")
    with pytest.raises(UserError, match="budget.stages: 2, the study takes 3"):
        exported(small, capsys)


def test_a_stage_is_carried_out_once(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_study(small)
    pretrain, *_ = of_kind(planned, "pretrain")
    (transfer,) = (id_ for id_, one in planned.plan.stages.items() if one.pretrain)
    files = {id_: tmp_path / "results" / f"{id_}.json" for id_ in (pretrain, transfer)}
    for id_, file in files.items():
        stage(small, id_[:SHORT], "--result", file)
    out = capsys.readouterr().out
    assert f"done: transfer {transfer[:8]}, val/accuracy 0." in out
    results = {id_: json.loads(file.read_text()) for id_, file in files.items()}
    assert [result["id"] for result in results.values()] == [pretrain, transfer]
    assert results[transfer]["pretrain"]["path"] == results[pretrain]["run"]
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "toys").glob("*/result.json")}
    assert len(written) == 2
    files[transfer].unlink()
    stage(small, transfer, "--result", files[transfer])
    assert json.loads(files[transfer].read_text()) == results[transfer]
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "toys").glob("*/result.json")}
    assert not [path for path in tmp_path.rglob(".*.tmp")]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_stage_that_fails_and_then_goes_on(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tlkit.recorder import Recorder

    id_, original, epochs = of_kind(plan_study(small), "pretrain")[0], Recorder.on_train_epoch_end, []

    def stop_once(self: Recorder, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        epochs.append(trainer.current_epoch)
        if len(epochs) == 1:
            raise SystemError("power cut")

    monkeypatch.setattr(Recorder, "on_train_epoch_end", stop_once)
    result, record = tmp_path / "result.json", tmp_path / "runs" / "toys" / "failed" / id_[:8]
    with pytest.raises(SystemExit) as stopped:
        stage(small, id_, "--result", result)
    assert stopped.value.code == 1 and not result.exists()
    assert f"failed: pretrain {id_[:8]}: SystemError: power cut ({record})" in capsys.readouterr().err
    assert {path.name for path in record.iterdir()} == {"traceback.txt", "log.txt", "reason.txt"}
    stage(small, id_, "--result", result)
    assert epochs == [0, 1] and result.exists() and not record.exists()


def test_a_full_disk_is_said(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tlkit import stage_run

    def full(stage: Any, resume: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "last.ckpt")

    monkeypatch.setattr(stage_run, "run", full)
    with pytest.raises(UserError, match="room on the disk, got: .*No space left"):
        stage(small, of_kind(plan_study(small), "pretrain")[0])


def test_a_damaged_run_is_set_aside_but_none_of_another_stage(small: Path) -> None:
    planned = plan_study(small)
    mine, *_ = of_kind(planned, "pretrain")
    other, *_ = of_kind(planned, "transfer")
    runs = {id_: finish(planned, id_) for id_ in (mine, other)}
    for run in runs.values():
        (run / "result.json").write_text('{"id": "')
    stage(small, mine)
    assert json.loads((runs[mine] / "result.json").read_text())["id"] == mine
    assert runs[mine].with_name(f"damaged-pretrain-{mine[:8]}").exists()
    assert (runs[other] / "result.json").read_text() == '{"id": "'


def test_weights_that_were_damaged_are_not_started_from(small: Path, tmp_path: Path) -> None:
    (transfer,) = (one for one in plan_study(small).plan.stages.values() if one.pretrain)
    runs = tmp_path / "runs" / "toys"
    stage(small, transfer.pretrain)
    weights = runs / f"pretrain-{transfer.pretrain[:8]}" / "checkpoints" / "best.ckpt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    stage(small, transfer.id)
    assert (runs / f"damaged-pretrain-{transfer.pretrain[:8]}").exists() and weights.stat().st_size == len(whole)
    assert (runs / f"transfer-{transfer.id[:8]}" / "result.json").exists()


def test_a_stage_that_there_is_not(small: Path) -> None:
    with pytest.raises(UserError, match="expected a planned study in .*toys, got none; tlkit study plan"):
        stage(small, "abc")
    id_, *_ = of_kind(plan_study(small), "pretrain")
    with pytest.raises(UserError, match="one of the 3 stages .* starts with 'xyz', got none; .* export it again"):
        stage(small, "xyz")
    with pytest.raises(UserError, match=f"got .*{id_[:12]}"):
        stage(small, "")
