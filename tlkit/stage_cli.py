"""The parser of one stage: LightningCLI with a ``pretrain`` section, classes built only when asked for."""

import json
import logging
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import reduce
from itertools import pairwise
from operator import or_
from pathlib import Path
from typing import Any, get_args

from jsonargparse import set_parsing_settings
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

import tlkit.data
import tlkit.models
import tlkit.tasks  # noqa: F401  short class names resolve among what is imported
from tlkit import plugins
from tlkit.command_line import in_full, losses, take_paths
from tlkit.errors import Unavailable, UserError
from tlkit.faults import find_faults, report
from tlkit.paths import Config, with_overrides
from tlkit.yaml_lines import Fault, read

log = logging.getLogger("tlkit")

OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "name": (str | None, None, "Name of the experiment; the configuration file's name by default."),
    "runs": (str, "runs", "Directory of all runs."),
    "ckpt_path": (
        str | None,
        None,
        "fit: a checkpoint to resume from, or 'last' for the last one of the run that was cut off. "
        "validate, test, predict: the checkpoint to evaluate; the best of the last finished run by default.",
    ),
    "pretrain.layers": (
        int | str | list[str],
        0,
        "Layers to copy from the pretrain: the first k, names, groups, globs, or all; 0: train from scratch.",
    ),
    "pretrain.checkpoint": (
        str | None,
        None,
        "Where they come from instead of a pretrain stage: a run directory, a .ckpt, or a state_dict file.",
    ),
    "pretrain.reuse": (bool, True, "Whether a finished pretrain is used again."),
    "pretrain.with": (
        dict[str, Any] | None,
        None,
        "What differs in the pretrain stage: path -> value; everything else is shared, except callbacks.",
    ),
}
"""What tlkit knows beside Lightning's trainer, model and data: type, default, help."""

SCHEMA: dict[str, Any] = {
    "model": LightningModule,
    "data": LightningDataModule | None,
    "trainer": Trainer,
    "seed_everything": bool | int,
    **{name: hint for name, (hint, *_) in OPTIONS.items() if "." not in name},
    "pretrain": {name.partition(".")[2]: hint for name, (hint, *_) in OPTIONS.items() if "." in name},
}
"""Everything that may stand in an experiment's YAML."""

LACKING = ("No supported gpu backend", "can not run on your system", "your machine only has")
"""What Lightning says of a machine rather than of its arguments."""

DESCRIPTION = (
    "Options of fit, validate, test, predict, config and layers. Help on a class that is named in the YAML: "
    "--model.help Classification, --data.help ClassSplit. Below --trainer: the arguments of Lightning's Trainer."
)

TrainerArguments = Callable[[LightningModule, LightningDataModule | None], dict[str, Any]]


