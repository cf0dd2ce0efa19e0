"""The command ``tlkit lr-range``: a range test of an experiment's last stage, after its pretrain."""

import logging
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from tlkit import runs, stage_run
from tlkit.commands import load_experiment
from tlkit.errors import UserError
from tlkit.experiment import Stage, config_yaml, plan
from tlkit.lr_range import LRRange, Mode, Spacing, check_sweep, lr_range_test
from tlkit.one_cycle_yaml import Arguments, block, with_one_cycle
from tlkit.progress import StageProgress
from tlkit.stage_check import check
from tlkit.stage_cli import StageCLI, config_files

log = logging.getLogger("tlkit")

SHAPING = (
    *("accelerator", "strategy", "devices", "precision", "plugins", "deterministic", "benchmark", "inference_mode"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"),
    *("limit_train_batches", "limit_val_batches", "overfit_batches"),
)
"""What of the trainer's section the sweep needs; the rest says how long and with what record the real run trains."""

DEFAULTS = {key: value for key, value in (lr_range_test.__kwdefaults__ or {}).items() if key != "callbacks"}


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def lr_range(words: Sequence[str]) -> None:
    """Finds or trains the pretrain, hands its layers over, sweeps, and leaves and prints what came of it.

    Raises:
        UserError: whatever is wrong with the options or the experiment, or a curve that suggests nothing.
    """
    parsed, rest = _parser().parse_known_args(list(words))
    options = {key: getattr(parsed, key) for key in DEFAULTS}
    check_sweep(**{key: options[key] for key in ("min_lr", "max_lr", "updates", "metric", "every")})
    copied = _copied_file(rest, parsed.write) if parsed.write else None
    config = load_experiment(rest)
    if config["ckpt_path"]:
        raise UserError("ckpt_path: expected none, got one; the sweep starts where fit starts: pretrain.checkpoint")
    stage = plan(config)
    check(stage)
    source = stage_run.source_of(stage, None)
    directory = runs.create(stage.root, stage.experiment, "lr-range", stage.id).path
    with runs.running(directory), stage_run.log_to(directory / "log.txt"):
        log.debug("command: %s", shlex.join(sys.argv))
        runs.write_text(directory / "config.yaml", config_yaml(stage))
        result = _sweep(stage, source, options)
        result.save(directory / "lr_range.json", id=stage.id, experiment=stage.experiment, options=options)
        result.draw(directory / "lr_range.png")
        _print(result, directory)
    if copied and result.one_cycle:
        _write(copied, parsed.write, result.one_cycle, rest)


def _parser() -> _Parser:
    parser = _Parser(
        prog="tlkit lr-range",
        usage="tlkit lr-range --config FILE [options]",
        description="Trains a copy of the experiment's network at a learning rate that rises with every update, and "
        "suggests a band of rates. Its pretrain is trained first, or found.",
        epilog="All other options are those of fit: tlkit fit --help.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--min_lr", type=float, metavar="RATE", help="first rate (%(default)g)")
    add("--max_lr", type=float, metavar="RATE", help="rate of the last update (%(default)g)")
    add("--updates", type=int, metavar="N", help="optimizer updates, round the data if need be (%(default)s)")
    add("--sweep", choices=get_args(Spacing), help="the rate grows by equal factors or by equal steps (%(default)s)")
    add(
        "--metric",
        metavar="NAME",
        help="a validation metric such as val/loss in place of the training loss; takes longer",
    )
    add("--metric_mode", choices=get_args(Mode), help="whether less or more of it is better (less)")
    add("--every", type=int, metavar="N", help="updates from one validation to the next (%(default)s)")
    add("--write", type=Path, metavar="FILE", help="a new file: the experiment with a OneCycle at the rate suggested")
    parser.set_defaults(**DEFAULTS)
    return parser


def _copied_file(words: Sequence[str], target: Path) -> Path:
    """Returns the file that ``--write`` copies."""
    files = config_files(words)
    if len(files) != 1:
        raise UserError(f"--write: expected one --config to copy, got {len(files)}")
    if target.exists() or not target.parent.is_dir():
        got = "exists" if target.exists() else "lies in no directory"
        raise UserError(f"--write: expected a new file in a directory that exists, got {target}, which {got}")
    return files[0]


def _sweep(stage: Stage, source: stage_run.Source | None, options: dict[str, Any]) -> LRRange:
    cli = StageCLI(stage.config)
    cli.build()
    cli.model.transferred = stage_run.hand_over(stage, cli.model, source.weights) if source else []
    trainer = cli.config_init["trainer"]
    freezing = [callback for callback in cli.callbacks if hasattr(callback, "frozen")]
    bar = [] if trainer["enable_progress_bar"] is False else [StageProgress("lr-range")]
    shaping = {key: trainer[key] for key in SHAPING}
    return lr_range_test(cli.model, cli.datamodule, callbacks=[*freezing, *bar], **options, **shaping)


def _print(result: LRRange, directory: Path) -> None:
    """Prints the suggestions, or raises the reason why there are none."""
    picture = directory / "lr_range.png"
    if result.stopped:
        log.info("%s", result.stopped)
    if result.band is None or result.one_cycle is None:
        raise UserError(f"{result.remark}; the curve is in {picture}")
    for name, rate in result.suggestions.items():
        print(f"  {name:<11}{rate:.2g}")
    print(f"  {'band':<11}{result.band[0]:.2g} … {result.band[1]:.2g}\n  {'curve':<11}{picture}")
    if result.remark:
        log.info("%s", result.remark)
    print(f"\nfor trainer.callbacks:\n- {block(result.one_cycle)}")


def _write(source: Path, target: Path, arguments: Arguments, words: Sequence[str]) -> None:
    """Writes the copy, and tries whether it can be trained."""
    text, kept = with_one_cycle(source.read_text(), arguments)
    runs.write_text(target, text)
    words = [str(target).join(word.rsplit(str(source), 1)) if word.endswith(str(source)) else word for word in words]
    lost, command = "" if kept else " without the comments", f"tlkit fit {shlex.join(words)}"
    try:
        check(plan(load_experiment(words)), with_data=False)
    except UserError as error:
        raise UserError(f"{target} is written{lost}, but cannot be trained yet: {error}; then {command}") from error
    print(f"\nwritten{lost}: {command}")
