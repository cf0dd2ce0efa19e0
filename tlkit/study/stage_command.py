"""``tlkit study stage``: one stage of a planned study in a process of its own, as the jobs of a workflow manager."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tlkit.errors import UserError
from tlkit.runs import lock, write_text
from tlkit.study.arguments import RUNS, StudyParser, study_file
from tlkit.study.planned import PlannedStage, StudyPlan


def stage(args: Sequence[str]) -> None:
    """Carries out one stage of a planned study, unless it is done; goes on with one that was cut off.

    The plan is taken as it is stored: a thousand jobs shall not plan the study a thousand times. What has changed
    since, the stage's identity shows.

    Raises:
        UserError: the study has not been planned; it has no such stage; the disk is full.
        SystemExit: 1, the stage failed.
    """
    parser = StudyParser("stage", stage, "FILE ID [--result FILE] [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument("id", help="of the stage; the beginning will do")
    parser.add_argument("--result", type=Path, help="a file that gets the stage's result as well")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    plan = _plan(given.file, given.runs, given.id)
    from tlkit.study.worker import set_environment

    set_environment(plan.threads)  # before torch is imported
    from tlkit.guard import set_up_messages
    from tlkit.study.engine import task_of
    from tlkit.study.export import write_result
    from tlkit.study.todo import to_run
    from tlkit.study.worker import work

    set_up_messages(sys.stdout)
    *source, chosen = plan.stages.values()
    first = source[0] if source else chosen
    with lock(plan.root / ".locks" / f"{first.id[:16]}.lock"):  # jobs that start from it may be at this too
        to_run(plan)  # finished runs that were damaged are set aside
    task = task_of(plan, chosen)
    done, record = work(task), task.failed / chosen.id[:8]
    if done.status == "full":
        raise UserError(f"expected room on the disk, got: {done.message}; free some space, then start the stage again")
    if done.status == "failed":
        record.mkdir(parents=True, exist_ok=True)
        write_text(record / "reason.txt", done.message + "\n")
        print(f"failed: {chosen.stage} {chosen.id[:8]}: {done.message} ({record})", file=sys.stderr)
        raise SystemExit(1)
    shutil.rmtree(record, ignore_errors=True)
    if given.result:
        write_result(done.path, given.result)
    name, best = done.metric["name"], done.metric["best"]
    measured = f", {name} {best:.4g}" if best is not None else ""
    print(f"done: {chosen.stage} {chosen.id[:8]}{measured}, {done.path}")


def _plan(path: Path, runs: Path | None, beginning: str) -> StudyPlan:
    """Returns a stored plan with one stage only, and the stage that it starts from before it."""
    from tlkit.study.plan import load, runs_of, stages_of
    from tlkit.study.spec_file import read_study, refusal

    study, faults = read_study(path)
    if study is None:
        raise UserError(refusal(path, faults))
    root = runs or runs_of(study.base)
    stored = load(root / study.name)
    if stored is None:
        raise UserError(f"expected a planned study in {root / study.name}, got none; tlkit study plan {path} plans it")
    stages = stages_of(stored)
    chosen = _chosen(path, stages, beginning)
    ids = [id_ for id_ in (chosen.pretrain, chosen.id) if id_]
    return StudyPlan(study.name, root, {id_: stages[id_] for id_ in ids}, study.threads)


def _chosen(path: Path, stages: dict[str, PlannedStage], beginning: str) -> PlannedStage:
    chosen = [stage for id_, stage in stages.items() if id_.startswith(beginning)]
    if len(chosen) != 1:
        got = ", ".join(stage.id[:12] for stage in chosen[:5]) or "none"
        raise UserError(
            f"expected one of the {len(stages)} stages of {path} whose id starts with '{beginning}', got {got}; if the "
            "study has changed since it was exported, export it again"
        )
    return chosen[0]
