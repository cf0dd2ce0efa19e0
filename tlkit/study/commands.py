"""``tlkit study``: dispatch on its first word before anything heavy is imported."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from tlkit.errors import UserError, suggest
from tlkit.study.arguments import RUNS, StudyParser, about, study_file, study_words
from tlkit.study.clean_command import clean
from tlkit.study.export_command import export
from tlkit.study.stage_command import stage


def run(args: Sequence[str]) -> None:
    """Runs one command of ``tlkit study``.

    Raises:
        UserError: no such command, or what the command itself refuses.
    """
    if args and args[0] in ("-h", "--help"):
        print("\n".join(f"  tlkit study {word:<8} {about(command)}" for word, command in COMMANDS.items()))
        return
    if not args or args[0] not in COMMANDS:
        got = f"'{args[0]}'{suggest(args[0], COMMANDS)}" if args else "none"
        raise UserError(f"study: expected one of {', '.join(COMMANDS)}, got {got}; tlkit study plan FILE is the first")
    COMMANDS[args[0]](args[1:])


def plan(args: Sequence[str]) -> None:
    """Plans a study: its stages, what is done, and what the rest will take.

    Raises:
        UserError: everything that is wrong with the study.
    """
    parser = StudyParser("plan", plan, "FILE [--explain ID] [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument("--explain", metavar="ID", help="why is this stage to be run? the beginning of its id will do")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    from tlkit.study import scaling_command

    if scaling := scaling_command.scaling_study(given.file, given.runs):
        return scaling_command.plan(scaling, given)
    from tlkit.study.explain import explain
    from tlkit.study.plan import plan_study
    from tlkit.study.state import states
    from tlkit.study.summary import summary

    planned = plan_study(given.file, given.runs)
    stages = planned.plan.stages | planned.earlier
    found = states(planned.plan.root, planned.plan.name, [(stage.stage, stage.id) for stage in stages.values()])
    print("\n".join(explain(planned, found, given.explain) if given.explain else summary(planned, found)))


def run_study(args: Sequence[str]) -> None:
    """Carries a study out: every stage that is not done, each once; then writes its table.

    Raises:
        UserError: what is wrong with the study; it takes more than its budget; what the engine refuses.
        SystemExit: 1, some stages failed.
    """
    parser = StudyParser("run", run_study, "FILE [--engine E.yaml|inline] [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument("--engine", help="YAML of an engine, or inline: in this process; by default this machine")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    from tlkit.study import scaling_command

    if scaling := scaling_command.scaling_study(given.file, given.runs):
        return scaling_command.run(scaling, given)
    from tlkit.study.engine import carry_out
    from tlkit.study.estimate import estimate, over_budget
    from tlkit.study.plan import plan_study
    from tlkit.study.state import states
    from tlkit.study.summary import metric_notes, notes
    from tlkit.study.table import study_table, write_table

    planned = plan_study(given.file, given.runs)
    plan = planned.plan
    found = states(plan.root, plan.name, [(stage.stage, stage.id) for stage in plan.stages.values()])
    expected = estimate(planned.study, plan, found)
    if excess := over_budget(planned.study, plan, expected):
        raise UserError(f"{'; '.join(excess)}; raise the budget, or leave combinations out with `where`")
    told = notes(planned, found, expected)
    for note in told:
        print(f"note: {note}", flush=True)
    engine = Path(given.engine) if given.engine and given.engine != "inline" else given.engine
    outcome = carry_out(plan, engine, expected.stages)
    files = write_table(study_table(planned), plan.root / plan.name)
    found = states(plan.root, plan.name, [(stage.stage, stage.id) for stage in plan.stages.values()])
    for note in set(metric_notes(planned, found)) - set(told):
        print(f"note: {note}")
    words = shlex.join(study_words(given))
    print(f"table: {' '.join(map(str, files))}\nreport: tlkit study report {words}")
    if outcome.failed:
        print(f"{len(outcome.failed)} stages failed; tlkit study status {words} says where their logs are")
        raise SystemExit(1)


def status(args: Sequence[str]) -> None:
    """Says how far a study is, from its run directories.

    Raises:
        UserError: the study has not been planned.
    """
    parser = StudyParser("status", status, "FILE|NAME [--runs DIR]")
    parser.add_argument("study", help="its YAML, or its name")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    from tlkit.study import scaling_command
    from tlkit.study.status import status as lines

    root, name = given.runs or Path("runs"), given.study
    file = Path(name) if Path(name).suffix in (".yaml", ".yml") else scaling_command.file_of(root / name)
    if file and (scaling := scaling_command.scaling_study(file, given.runs, anew=False)):
        return scaling_command.status(scaling)
    if Path(name).suffix in (".yaml", ".yml"):
        from tlkit.study.plan import runs_of
        from tlkit.study.spec_file import read_study, refusal

        study, faults = read_study(Path(name))
        if study is None:
            raise UserError(refusal(Path(name), faults))
        root, name = given.runs or runs_of(study.base), study.name
    print("\n".join(lines(root, name)))


def table(args: Sequence[str]) -> None:
    """Writes the table of a study as Parquet and CSV, and prints it: a row per run.

    Raises:
        UserError: what is wrong with the study, or with the condition.
    """
    parser = StudyParser("table", table, "FILE [--where CONDITION] [--sort COLUMN] [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument("--where", metavar="CONDITION", help="rows to print: 'status == \"done\" and `test/loss` < 1'")
    parser.add_argument("--sort", metavar="COLUMN", help="a column to print them by; -COLUMN: from the largest down")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(_signed(args))
    from tlkit.study import scaling_command

    if scaling := scaling_command.scaling_study(given.file, given.runs):
        return scaling_command.table(scaling, given)
    from tlkit.study.plan import plan_study
    from tlkit.study.table import study_table, view, write_table

    planned = plan_study(given.file, given.runs)
    frame = study_table(planned)
    files = write_table(frame, planned.plan.root / planned.plan.name)
    print(view(frame, planned.study, given.where, given.sort))
    print(f"table: {' '.join(map(str, files))}")


def report(args: Sequence[str]) -> None:
    """Writes the report of a study, or of a tidy table from elsewhere.

    Raises:
        UserError: an option is missing or unknown; what is wrong with the study, the table or the mapping.
    """
    parser = StudyParser("report", report, "FILE [--out DIR] [--runs DIR] | --table T.csv --mapping M.yaml --out DIR")
    parser.add_argument("file", nargs="?", help="the study's YAML")
    parser.add_argument("--table", type=Path, help="CSV or Parquet, one row per run")
    parser.add_argument("--mapping", type=Path, help="YAML that says what the columns are")
    parser.add_argument("--out", type=Path, help="a new directory, or one with an earlier report")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    command = f"tlkit study report {shlex.join(args)}"
    if given.file and not (given.table or given.mapping):
        from tlkit.study import scaling_command
        from tlkit.study.plan import plan_study
        from tlkit.study.study_report import report_study

        given.file = study_file(given.file)  # not by the parser, which would then say nothing of a wrong option
        if scaling := scaling_command.scaling_study(given.file, given.runs):
            page, remarks = scaling_command.report(scaling, given, command)
        else:
            planned = plan_study(given.file, given.runs)
            out = given.out or planned.plan.root / planned.plan.name / "report"
            page, remarks = report_study(planned, out, command)
    elif given.table and given.mapping and given.out and not given.file:
        from tlkit.study.report import report_table

        page, remarks = report_table(given.table, given.mapping, given.out, command)
    else:
        parser.error("expected a study's FILE, or all of --table, --mapping and --out")
        return
    for remark in remarks:
        print(f"note: {remark}")
    print(f"report: {page}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "plan": plan,
    "run": run_study,
    "status": status,
    "table": table,
    "report": report,
    "clean": clean,
    "export": export,
    "stage": stage,
}


def _signed(args: Sequence[str]) -> list[str]:
    """Returns words in which ``--sort -COLUMN`` is one word: argparse takes a leading minus for an option."""
    words: list[str] = []
    for word in args:
        if words and words[-1] == "--sort":
            words[-1] = f"--sort={word}"
        else:
            words.append(word)
    return words
