"""The table of a study and its report, from run directories."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Write
from test_study_plan import finish, say, study, transfers  # noqa: F401  the fixture applies here too

from tlkit.errors import UserError
from tlkit.runs import LOCK, lock
from tlkit.study import commands
from tlkit.study.columns import AFTER, BEFORE
from tlkit.study.plan import Planned, plan_study

DOCS = Path(__file__).parents[2] / "docs" / "study_table.md"
REST = {
    "seconds": {"setup": 1.0, "fit": 8.0, "train": 5.0, "validate": 2.0, "checkpoint": 0.5, "test": 1.0},
    "memory": {"peak_bytes": 1000, "device": "process"},
    "energy": {"joules": 12.0, "method": "rapl"},
    "summaries": {"EnergyMonitor": {"train_joules": 9.0, "peak_bytes": 800}},
    "parameters": {"total": 456, "trainable": 56},
}


@pytest.fixture
def planned(study: Path) -> Planned:  # noqa: F811
    """A study with all but one of its transfers done; accuracy depends on rate and seed."""
    made = plan_study(study)
    for seed in (0, 1):
        for rate in (0.05, 0.01):
            for number, protocol in enumerate(("none", "common", "other")):
                levels = {"protocol": protocol, "model.optimizer.lr": rate, "seed_everything": seed}
                (id_,) = transfers(made, **levels)
                if (protocol, rate, seed) != ("other", 0.01, 1):
                    finish(made, id_, accuracy=0.1 * number + rate + 0.02 * seed, **REST)
    return made


def table(planned: Planned, capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[pd.DataFrame, str]:
    text = say(capsys, "table", planned.study.path, *words)
    return pd.read_parquet(planned.plan.root / "toys" / "table.parquet"), text


def test_a_row_per_run(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    frame, _ = table(planned, capsys)
    assert len(frame) == 12 + 8
    assert list(frame["status"].value_counts().items()) == [("done", 11), ("to do", 9)]
    chosen = (frame["protocol"] == "common") & (frame["model.optimizer.lr"] == 0.05) & (frame["seed_everything"] == 1)
    (row,) = frame[chosen & (frame["stage"] == "transfer")].to_dict("records")
    assert row["test/accuracy"] == pytest.approx(0.17)
    assert (row["best_epoch"], row["epochs"], row["best_epoch_fraction"]) == (2, 4, 0.5)
    assert (row["seconds"], row["seconds_fit"]) == (10, 8)
    assert (row["joules"], row["joules_train"], row["peak_bytes"], row["peak_bytes_fit"]) == (12, 9, 1000, 800)
    assert (row["parameters"], row["parameters_trainable"]) == (456, 56)
    stage = planned.plan.stages[row["id"]]
    assert row["pretrain_id"] == stage.pretrain
    csv = pd.read_csv(planned.plan.root / "toys" / "table.csv")
    assert list(csv) == list(frame)
    assert list(csv["best_epoch"].dropna().unique()) == [2]


def test_it_is_rebuilt_from_the_run_directories(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = table(planned, capsys)
    folder = planned.plan.root / "toys"
    for name in ("table.parquet", "table.csv"):
        (folder / name).unlink()
    changed, damaged, cut, running, failed = (
        Path(run) for run in before.query("stage == 'transfer' and status == 'done'")["run"].head(5)
    )
    result = json.loads((changed / "result.json").read_text())
    (changed / "result.json").write_text(json.dumps(result | {"metrics": {"test/accuracy": 0.987}}))
    (damaged / "metrics.csv").write_text("epoch,step,val/accuracy\n")
    for run in (cut, running, failed):
        (run / "result.json").unlink()
    (folder / "failed" / failed.name.removeprefix("transfer-")).mkdir(parents=True)
    with lock(running / LOCK):
        after = table(planned, capsys)[0].set_index("run")
    rows = after.loc[list(map(str, (changed, damaged, cut, running, failed)))]
    assert list(rows["status"]) == ["done", "damaged", "cut off", "running", "failed"]
    assert list(rows["test/accuracy"].dropna()) == [0.987]  # nothing of a result that is gone or not to be trusted
    assert rows[["seconds", "joules", "parameters", "best_epoch"]].notna().all(axis="columns").sum() == 1
    expected = {"setup": 1.0, "fit": 8.0, "train": 5.0, "validate": 2.0, "checkpoint": 0.5, "test": 1.0}
    assert {part: rows.loc[str(changed), f"seconds_{part}"] for part in expected} == expected


def test_a_run_of_several_combinations_has_a_row_for_each(study: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    text = study.read_text().replace(
        "model.optimizer.lr: [0.05, 1e-2]", "pretrain.with.model.optimizer.lr: [0.1, null]"
    )
    study.write_text(text.replace("[0.1, null]", "[0.1, 0.2]"))
    made = plan_study(study)
    frame, _ = table(made, capsys)
    scratch = frame[(frame["stage"] == "transfer") & (frame["protocol"] == "none")]
    assert len(scratch) == 4
    assert scratch["id"].nunique() == 2
    assert set(scratch["combinations"]) == {2}


def test_rows_are_chosen_and_sorted(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    assert table(planned, capsys, "--where", "protocol == 'nobody'")[1].splitlines()[0] == "no rows"
    _, text = table(planned, capsys, "--where", "status == 'done' and protocol == 'none'", "--sort", "-test/accuracy")
    rows = [line.split() for line in text.splitlines()[1:-1]]
    assert [row[5] for row in rows] == ["0.07", "0.05", "0.03", "0.01"]
    where = ("--where", "status == 'done' and `protocol` == 'none'")
    assert table(planned, capsys, *where, "--sort", "-`test/accuracy`")[1] == text
    with pytest.raises(UserError, match="did you mean 'test/accuracy'"):
        commands.run(["table", str(planned.study.path), "--sort", "test/acuracy"])


def test_every_column_is_documented() -> None:
    described = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE))
    assert described.items() >= (BEFORE | AFTER).items()


def test_the_report_says_what_the_study_says(planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    text = say(capsys, "report", planned.study.path)
    assert "note: 1 of 12 runs: to do" in text
    out = planned.plan.root / "toys" / "report"
    page = (out / "report.html").read_text()
    assert "Does transfer help at any rate?" in page
    assert f"tlkit study report {planned.study.path}" in page
    assert "model.optimizer.momentum" in page  # fixed: a caveat
    effects = pd.read_csv(out / "tables" / "effects.csv").set_index("factor")["eta_squared"]
    assert effects["protocol"].max() > effects["model.optimizer.lr"].max()
    curves = pd.read_csv(out / "tables" / "training_curves.csv")
    assert set(curves["median"].round(6)) == {0.2, 0.4, 0.3}


def test_a_report_on_nothing_is_refused(study: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="expected finished runs of toys"):
        commands.run(["report", str(study)])


def test_a_metric_that_no_run_has_is_refused(planned: Planned) -> None:
    path = planned.study.path
    path.write_text(path.read_text().replace("name: test/accuracy", "name: test/acuracy"))
    with pytest.raises(UserError, match="did you mean 'test/accuracy'"):
        commands.run(["report", str(path)])


def test_a_study_runs_to_its_table(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write()
    path = tmp_path / "s.yaml"
    text = "name: s\ngoal: Does it run?\nbase: toy.yaml\nscientific: {pretrain.layers: [0, 2]}\n"
    path.write_text(text + "metric: {name: test/accuracy, mode: max}\nbudget: {stages: 2}\n")
    with pytest.raises(UserError, match="budget.stages: 2, the study takes 3"):
        commands.run(["run", str(path), "--engine", "inline"])
    path.write_text(path.read_text().replace("stages: 2", "stages: 3"))
    say(capsys, "run", path, "--engine", "inline")
    frame = pd.read_parquet(tmp_path / "runs" / "s" / "table.parquet")
    assert list(frame["status"]) == ["done"] * 3
    assert frame["test/accuracy"].between(0, 1).all()