class StageCLI(LightningCLI):
    """Parses an experiment; ``build`` makes its model, data and trainer.

    Args:
        args: command-line words, or a resolved configuration.

    Raises:
        UserError: everything that is wrong with it.
    """

    def __init__(self, args: Sequence[str] | Config) -> None:
        """Parses; see the class."""
        plugins.load()
        set_parsing_settings(instantiate_subclass_spec_in_any=False)  # the classes in pretrain.with are another stage's
        self.trainer_arguments: TrainerArguments | None = None
        super().__init__(
            args=args if isinstance(args, dict) else list(args),
            run=False,
            seed_everything_default=0,
            save_config_callback=None,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"exit_on_error": False, "prog": "tlkit COMMAND", "description": DESCRIPTION},
            trainer_defaults={"devices": 1, "num_sanity_val_steps": 0, "enable_model_summary": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what tlkit knows beside Lightning's trainer, model and data."""
        for name, (hint, default, text) in OPTIONS.items():
            parser.add_argument(f"--{name}", type=hint, default=default, help=text)
        for action in parser._actions:  # Union[int, float] may come back from Python's cache as Union[float, int]
            members = get_args(getattr(action, "_typehint", None))
            if int in members and float in members:  # limit_train_batches: 1 is one batch, 1.0 is all of them
                action._typehint = reduce(or_, sorted(members, key=lambda member: member is not int))  # type: ignore[attr-defined]

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses words or a configuration, whatever stands in ``sys.argv``."""
        if isinstance(args, dict):
            try:
                self.config = parser.parse_object(deepcopy(args))  # which changes dataclasses in lists in place
            except ArgumentError as error:
                raise UserError(f"the configuration with its overrides is not valid: {error}") from error
            return
        args = in_full(args)
        words, overrides = take_paths(args)
        try:
            self.config = parser.parse_args(words)
            if overrides:
                files = self.config.get("config")
                self.config = parser.parse_object(with_overrides(self.resolved(), overrides))
                self.config["config"] = files
        except ArgumentError as error:
            raise UserError(_explain(parser, error, args)) from error
        _check_what_the_parser_lets_pass(args)
        for path in config_files(args):
            for message in losses(read(path.read_text())[0].value, self.resolved(), args):
                log.warning(message)

    def _set_seed(self) -> None:
        """Seeds nothing here: `build` follows the pretrain, and the seed must stand directly before it."""

    def instantiate_classes(self) -> None:
        """Builds nothing yet."""

    def build(self, trainer_arguments: TrainerArguments | None = None) -> None:
        """Builds data and model, seeded, and a trainer if it is told how.

        Args:
            trainer_arguments: takes the model and the data, returns what tlkit decides about the trainer; callbacks
                and plugins are added to the configured ones.
        """
        self.trainer_arguments = trainer_arguments
        super()._set_seed()
        super().instantiate_classes()

    @property
    def callbacks(self) -> list[Callback]:
        """The configured callbacks, once they are built."""
        return _listed(self._get(self.config_init, "trainer")["callbacks"])

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Builds the trainer from its section and what `build` was given."""
        if self.trainer_arguments is None:
            return None
        extra = self.trainer_arguments(self.model, self.datamodule)
        config = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        for key in ("callbacks", "plugins"):
            config[key] = [*_listed(config.get(key)), *_listed(extra.pop(key, None))]
        try:
            return Trainer(**config | extra)
        except (MisconfigurationException, ValueError) as error:
            lacking = any(words in str(error) for words in LACKING)
            if lacking:
                remedy = "accelerator: auto takes what there is"
                raise Unavailable(f"trainer: expected a machine that has what it asks for; {error} {remedy}") from error
            raise UserError(f"trainer: {error}") from error
        except RuntimeError as error:
            if "more than one stateful callback" not in str(error):
                raise
            names = [type(callback).__name__ for callback in config["callbacks"]]
            twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
            raise UserError(f"trainer.callbacks: expected each of {twice} once, got it several times") from error

    def resolved(self) -> Config:
        """Returns the whole configuration, defaults filled in, as plain data."""
        text = self.parser.dump(self.config, format="json", skip_unset=False, skip_validation=True)
        config: Config = json.loads(text)
        callbacks = config["trainer"]["callbacks"]
        if isinstance(callbacks, dict):  # the parser takes a single one without its list
            config["trainer"]["callbacks"] = [callbacks]
        return config


def parse(args: Sequence[str] | Config) -> Config:
    """Returns the resolved configuration that words or a configuration mean.

    Raises:
        UserError: everything that is wrong with it.
    """
    return StageCLI(args).resolved()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _explain(parser: LightningArgumentParser, error: ArgumentError, args: Sequence[str]) -> str:
    """Returns what is wrong with a command line: every fault of its files, or else the one the parser found."""
    from tlkit.faults_cli import cli_fault

    for path in config_files(args):
        if not path.is_file():
            return f"--config: expected a file, got {path}, which does not exist"
        keys = read(path.read_text())[0].children
        if isinstance(keys, dict) and {"base", "scientific"} <= set(keys):
            return f"--config: expected an experiment, got {path}, a study; tlkit study run {path}"
    message = _report(args, lambda fault: True) or cli_fault(parser, str(error), args)
    note = plugins.failures()
    return f"{message}\n{note}" if note and "no class" in message else message


def _check_what_the_parser_lets_pass(args: Sequence[str]) -> None:
    """Refuses keys given twice, and overrides of the pretrain that do not fit; the parser takes both for plain data."""
    message = _report(args, lambda fault: fault.path.startswith("pretrain") or "twice" in fault.message)
    if message:
        raise UserError(message)


def _report(args: Sequence[str], wanted: Callable[[Fault], bool]) -> str:
    """Returns the faults of all configuration files on a command line, as text."""
    reports = []
    for path in config_files(args):
        faults = [fault for fault in find_faults(path.read_text(), SCHEMA, str(path)) if wanted(fault)]
        if faults:
            reports.append(report(faults, str(path)))
    return "\n".join(reports)


def config_files(args: Sequence[str]) -> list[Path]:
    """Returns the configuration files named on a command line."""
    files = []
    for word, following in pairwise([*args, ""]):
        if word in ("-c", "--config"):
            files.append(Path(following))
        elif word.startswith(("--config=", "-c=")):
            files.append(Path(word.partition("=")[2]))
    return files
