"""The options of ``tlkit advise``, checked together so that all that is wrong is said at once."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from tlkit.errors import UserError, suggest

USAGE = (
    "tlkit advise --examples-per-class N --classes C --batch-size B --similar yes|no "
    "[--task classification|restoration] [--write FILE] [--study FILE | --table T.csv --mapping M.yaml]"
)
TASKS = ("classification", "restoration")
OPTIONS = {
    "examples-per-class": (
        "N",
        "images to train on, per class; restoration: in all; of your own runs: if one of their columns is the size",
    ),
    "classes": ("C", "classes of the target; not for restoration"),
    "batch-size": ("B", "images per update"),
    "similar": ("yes|no", "whether source and target are similar in images and task; not for restoration"),
    "task": ("TASK", f"{' or '.join(TASKS)}; the first by default"),
    "write": ("FILE", "a new file: what is advised, as an experiment for tlkit fit"),
    "study": ("FILE", "answer from this study of yours, which has been run, in place of published ones"),
    "runs": ("DIR", "with --study: directory of all runs; by default that of the experiment"),
    "table": ("T.csv", "answer from a table of runs from elsewhere; needs --mapping"),
    "mapping": ("M.yaml", "what its columns are, as for tlkit study report"),
}
OWN = ("study", "table", "mapping")


@dataclass(frozen=True)
class Question:
    """What advice is asked for.

    Attributes:
        examples: images to train on per class; for restoration, in all; 0 where nobody asked.
        classes: of the target; 1 where there are none, or nobody asked.
        batch: images per update; 1 where nobody asked.
        similar: whether source and target are similar.
        task: one of `TASKS`.
        write: new file for the experiment; None: none.
        study: YAML of the user's own study; None: none.
        runs: directory of its runs; None: that of its experiment.
        table: the user's own table of runs; None: none.
        mapping: what its columns are.
        unused: options that were given and change nothing.
    """

    examples: int
    classes: int = 1
    batch: int = 1
    similar: bool = True
    task: Literal["classification", "restoration"] = "classification"
    write: Path | None = None
    study: Path | None = None
    runs: Path | None = None
    table: Path | None = None
    mapping: Path | None = None
    unused: tuple[str, ...] = ()


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"advise: {message}\nusage: {USAGE}")


def parse(words: Sequence[str]) -> Question:
    """Returns the question that words ask.

    Raises:
        UserError: everything that is wrong with them.
    """
    parser = _Parser(
        prog="tlkit advise",
        usage=USAGE,
        description="Recommends a protocol: layers to transfer and to freeze, learning rates and when they fall, from "
        "published studies or from your own; with its source and with what speaks against relying on it.",
        allow_abbrev=False,
    )
    for name, (value, text) in OPTIONS.items():
        parser.add_argument(f"--{name}", metavar=value, help=text)
    given, unknown = parser.parse_known_args(list(words))
    dashed = [word.partition("=")[0] for word in unknown if word.startswith("-")]  # the others are their values
    faults = [
        f"{word}: no such option{suggest(word, [f'--{name}' for name in OPTIONS]) or ';'} see tlkit advise --help"
        for word in dashed or unknown
    ]
    question = _question(given, faults)
    if faults:
        raise UserError("\n  ".join([f"advise: {len(faults)} fault{'s' * (len(faults) > 1)}", *faults]))
    return question


def _question(given: Namespace, faults: list[str]) -> Question:
    own = [name for name in OWN if getattr(given, name)]
    restoration = given.task == "restoration"
    needs = () if own else ("batch-size",) if restoration else ("classes", "batch-size", "similar")
    if given.task not in (None, *TASKS):
        faults.append(f"--task: expected {' or '.join(TASKS)}, got '{given.task}'{suggest(given.task, TASKS)}")
    if given.similar not in ("yes", "no") and (given.similar is not None or "similar" in needs):
        faults.append(f"--similar: expected yes or no, got {_got(given.similar)}")
    if restoration and given.classes not in (None, "1"):
        faults.append("--classes: expected none, restoration has no classes; --examples-per-class counts all images")
    _check_own(given, own, faults)
    unused = ("classes", "batch-size", "similar", "task") if own else ("similar",) if restoration else ()
    return Question(
        examples=_number(given, "examples-per-class", 1, True, faults) if not own or given.examples_per_class else 0,
        classes=_number(given, "classes", 1 if restoration else 2, "classes" in needs, faults),
        batch=_number(given, "batch-size", 1, "batch-size" in needs, faults),
        similar=given.similar != "no",
        task="restoration" if restoration else "classification",
        write=_new_file(given.write, faults),
        **{name: Path(getattr(given, name)) if getattr(given, name) else None for name in (*OWN, "runs")},
        unused=tuple(f"--{name}" for name in unused if getattr(given, name.replace("-", "_"))),
    )


def _check_own(given: Namespace, own: list[str], faults: list[str]) -> None:
    """Notes what contradicts itself among the options of a study of one's own."""
    if "study" in own and len(own) > 1:
        faults.append("--study: expected it alone, got a table as well; a study has its own table and mapping")
    elif own and own != ["study"] and len(own) < 2:
        missing = "mapping" if own == ["table"] else "table"
        faults.append(f"--{missing}: expected --table and --mapping together, got --{own[0]} alone")
    if given.runs and "study" not in own:
        faults.append("--runs: expected it with --study, got it without")
    if given.write and "table" in own and "study" not in own:
        faults.append("--write: expected none, a table does not say what experiment its runs were; --study FILE does")
    for name in OWN:
        path = getattr(given, name)
        if path and not Path(path).is_file():
            faults.append(f"--{name}: expected a file, got {path}, which is none")


def _number(given: Namespace, name: str, least: int, needed: bool, faults: list[str]) -> int:
    """Returns a whole number; 1 where none was given and none is needed."""
    text = getattr(given, name.replace("-", "_"))
    if text is None and not needed:
        return 1
    try:
        number = int(text)
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        faults.append(f"--{name}: expected a whole number from {least} up, got {_got(text)}")
    return number


def _new_file(text: str | None, faults: list[str]) -> Path | None:
    if text is None:
        return None
    path = Path(text)
    if path.exists() or not path.parent.is_dir():
        got = "exists" if path.exists() else "lies in no directory"
        faults.append(f"--write: expected a new file in a directory that exists, got {path}, which {got}")
    return path


def _got(text: str | None) -> str:
    return "nothing" if text is None else f"'{text}'"
