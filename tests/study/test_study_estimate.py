"""What a study will take: how much can run at once, seconds and bytes from what was measured, and its budget."""

import shutil
from pathlib import Path

import pytest
from conftest import Write
from test_study_plan import STUDY, finish, say, transfers

from tlkit.errors import UserError
from tlkit.study.estimate import estimate, over_budget, width
from tlkit.study.plan import plan_study
from tlkit.study.planned import PlannedStage
from tlkit.study.state import states
from tlkit.study.todo import to_run


@pytest.fixture
def study(write: Write, tmp_path: Path) -> Path:
    write()
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    return path


def test_how_many_stages_can_run_at_once(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = STUDY.partition("scientific")[0] + "scientific: {pretrain.layers: [0, 1, 2]}\n"
    study.write_text(levels + "replicates: {seed_everything: [0, 1]}\nmetric: {name: test/accuracy, mode: max}\n")
    planned = plan_study(study)  # for each seed one pretrain, which two of three transfers start from
    assert "4 stages can start at once, up to 6 can run at the same time" in say(capsys, "plan", study)
    assert width(planned.plan.stages.values()) == 6
    for id_, stage in planned.plan.stages.items():
        if stage.stage == "pretrain":
            run = finish(planned, id_)
            (run / "checkpoints").mkdir()
            (run / "checkpoints" / "best.ckpt").touch()
    assert "6 stages can start at once, up to 6 can run at the same time" in say(capsys, "plan", study)
    finish(planned, transfers(planned, **{"pretrain.layers": 1})[0])
    assert "5 stages can start at once, up to 5 can run at the same time" in say(capsys, "plan", study)


@pytest.mark.parametrize(
    ("fixed", "differ"),
    [
        ("model.optimizer.lr: 0.01", "model.optimizer.class_path, seed_everything"),
        ("pretrain.with.model.optimizer.class_path: SGD", "model.optimizer.class_path, seed_everything"),
        ("pretrain.with.model.optimizer: {class_path: SGD, init_args: {lr: 0.01, momentum: 0.9}}", "seed_everything"),
    ],
)
def test_a_plan_says_what_pretrains_differ_by(
    fixed: str, differ: str, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    varied = "scientific: {model.optimizer.class_path: [SGD, Adam], pretrain.layers: [1, 2]}\n"
    others = f"replicates: {{seed_everything: [0, 1]}}\nfixed:\n  {fixed}\nmetric: {{name: test/accuracy, mode: max}}\n"
    study.write_text(STUDY.partition("scientific")[0] + varied + others)
    text = say(capsys, "plan", study)
    assert f"    pretrains differ by {differ}\n" in text
    assert f"{2 * len(differ.split())} pretrain: " in text


def test_callbacks_that_a_level_leaves_out_are_noted(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    levels = """scientific:
  protocol:
    none: {}
    off: {trainer.callbacks: []}
    decay: {trainer.callbacks: [{class_path: StepDecay, init_args: {every: 2}}]}
    timed: {trainer.callbacks: [{class_path: lightning.pytorch.callbacks.Timer}]}
    both: {trainer.callbacks: [{class_path: LayerFreezing, init_args: {layers: 2}}, {class_path: EnergyMonitor}]}
"""
    study.write_text(STUDY.partition("scientific")[0] + levels + "metric: {name: test/accuracy, mode: max}\n")
    said = "protocol: decay; timed: trainer.callbacks replaces the list of toy.yaml, LayerFreezing left out; "
    assert f"  note: {said}what is to stay is listed there as well\n" in say(capsys, "plan", study)


def test_a_pretrain_without_weights_is_to_do_again(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        STUDY.partition("scientific")[0]
        + "scientific: {pretrain.layers: [0, 1, 2]}\nreplicates: {seed_everything: [0]}\n"
    )
    study.write_text(text + "metric: {name: test/accuracy, mode: max}\nbudget: {hours: 0.014}\n")  # 50.4 s
    planned = plan_study(study)
    for id_ in planned.plan.stages:
        run = finish(planned, id_)  # its checkpoints are cleaned up
    assert "1 pretrain: 1 done" in say(capsys, "plan", study)  # nothing starts from it
    shutil.rmtree(run)
    text = say(capsys, "plan", study)
    assert "1 pretrain: 1 to do again (weights deleted)" in text and "  1 stage can start at once" in text
    assert "to do: 20 s" in text and "done: 30 s" in text
    assert [stage.stage for stage in to_run(planned.plan)] == ["pretrain", "transfer"]
    lines = say(capsys, "status", study).splitlines()
    pretrain = next(stage.id for stage in planned.plan.stages.values() if stage.stage == "pretrain")
    assert ["done", "again", "to", "do", "all"] in [line.split() for line in lines]
    assert ["pretrain", "0", "1", "0", "1"] in [line.split() for line in lines]
    assert f"pretrain-{pretrain[:8]}; its weights are deleted" in lines[-1]
    assert "to be run again: its weights" in say(capsys, "plan", study, "--explain", pretrain)
    study.write_text(study.read_text().replace("0.014", "0.013"))
    with pytest.raises(UserError, match=r"budget.hours: 0.013, the study takes 0.01389"):
        say(capsys, "run", study)


def test_what_is_exceeded_already_is_not_called_unchecked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(STUDY + "budget: {hours: 0.001, gigabytes: 5}\n")
    planned = plan_study(study)
    finish(planned, next(stage.id for stage in planned.plan.stages.values() if stage.stage == "transfer"))
    text = say(capsys, "plan", study)
    assert "over budget: budget.hours: 0.001, the study takes at least 0.0" in text
    assert "budget.hours is not checked" not in text and "note: budget.gigabytes is not checked" in text


def test_the_budget_is_checked_once_something_is_measured(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(STUDY + "budget: {stages: 20, hours: 0.055, gigabytes: 0.039}\n")  # of 200 s and 0.04 GB
    text = say(capsys, "plan", study)
    assert "note: budget.hours is not checked" in text and "note: budget.gigabytes is not checked" in text
    planned = plan_study(study)
    one_of_each = {stage.stage: stage.id for stage in planned.plan.stages.values()}
    for id_ in one_of_each.values():
        run = finish(planned, id_)
        taken = sum(file.stat().st_size for file in run.rglob("*") if file.is_file())
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / "best.ckpt").write_bytes(bytes(2_000_000 - taken))
    stages = planned.plan.stages
    found = states(planned.plan.root, "toys", [(stage.stage, stage.id) for stage in stages.values()])
    expected = estimate(planned.study, planned.plan, found)
    assert (expected.measured, expected.seconds, expected.done_seconds) == (2, 180, 20)
    assert (expected.bytes, expected.done_bytes) == (36e6, 4e6)
    excess = ["budget.hours: 0.055, the study takes 0.05556", "budget.gigabytes: 0.039, the study takes 0.04"]
    assert over_budget(planned.study, planned.plan, expected) == excess
    assert all(f"over budget: {one}" in say(capsys, "plan", study) for one in excess)
    with pytest.raises(UserError, match="; ".join(excess)):
        say(capsys, "run", study)
    study.write_text(STUDY + "budget: {stages: 20, hours: 0.056, gigabytes: 0.041}\n")
    assert "budget" not in say(capsys, "plan", study)
    study.write_text(STUDY + "budget: {stages: 19}\n")
    assert "over budget: budget.stages: 19, the study takes 20" in say(capsys, "plan", study)


def test_a_budget_that_is_spent_is_over_whatever_the_rest_takes(study: Path) -> None:
    study.write_text(STUDY + "budget: {hours: 0.01}\n")
    planned = plan_study(study)
    for id_ in transfers(planned)[:4]:
        finish(planned, id_)  # no pretrain is measured: 12 transfers take 120 s, more than 36 s
    found = states(planned.plan.root, "toys", [(stage.stage, stage.id) for stage in planned.plan.stages.values()])
    expected = estimate(planned.study, planned.plan, found)
    assert expected.seconds is None
    assert over_budget(planned.study, planned.plan, expected) == [
        "budget.hours: 0.01, the study takes at least 0.03333"
    ]


def test_a_stage_shares_what_is_equal_in_all_its_combinations() -> None:
    cells = ({"rate": 0.1, "batch": 1}, {"rate": 0.1, "batch": 2}, {"rate": 0.1, "batch": 1})
    assert PlannedStage("a", "pretrain", {}, None, cells).shared == {"rate": 0.1}
    assert PlannedStage("a", "transfer", {}, None, cells[:1]).shared == cells[0]
    assert PlannedStage("a", "pretrain", {}, None).shared == {}
