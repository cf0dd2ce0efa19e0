"""What each command does."""

from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import indent

from tlkit.experiment import config_yaml, plan
from tlkit.paths import Config
from tlkit.stage_cli import StageCLI


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

    parser = ArgumentParser(
        prog="tlkit compare",
        usage="tlkit compare RUN…",
        description="Prints finished runs as one table and draws their curves into compare.png beside the last one.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="directory of a run: runs/x/transfer-0a1b2c3d")
    compare_runs(parser.parse_args(list(args)).runs)


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
