"""``tlkit study``: dispatch on its first word before anything heavy is imported."""

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from tlkit.errors import UserError, suggest

USAGE = "tlkit study report --table T.csv --mapping M.yaml --out DIR"


def run(args: Sequence[str]) -> None:
    """Runs one command of ``tlkit study``.

    Raises:
        UserError: no such command, or what the command itself refuses.
    """
    if not args or args[0] not in COMMANDS:
        got = f"'{args[0]}'{suggest(args[0], COMMANDS)}" if args else "none"
        raise UserError(f"study: expected one of {', '.join(COMMANDS)}, got {got}; {USAGE}")
    COMMANDS[args[0]](args[1:])


def report(args: Sequence[str]) -> None:
    """Writes the report on a tidy table: ``--table T.csv --mapping M.yaml --out DIR``.

    Raises:
        UserError: an option is missing or unknown; what is wrong with the table or the mapping.
    """
    parser = _Parser(prog="tlkit study report", usage=USAGE, description=report.__doc__)
    parser.add_argument("--table", type=Path, required=True, help="CSV or Parquet, one row per run")
    parser.add_argument("--mapping", type=Path, required=True, help="YAML that says what the columns are")
    parser.add_argument("--out", type=Path, required=True, help="a new directory, or one with an earlier report")
    given = parser.parse_args(args)
    from tlkit.study.report import report_table

    page, remarks = report_table(given.table, given.mapping, given.out, f"tlkit study report {shlex.join(args)}")
    for remark in remarks:
        print(f"note: {remark}")
    print(f"report: {page}")


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"report": report}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"study report: {message}; usage: {self.usage}")
