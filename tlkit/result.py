"""What a finished stage leaves: ``result.json``, ``curves.png``, hyperparameters beside the final metric."""

import json
import math
from pathlib import Path
from typing import Any

import lightning
import matplotlib
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

import tlkit
from tlkit.experiment import Stage
from tlkit.memory import peak_bytes
from tlkit.paths import flatten
from tlkit.recorder import Recorder, Row
from tlkit.runs import RESULT, Run, write_text


def finish(
    stage: Stage,
    run: Run,
    *,
    trainer: Trainer,
    recorder: Recorder,
    metrics: dict[str, float],
    seconds: dict[str, float],
    pretrain: dict[str, Any] | None,
) -> None:
    """Writes curves and hyperparameters, and at the very end the result: it exists exactly when the run finished.

    Args:
        stage: what was trained.
        run: where it goes.
        trainer: after fit and test.
        recorder: the history.
        metrics: of the test and of the evaluation before the training.
        seconds: by part of the run.
        pretrain: identity and layers of what it started from.
    """
    model = trainer.lightning_module
    selected = _metric(recorder)
    best = next((row for row in recorder.history if row["epoch"] == selected["best_epoch"]), {})
    metrics = {key: best[key] for key in best if key not in ("epoch", "step") and not key.startswith("lr/")} | metrics
    draw_curves(run.path / "curves.png", {stage.name: recorder.history}, selected["name"])
    _log_hyperparameters(trainer, stage, metrics, selected["name"])
    device, summaries = trainer.strategy.root_device, _summaries(trainer)
    result = {
        "id": stage.id,
        "experiment": stage.experiment,
        "stage": stage.name,
        "metric": selected,
        "metrics": metrics,
        "epochs": len(recorder.history),
        "parameters": parameters(model),
        "seconds": seconds,
        "memory": _memory(device, summaries),
        "energy": _energy(trainer),
        "pretrain": pretrain,
        "summaries": summaries,
        "versions": _versions(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": str(trainer.precision),
        "threads": torch.get_num_threads(),
        "seed": stage.seed,
    }
    write_text(run.path / RESULT, json.dumps(result, indent=1) + "\n")


def parameters(model: LightningModule) -> dict[str, int]:
    """Returns how many parameters a model has and how many of them train."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"total": sum(n for n, _ in counts), "trainable": sum(n for n, trains in counts if trains)}


def draw_curves(path: Path, histories: dict[str, list[Row]], metric: str) -> None:
    """Draws loss and the selecting metric over epochs, one colour per run; dashed: training, solid: validation.

    Args:
        path: of the PNG.
        histories: label -> rows of its ``metrics.csv``.
        metric: name of the selecting metric.
    """
    loss = [
        name for name in ("train/loss", "val/loss") if any(name in row for rows in histories.values() for row in rows)
    ]
    panels = [("loss", loss), (metric.partition("/")[2], [metric])] if metric not in loss else [("loss", loss)]
    wide = 5.2 * len(panels)  # inches
    figure = Figure(figsize=(wide, 3.6), dpi=120)
    figure.subplots_adjust(
        0.7 / wide, 0.13, 1 - 0.1 / wide, 0.92, wspace=0.18
    )  # a layout that is computed takes 0.05 s
    colours = matplotlib.colormaps["tab10"]
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, (label, rows) in enumerate(histories.items()):
            for name in names:
                points = [(row["epoch"] + 1, row[name]) for row in rows if name in row]
                style = "--" if name.startswith("train/") else "-"
                axes.plot(
                    *zip(*points, strict=True), style, color=colours(number), label=f"{label}, {name.partition('/')[0]}"
                )
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize="small")
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)


def _metric(recorder: Recorder) -> dict[str, Any]:
    """Returns the selecting metric, its best and last value; without validation, those of the last epoch."""
    name = recorder.monitor or "train/loss"
    rows = [row for row in recorder.history if name in row]
    if not rows:
        return {"name": name, "mode": recorder.mode, "best": None, "best_epoch": None, "best_step": None, "last": None}
    pick = max if recorder.mode == "max" else min
    valued = [row for row in rows if not math.isnan(row[name])] or rows  # ModelCheckpoint takes no NaN for the best
    best = pick(valued, key=lambda row: row[name]) if recorder.monitor else rows[-1]
    return {
        "name": name,
        "mode": recorder.mode,
        "best": best[name],
        "best_epoch": best["epoch"],
        "best_step": best["step"],
        "last": rows[-1][name],
    }


def _summaries(trainer: Trainer) -> dict[str, Any]:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return {type(callback).__name__: callback.summary() for callback in callbacks if hasattr(callback, "summary")}


def _memory(device: torch.device, summaries: dict[str, Any]) -> dict[str, Any]:
    """Returns the peak of the run; a callback that measures it per epoch starts the record anew each time."""
    seen = [summary["peak_bytes"] for summary in summaries.values() if summary.get("peak_bytes")]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "process"
    return {"peak_bytes": max([peak_bytes(device), *seen]), "device": name}


def _energy(trainer: Trainer) -> dict[str, Any] | None:
    """Returns what the callback that measures energy has measured; None: there is none, or nothing to measure with."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    found: dict[str, Any] | None = next((c.energy() for c in callbacks if hasattr(c, "energy")), None)
    return found


def _versions() -> dict[str, str]:
    from platform import python_version

    return {
        "tlkit": tlkit.__version__,
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "python": python_version(),
    }


def _log_hyperparameters(trainer: Trainer, stage: Stage, metrics: dict[str, float], selecting: str) -> None:
    """Puts the whole configuration into TensorBoard's hyperparameter table, beside the final metrics."""
    test = f"test/{selecting.partition('/')[2]}"
    final = {f"final/{name}": metrics[name] for name in (selecting, test) if name in metrics}
    flat = flatten({key: stage.config[key] for key in ("model", "data", "trainer", "pretrain", "seed_everything")})
    table = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in flat.items()}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(table, final)
            logger.save()
