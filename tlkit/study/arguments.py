"""What the commands of ``tlkit study`` have in common: how their words are parsed."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from tlkit.errors import UserError

RUNS = "directory of all runs; by default that of the experiment"


class StudyParser(argparse.ArgumentParser):
    """Parses the words after ``tlkit study WORD``; what it cannot take is a `UserError`."""

    def __init__(self, word: str, command: Callable[[Sequence[str]], None], usage: str) -> None:
        """Makes the parser of one command.

        Args:
            word: the command's name.
            command: what it calls; the first line of its docstring is the description.
            usage: what follows the word.
        """
        usage = f"tlkit study {word} {usage}"
        super().__init__(prog=f"tlkit study {word}", usage=usage, description=about(command))

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raises `UserError` in place of leaving the process."""
        raise UserError(f"{self.prog.removeprefix('tlkit ')}: {message}; usage: {self.usage}")


def study_file(word: str) -> Path:
    """Returns the path of a study's YAML; whether it can be read, its reader says.

    Raises:
        UserError: it is no file, but the study's name or a directory.
    """
    path = Path(word)
    if path.suffix in (".yaml", ".yml") or (path.exists() and not path.is_dir()):
        return path
    near = (Path(folder, f"{path.name}.yaml") for folder in (path.parent, "configs/studies", "configs"))
    meant = next((f"; did you mean {file}?" for file in near if file.is_file()), ";")
    raise UserError(f"expected the study's YAML file, got '{word}'{meant} only tlkit study status takes a name")


def study_words(given: argparse.Namespace) -> list[str]:
    """Returns the words that name the same study to another command."""
    return [str(given.file), *(["--runs", str(given.runs)] if given.runs else [])]


def about(command: Callable[[Sequence[str]], None]) -> str:
    """Returns the first line of a command's docstring."""
    return (command.__doc__ or "").partition("\n")[0]
