"""The command ``tlkit advise``: prints a recommendation, and writes it as an experiment."""

import shlex
from collections.abc import Sequence

from tlkit.advise.arguments import parse
from tlkit.errors import UserError


def advise(words: Sequence[str]) -> None:
    """Prints what is advised, and writes it if asked to.

    Raises:
        UserError: everything that is wrong with the words; what is wrong with the user's own study; the file cannot be
            written.
    """
    question = parse(words)
    text: str | None
    if question.study or question.table:
        from tlkit.advise import own_study

        lines, text = own_study.advice(question)
    else:
        from tlkit.advise import classification, restoration
        from tlkit.advise.experiments import experiment

        lines = (restoration if question.task == "restoration" else classification).advice(question)
        text = experiment(question, shlex.quote(str(question.write)))
    print("\n".join(lines))
    if question.unused:
        print(f"\nnote: {', '.join(question.unused)}: not used here")
    if question.write and text:
        from tlkit.runs import write_text

        try:
            write_text(question.write, text)
        except OSError as error:
            raise UserError(f"--write: expected a file that can be written, got {error}") from error
        command = next(line for line in text.splitlines() if line.startswith("#   tlkit fit"))
        print(f"\nwritten: {command.removeprefix('#').strip()}")
    elif text:
        print("\nAs an experiment: the same with --write FILE")
