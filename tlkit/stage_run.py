"""Carry a stage out: find or train its pretrain, hand the layers over, fit, test, leave a run directory."""

import json
import logging
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden

from tlkit import runs
from tlkit.errors import UserError
from tlkit.experiment import Stage, config_yaml
from tlkit.layers import network_of, select, transfer
from tlkit.memory import reset_peak
from tlkit.progress import StageProgress
from tlkit.recorder import Recorder, TimedCheckpointIO
from tlkit.result import finish
from tlkit.runs import Run
from tlkit.stage_cli import StageCLI
from tlkit.tasks.base import Task
from tlkit.weights import NORMALISATION, Weights, load_checkpoint, load_weights

log = logging.getLogger("tlkit")

STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Source:
    """Where a stage's first layers come from: weights, and what the result says about them."""

    weights: Weights
    label: dict[str, Any]


def run(stage: Stage, resume: str | None = None) -> Run:
    """Trains a stage, after its pretrain if it needs one, and returns the finished run.

    Args:
        stage: what to train.
        resume: ``last``, to go on with the run that was cut off, or a checkpoint file of this stage.
    """
    source = source_of(stage, resume)
    directory, checkpoint = _resume(stage, resume) if resume else (None, None)
    if directory is None and (cut_off := runs.find_unfinished(stage.root, stage.name, stage.id)):
        log.info("a run of this stage was cut off: %s; --ckpt_path last goes on with it", cut_off.path)
    directory = directory or runs.create(stage.root, stage.experiment, stage.name, stage.id)
    with runs.running(directory.path), log_to(directory.path / "log.txt"), _interruptible():
        log.debug("command: %s", shlex.join(sys.argv))
        log.info("%s stage in %s", stage.name, directory.path)
        _train(stage, directory, source, checkpoint)
        log.debug("finished: %s", json.dumps(directory.result()["metrics"]))
    return directory


def source_of(stage: Stage, resume: str | None) -> Source | None:
    """Returns the weights that a stage starts from, after training the pretrain that they come from if need be."""
    if stage.checkpoint:
        log.info("pretrained weights from %s", stage.checkpoint)
        return Source(load_weights(stage.checkpoint), {"path": str(stage.checkpoint)})
    if stage.pretrain is None:
        return None
    finished = _pretrained(stage, stage.pretrain, resume)
    return Source(load_weights(finished.best), {"id": finished.id, "path": str(finished.path)})


def _pretrained(stage: Stage, pretrain: Stage, resume: str | None) -> Run:
    """Finds the finished pretrain or trains it; of several processes that want it, one trains and the others wait."""
    with runs.lock(stage.root / ".locks" / f"{pretrain.id[:16]}.lock"):
        found = runs.find_finished(stage.root, pretrain.name, pretrain.id)
        if found and stage.config["pretrain"]["reuse"]:
            log.info("reusing the finished pretrain %s", found.path)
            return found
        return run(pretrain, "last" if resume == "last" else None)


def _resume(stage: Stage, resume: str) -> tuple[Run | None, Path | None]:
    """Returns the run to go on with (None: a new one) and the checkpoint (None: from the first step)."""
    if resume != "last":
        path = Path(resume)
        _check_resumable(stage, path)
        cut_off = (run for run in runs.find(stage.root, stage.name, stage.id) if not run.finished)
        return next((run for run in cut_off if run.path in path.resolve().parents), None), path
    found = runs.find_unfinished(stage.root, stage.name, stage.id)
    if found is None:
        log.info("no %s run of this experiment was cut off: it starts from its first step", stage.name)
        return None, None
    log.info("going on with %s%s", found.path, "" if found.last.exists() else " from its first step: no checkpoint yet")
    return found, found.last if found.last.exists() else None


def _check_resumable(stage: Stage, path: Path) -> None:
    if not path.is_file():
        raise UserError(f"ckpt_path: expected a checkpoint file or 'last', got {path}, which does not exist")
    written = load_checkpoint(path).get("tlkit", {}).get("stage")
    if written != stage.name:
        raise UserError(
            f"ckpt_path: expected a checkpoint of a {stage.name} stage, got {path} of "
            f"{f'a {written} stage' if written else 'another program'}; ckpt_path resumes a run with its optimizer and "
            "epoch. To start from pretrained weights only, give it as pretrain.checkpoint"
        )


