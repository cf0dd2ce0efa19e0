"""`tlkit study status` says why stages failed and where their logs are."""

# ruff: noqa: F811  fixtures

from pathlib import Path

import pytest
from conftest import Write
from test_study_plan import say, study  # noqa: F401  a fixture

from tlkit.cli import main
from tlkit.study.plan import plan_study
from tlkit.study.status import LISTED, SHORT


def test_a_failure_is_shown_with_its_reason_and_log(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write()
    file = tmp_path / "study.yaml"
    text = "name: toys\ngoal: Does it fail?\nbase: toy.yaml\nscientific: {data.bad_row: [3]}\n"
    file.write_text(text + "metric: {name: test/accuracy, mode: max}\n")
    pretrain, transfer = (id_[:8] for id_ in plan_study(file).plan.stages)
    with pytest.raises(SystemExit):
        main(["study", "run", str(file), "--engine", "inline"])
    *_, first, second = say(capsys, "status", file).splitlines()
    records = tmp_path / "runs" / "toys" / "failed"
    where, reason = first.removeprefix("  failed    ").split("  ")
    assert where == str(records / pretrain / "log.txt") and "pretrain stage in" in Path(where).read_text()
    assert reason == "expected training images that vary in every channel, got standard deviations [nan]"
    assert second == f"  failed    {records / transfer}  not run: its pretrain {pretrain} failed"


def test_reasons_are_short_and_those_of_pretrains_first(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_study(study).plan
    for id_, stage in plan.stages.items():
        if stage.stage == "pretrain" or stage.pretrain:
            record = plan.root / "toys" / "failed" / id_[:8]
            record.mkdir(parents=True)
            said = "not run" if stage.pretrain else f"ValueError: {'x' * 200}\nand more ({record})"
            (record / "reason.txt").write_text(said)
    pretrains = [id_ for id_, stage in plan.stages.items() if stage.stage == "pretrain"]
    failed = [line for line in say(capsys, "status", study).splitlines() if line.startswith("  failed")]
    assert len(pretrains) > 1 and len(failed) == LISTED + 1
    for line, id_ in zip(failed, pretrains, strict=False):
        path, _, reason = line.removeprefix("  failed    ").partition("  ")
        assert path.endswith(id_[:8]) and len(reason) == SHORT and reason.startswith("ValueError: xxx")
