"""What each command does, and what it says when something is wrong."""

import errno
import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent
from typing import TextIO

from tlkit.errors import UserError
from tlkit.experiment import config_yaml, plan
from tlkit.paths import Config
from tlkit.stage_cli import StageCLI

log = logging.getLogger("tlkit")

INTERRUPTED = 130


def run_command(command: str, args: Sequence[str]) -> int:
    """Runs a command and returns its exit code; a user's mistake is one message without a traceback."""
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    _set_up_messages(sys.stderr if command in ("config", "protocol") else sys.stdout)
    try:
        COMMANDS[command](args)
    except UserError as error:
        return _fail(str(error), error.exit_code, debug)
    except (ValueError, TypeError) as error:
        cause = _mistake_behind(error)
        if cause is None:
            raise
        return _fail(str(cause), cause.exit_code, debug)
    except KeyboardInterrupt:
        hint = f"; to go on: tlkit fit {shlex.join(_resuming(args))}" if command == "fit" else ""
        return _fail(f"interrupted{hint}", INTERRUPTED, debug)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        return _fail(
            f"expected room on the disk, got '{error.strerror}'{where}; nothing half-written is left. Free some space, "
            f"then go on with: tlkit {command} {shlex.join(_resuming(args))}",
            2,
            debug,
        )
    return 0


def load_experiment(args: Sequence[str]) -> Config:
    """Returns the resolved configuration of an experiment given on the command line.

    Raises:
        UserError: everything that is wrong with the file, or what is wrong with the options.
    """
    cli = StageCLI(args)
    config = cli.resolved()
    if config["name"] is None:
        files = cli.config.get("config") or []
        config["name"] = Path(str(files[-1])).stem if files else "experiment"
    return config


def fit(args: Sequence[str]) -> None:
    """Trains the stage that a YAML describes, after its pretrain."""
    from tlkit.stage_check import check
    from tlkit.stage_run import run
    from tlkit.table import print_runs

    config = load_experiment(args)
    stage = plan(config)
    check(stage)
    finished = run(stage, config["ckpt_path"])
    print_runs([finished.path])
    print(f"\n  curves       {finished.path / 'curves.png'}\n  TensorBoard  tensorboard --logdir {stage.root}")


def evaluate(command: str) -> Callable[[Sequence[str]], None]:
    """Returns the command that evaluates a checkpoint with one of the trainer's methods."""

    def action(args: Sequence[str]) -> None:
        from tlkit.evaluate import evaluate

        config = load_experiment(args)
        evaluate(command, plan(config), config["ckpt_path"])

    return action


def config(args: Sequence[str]) -> None:
    """Prints an experiment, resolved, as YAML that ``tlkit fit`` takes; the stages before it as comments."""
    *before, stage = (config_yaml(stage) for stage in plan(load_experiment(args)).chain())
    print(*(indent(text, "# ", lambda line: line[0] != "#") + "\n" for text in before), stage, sep="", end="")


def layers(args: Sequence[str]) -> None:
    """Prints a table of the network's layers."""
    from tlkit.table import print_layers

    print_layers(plan(load_experiment(args)))


def lr_range(args: Sequence[str]) -> None:
    """Sweeps the learning rate of a stage and suggests one."""
    from tlkit.lr_range_command import lr_range

    lr_range(args)


def protocol(args: Sequence[str]) -> None:
    """Prints the YAML of a protocol for an experiment."""
    from tlkit.protocol_command import protocol

    protocol(args)


def compare(args: Sequence[str]) -> None:
    """Prints finished runs as one table and draws their curves."""
    from tlkit.table import compare_runs

    compare_runs(args)


def plugins(args: Sequence[str]) -> None:
    """Lists installed callbacks."""
    from tlkit.plugin_help import print_plugins

    print_plugins()


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "fit": fit,
    "validate": evaluate("validate"),
    "test": evaluate("test"),
    "predict": evaluate("predict"),
    "config": config,
    "layers": layers,
    "lr-range": lr_range,
    "protocol": protocol,
    "compare": compare,
    "plugins": plugins,
}


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stdout.flush()
    print(f"tlkit: {message}", file=sys.stderr)
    return code


def _mistake_behind(error: BaseException) -> UserError | None:
    """Returns the user's mistake that a constructor found and the parser wrapped into an error of its own."""
    pending, seen = [error], set()
    while pending:
        error = pending.pop()
        if isinstance(error, UserError):
            return error
        if id(error) not in seen:
            seen.add(id(error))
            pending += [other for other in (error.__context__, error.__cause__) if other is not None]
            pending += _set_aside(error)
    return None


def _set_aside(error: BaseException) -> list[BaseException]:
    """Returns the errors that the parser collected before it raised this one.

    It tries the types of a union in turn (``str | ClassImages``) and raises from the first one's error alone; the
    constructor's is in a list of its frames.
    """
    lists = [v for frame, _ in traceback.walk_tb(error.__traceback__) for v in frame.f_locals.values()]
    return [e for items in lists if isinstance(items, list) for e in items if isinstance(e, BaseException)]


def _resuming(args: Sequence[str]) -> list[str]:
    """Returns the words that resume what these words started."""
    kept = [word for word in args if not word.startswith("--ckpt_path=")]
    if "--ckpt_path" in kept:
        at = kept.index("--ckpt_path")
        del kept[at : at + 2]
    return [*kept, "--ckpt_path", "last"]


def _set_up_messages(stream: TextIO) -> None:
    """Says on a standard stream what tlkit does; leaves out what Lightning says of itself or at the wrong address."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.DEBUG)  # for log.txt
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for shown in logging.getLogger(name).handlers:
            shown.setLevel(logging.WARNING)  # its remarks are in log.txt
    for message in (
        r".*does not have many workers.*",  # batches are taken by index from memory: workers slow them down
        r".*smaller than the logging interval.*",  # metrics are logged once an epoch
        r".*`instantiate_classes` was deprecated.*",  # called by LightningCLI
        r".*instantiate_classes.*deprecated.*",
        r".*LeafSpec.*deprecated.*",  # called by Lightning
        r".*module\(s\) in eval mode at the start of training.*",  # that is what freezing means
        r".*`srun` command is available.*",  # a stage is one process, wherever it runs
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run goes on in its directory
    ):
        warnings.filterwarnings("ignore", message=message)