def _train(stage: Stage, run: Run, source: Source | None, checkpoint: Path | None) -> None:
    clock = _Clock()
    with clock("setup"):
        runs.write_text(run.path / "config.yaml", config_yaml(stage))
        cli, recorder, io = _build(stage, run)
        model, data, trainer = cli.model, cli.datamodule, cli.trainer
        reset_peak(trainer.strategy.root_device)
        transferred = hand_over(stage, model, source.weights) if source else []
        model.transferred, model.run_dir = transferred, run.path
        if hasattr(data, "describe"):
            runs.write_text(run.path / "split.json", json.dumps(data.describe(), indent=1))
    metrics = {}
    if source and getattr(model, "evaluate_before", False):  # a resumed run too: its checkpoint is loaded by the fit
        metrics = _evaluate(trainer, model, data, "before")
    if checkpoint:
        _take_best_along(checkpoint, run)
    with clock("fit"):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    with clock("test"):
        # not through trainer.test(ckpt_path=…), which would set the callbacks back to the selected epoch as well
        model.load_state_dict(load_checkpoint(run.best)["state_dict"])
        metrics |= _evaluate(trainer, model, data, "test")
    finish(
        stage,
        run,
        trainer=trainer,
        recorder=recorder,
        metrics=metrics,
        seconds=clock.seconds | recorder.seconds | {"checkpoint": io.seconds},
        pretrain=source.label | {"layers": transferred} if source else None,
    )


def _take_best_along(checkpoint: Path, run: Run) -> None:
    """A run that goes on in a directory of its own may never get better than the one it comes from."""
    best, here = checkpoint.with_name("best.ckpt"), run.path / "checkpoints" / "best.ckpt"
    if best.exists() and not here.exists():
        here.parent.mkdir(exist_ok=True)
        shutil.copyfile(best, here)


def _build(stage: Stage, run: Run) -> tuple[StageCLI, Recorder, TimedCheckpointIO]:
    io = TimedCheckpointIO()
    recorders: list[Recorder] = []

    def trainer_arguments(model: LightningModule, data: LightningDataModule | None) -> dict[str, Any]:
        if isinstance(model, Task) and data is not None:
            model.adapt(data)  # masks are monitored by another metric than images
        label = {"id": stage.id, "stage": stage.name}
        monitor = getattr(model, "monitor", None) if _validates(data) else None
        recorders.append(Recorder(run.path, monitor, getattr(model, "monitor_mode", "min"), label, stage.seed))
        arguments: dict[str, Any] = {
            "default_root_dir": str(run.path),
            "callbacks": [*recorders, *_progress(stage)],
            "plugins": [io],
            "use_distributed_sampler": not hasattr(data, "rows"),
        }
        if stage.config["trainer"]["logger"] in (None, True):
            # Ctrl-C within a write can cost the writer's thread its wake-up: it sleeps, and we wait, till the flush
            arguments["logger"] = TensorBoardLogger(save_dir=str(run.path), name="", version="", flush_secs=5)
        return arguments

    cli = StageCLI(stage.config)
    cli.build(trainer_arguments)
    return cli, recorders[0], io


def _progress(stage: Stage) -> list[Callback]:
    """One bar for the stage, unless the configuration switches it off or names another."""
    trainer = stage.config["trainer"]
    named = any("ProgressBar" in item["class_path"] for item in trainer["callbacks"] or [])
    return [] if named or trainer["enable_progress_bar"] is False else [StageProgress(stage.name)]


def _validates(data: LightningDataModule | None) -> bool:
    rows = data.rows("val") if data is not None and hasattr(data, "rows") else None
    return rows is None or any(len(some) for some in rows.values())


def hand_over(stage: Stage, model: LightningModule, weights: Weights) -> list[str]:
    """Copies the chosen layers and the input normalisation into the model; returns the names of the layers."""
    network = network_of(model)
    try:
        names = select(network, stage.layers)
    except UserError as error:
        raise UserError(f"pretrain.layers: {error}") from error
    transfer(network, weights.network, names)
    if weights.normalisation and isinstance(model, Task) and not model.normalised:
        mean, std = (weights.normalisation[key].flatten() for key in NORMALISATION)
        model.set_normalisation(mean, std)
    if isinstance(model, Task) and not model.normalised:
        log.info(
            "the pretrained weights come without the normalisation of their input: that of these training images is "
            "used; give theirs as model.normalisation (torchvision's: mean [0.485, 0.456, 0.406], std [0.229, 0.224, "
            "0.225])"
        )
    log.info("transferred %d layers: %s", len(names), ", ".join(names))
    return names


def _evaluate(
    trainer: Trainer, model: LightningModule, data: LightningDataModule | None, prefix: str
) -> dict[str, float]:
    """Tests the model as it is; returns the metrics under a prefix."""
    if not is_overridden("test_step", model):
        return {}
    if isinstance(model, Task):
        model.phase_prefix = prefix
    trainer.test(model, datamodule=data, verbose=False)
    return {key: value.item() for key, value in trainer.callback_metrics.items()}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM stop a stage alike; Lightning turns that into an exit with code 1, this turns it back."""
    main = threading.current_thread() is threading.main_thread()
    before = [signal.signal(name, signal.default_int_handler) for name in STOPPING] if main else []
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
    finally:
        for name, handler in zip(STOPPING, before, strict=False):
            signal.signal(name, handler or signal.SIG_DFL)


class _Clock:
    """Seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Copies tlkit's and Lightning's messages and all warnings to a file."""
    handler = logging.FileHandler(path)
    handler.addFilter(lambda record: "weights_only" not in record.msg and "litlogger" not in record.msg)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("tlkit", "lightning.pytorch", "py.warnings")]
    for logger in loggers:
        logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
