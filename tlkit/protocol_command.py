"""The command ``tlkit protocol starter``: gradual unfreezing of an experiment's network, written out to be edited."""

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import NoReturn

from tlkit.commands import load_experiment
from tlkit.errors import UserError, suggest
from tlkit.experiment import plan
from tlkit.layers import layers_of, network_of
from tlkit.protocol import starter
from tlkit.stage_cli import StageCLI
from tlkit.tasks.base import Task

USAGE = "tlkit protocol starter --config FILE [--layers-per-phase N] [--epochs-per-phase N]"


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\nusage: {USAGE}")


def protocol(words: Sequence[str]) -> None:
    """Prints the YAML of gradual unfreezing for the network of an experiment.

    Raises:
        UserError: whatever is wrong with the words or the experiment, or more phases than it has epochs.
    """
    what = words[0] if words else ""
    if what not in ("starter", "-h", "--help"):
        got = f"'{what}'{suggest(what, ['starter'])}" if what else "nothing"
        raise UserError(f"protocol: expected starter, got {got}\nusage: {USAGE}")
    parsed, rest = _parser().parse_known_args(list(words))
    for option in ("layers_per_phase", "epochs_per_phase"):
        value = getattr(parsed, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')}: expected at least 1, got {value}")
    stage = plan(load_experiment(rest))
    epochs = stage.config["trainer"]["max_epochs"]
    if epochs in (None, -1):
        raise UserError("trainer.max_epochs: expected a number, over which the phases are spread, got none")
    cli = StageCLI(stage.config)
    cli.build()
    names, named_groups = list(layers_of(network_of(cli.model))), isinstance(cli.model, Task)
    print(starter(names, epochs, parsed.layers_per_phase, parsed.epochs_per_phase, named_groups), end="")


def _parser() -> _Parser:
    parser = _Parser(
        prog="tlkit protocol",
        usage=USAGE,
        description="Prints the YAML of GradualUnfreezing with its phases written out for the experiment's network, "
        "from its last layer to its first, to be edited. Add it to the experiment, or give it as a second --config.",
        epilog="All other options are those of fit: tlkit fit --help.",
        allow_abbrev=False,
    )
    parser.add_argument("what", metavar="starter", help="what to print")
    parser.add_argument("--layers-per-phase", type=int, metavar="N", help="1, or more if the run has too few epochs")
    parser.add_argument("--epochs-per-phase", type=int, metavar="N", help="the run is divided evenly by default")
    return parser
