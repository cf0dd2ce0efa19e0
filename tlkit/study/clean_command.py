"""``tlkit study clean``: says what can go, asks, deletes exactly that."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tlkit.errors import UserError
from tlkit.study.arguments import RUNS, StudyParser, study_file


def clean(args: Sequence[str]) -> None:
    """Deletes what neither the table nor a stage still to run needs, after saying what it frees and asking.

    Raises:
        UserError: what is wrong with the study; a driver is at it; there is no terminal to ask on.
    """
    parser = StudyParser("clean", clean, "FILE [--checkpoints] [--former] [--yes] [--runs DIR]")
    parser.add_argument("file", type=study_file, help="the study's YAML")
    parser.add_argument(
        "--checkpoints",
        action="store_true",
        help="the weights of finished stages as well; a pretrain is trained again should a new stage need it",
    )
    parser.add_argument(
        "--former",
        action="store_true",
        help="finished runs of former plans as well; an edit that is taken back would find them again",
    )
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    parser.add_argument("--runs", type=Path, help=RUNS)
    given = parser.parse_args(args)
    from tlkit.study.clean import Survey, delete
    from tlkit.study.engine import sole_driver
    from tlkit.study.plan import DRIVER, plan_study
    from tlkit.study.summary import size_text

    planned = plan_study(given.file, given.runs)
    directory = planned.plan.root / planned.plan.name
    with sole_driver(directory / DRIVER):
        found = Survey(planned)
        kinds, more = [kind for kind in found.safe if kind.paths], []
        for option, kind in (("checkpoints", found.weights), ("former", found.former)):
            if kind.paths and getattr(given, option):
                kinds.append(kind)
            elif kind.paths:
                more.append(f"{size_text(kind.size)} more with --{option}: {kind.what}")
        total = size_text(sum(kind.size for kind in kinds))
        rows = [f"  {size_text(kind.size):>8}  {len(kind.paths):>5} {kind.what}" for kind in kinds]
        said = f"{directory}: {total} can go" if kinds else f"nothing to clean up in {directory}"
        print("\n".join([said, *rows, *more]))
        if not kinds:
            return
        if not given.yes and not _agreed(total):
            print("nothing was deleted")
            return
        delete(kinds)
        print(f"deleted: {total}")


def _agreed(total: str) -> bool:
    """Asks.

    Raises:
        UserError: there is nobody to ask.
    """
    if not sys.stdin.isatty():
        raise UserError("study clean: expected a terminal to ask whether to delete that, got none; --yes does not ask")
    return input(f"delete {total}? [y/N] ").strip().lower() in ("y", "yes")
