"""``tlkit study export``: a study as the files of a workflow manager."""

from collections.abc import Sequence
from pathlib import Path

from tlkit.errors import UserError, suggest
from tlkit.study.arguments import RUNS, StudyParser, study_file, study_words

MANAGERS = ("snakemake",)


def export(args: Sequence[str]) -> None:
    """Writes a study as the files of a workflow manager, for sites that require one.

    Raises:
        UserError: no such manager; what is wrong with the study; it takes more than its budget; other files in the way.
    """
    parser = StudyParser("export", export, f"FILE --to {'|'.join(MANAGERS)} --out DIR [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument("--to", required=True, help=f"the workflow manager: {', '.join(MANAGERS)}")
    parser.add_argument("--out", type=Path, required=True, help="a new directory, or one with an earlier export")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    if given.to not in MANAGERS:
        meant = suggest(given.to, MANAGERS) or ";"
        raise UserError(f"--to: no workflow manager '{given.to}'{meant} valid: {', '.join(MANAGERS)}")
    from tlkit.study.estimate import estimate, over_budget
    from tlkit.study.export import to_snakemake
    from tlkit.study.plan import plan_study
    from tlkit.study.state import states

    planned = plan_study(given.file, given.runs)
    plan = planned.plan
    found = states(plan.root, plan.name, [(stage.stage, stage.id) for stage in plan.stages.values()])
    if excess := over_budget(planned.study, plan, estimate(planned.study, plan, found)):
        raise UserError(f"{'; '.join(excess)}; raise the budget, or leave combinations out with `where`")
    for file in to_snakemake(planned, found, given.out, study_words(given)):
        print(file)
    done = sum(one.state == "done" for one in found.values())
    print(f"{len(plan.stages)} stages, {done} done; cd {given.out} && snakemake --cores 2")
