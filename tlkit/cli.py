"""The ``tlkit`` command: dispatch on the first word before anything heavy is imported."""

import logging
import os
import shlex
import sys
from collections.abc import Sequence

import tlkit

HELP = """\
usage: tlkit COMMAND [options]

Transfer-learning protocols as one YAML and one command.

train and evaluate (Lightning's options; `tlkit fit --help`):
  fit        train the stage a YAML describes; its pretrain is trained first, or found
  validate   evaluate a checkpoint on the validation images
  test       evaluate a checkpoint on the test images
  predict    write a checkpoint's predictions for the test images

look:
  config     print the fully resolved experiment, all stages
  layers     print the network's layers: size, output, transferred, frozen, rate
  lr-range   train a copy at rising learning rates: which rate to use, as numbers and a picture
  protocol   print gradual unfreezing for the network, phase by phase, to be edited
  compare    print finished runs as one table and draw their curves
  plugins    list the callbacks that are installed, and what could not be loaded
  advise     which protocol to begin with, by the size of your data: from published studies or your own (docs/advise.md)
  study      plan, run, report, …: a YAML of factors becomes a table and a page of figures (`tlkit study --help`)

examples:
  tlkit fit --config configs/alexnet_split.yaml
  tlkit fit --config configs/alexnet_split.yaml --data.examples_per_class 25
  tlkit fit --config configs/alexnet_split.yaml --ckpt_path last

options:
  --config FILE   an experiment; any value in it can be overridden: --trainer.max_epochs 5
  --debug         show the traceback of a user's mistake
  --version       print the version
"""

TRAINER = ("fit", "validate", "test", "predict")
COMMANDS = (*TRAINER, "config", "layers", "lr-range", "protocol", "compare", "plugins", "advise", "study")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 2 a user's mistake, 3 NaN or infinity, 130 Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args:
        print(HELP, end="", file=sys.stderr)
        return 2
    if args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if args[0] == "--version":
        print(f"tlkit {tlkit.__version__}")
        return 0
    command, *rest = args
    if command not in COMMANDS:
        from tlkit.errors import suggest

        meant = suggest(command, COMMANDS) or ";"
        print(f"tlkit: no command '{command}'{meant} valid: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if os.getcwd() not in sys.path:  # classes in the current directory resolve as under `python -m tlkit`
        sys.path.insert(0, os.getcwd())
    from tlkit.guard import guard

    words = [word for word in rest if word != "--debug"]
    again, resumes = _again(command, words)
    return guard(lambda: _carry_out(command, words), again, resumes, debug="--debug" in rest)


def _carry_out(command: str, words: list[str]) -> None:
    """Finds a command and calls it; what advises and studies needs no torch, so that it answers at once."""
    from tlkit.guard import quieten_lightning, set_up_messages

    if command == "advise":
        from tlkit.advise.command import advise

        return advise(words)
    if command == "study":
        from tlkit.study.commands import run

        set_up_messages(sys.stderr, logging.WARNING)
        return run(words)
    from tlkit.commands import COMMANDS as REST

    set_up_messages(sys.stderr if command in ("config", "protocol") else sys.stdout)
    quieten_lightning()
    REST[command](words)


def _again(command: str, words: list[str]) -> tuple[str, bool]:
    """Returns the command line that repeats a command, and whether it goes on where this one stops."""
    resumes = command == "fit" or (command == "study" and words[:1] in (["run"], ["stage"]))
    if command == "fit":
        words = [word for word in words if not word.startswith("--ckpt_path=")]
        if "--ckpt_path" in words:
            at = words.index("--ckpt_path")
            del words[at : at + 2]
        words += ["--ckpt_path", "last"]
    return f"tlkit {command} {shlex.join(words)}".rstrip(), resumes


if __name__ == "__main__":
    sys.exit(main())
