"""The ways in which ``study.py`` carries the same runs out, and what each leaves behind."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from study_clock import WORKERS
from study_common import network_weights, run

from tlkit.stage_cli import StageCLI
from tlkit.study.planned import PlannedStage, StudyPlan

Left = dict[str, tuple[float, list[torch.Tensor]]]
"""Id of a transfer -> test accuracy and the network's weights."""


@dataclass(frozen=True)
class Work:
    """What is to be done in one round.

    Attributes:
        folder: for everything that the arms write.
        study: its YAML.
        engine: its YAML.
        plan: the stages, as the study is planned.
    """

    folder: Path
    study: Path
    engine: Path
    plan: StudyPlan

    @property
    def transfers(self) -> list[PlannedStage]:
        """The runs: first one for each pretrain, so that each pretrain is found by all others; then from scratch."""
        runs = [stage for stage in self.plan.stages.values() if stage.stage == "transfer"]
        leaders = {stage.pretrain: stage.id for stage in reversed(runs) if stage.pretrain}.values()
        return sorted(runs, key=lambda stage: 0 if stage.id in leaders else 1 if stage.pretrain is None else 2)


def engine(work: Work) -> float:
    """`tlkit study run`, two workers."""
    command = ["-m", "tlkit", "study", "run", work.study, "--engine", work.engine, "--runs", work.folder / "engine"]
    return run(command, work.folder / "engine.log")


def process_and_pretrain(work: Work) -> float:
    """``tlkit fit`` per run, which trains its pretrain as well, in a directory of its own: else one would wait."""
    return _processes(work, "anew", lambda number: ["--runs", f"runs/{number}", "--pretrain.reuse", "false"])


def process(work: Work) -> float:
    """``tlkit fit`` per run, which finds its pretrain, except for the first one."""
    return _processes(work, "reused", lambda number: ["--runs", "runs"])


def two_loops(work: Work) -> float:
    """The hand-written loop in two processes, each with its half of the splits."""
    return _loops(work, "two_loops", WORKERS)


def one_loop(work: Work) -> float:
    """The hand-written loop in one process."""
    return _loops(work, "one_loop", 1)


ARMS: dict[str, Callable[[Work], float]] = {
    arm.__name__: arm for arm in (engine, process_and_pretrain, process, two_loops, one_loop)
}


def left(work: Work, arm: str) -> Left:
    """Returns what the runs of an arm left behind."""
    if arm in ("two_loops", "one_loop"):
        return _left_by_loop(work.folder / arm)
    folder = {"engine": "engine", "process_and_pretrain": "anew", "process": "reused"}[arm]
    found: Left = {}
    for file in (work.folder / folder).rglob("result.json"):
        result = json.loads(file.read_text())
        if result["stage"] == "transfer":
            checkpoint = file.parent / "checkpoints" / "best.ckpt"
            found[result["id"]] = result["metrics"]["test/accuracy"], network_weights(checkpoint)
    return found


def _left_by_loop(folder: Path) -> Left:
    found: Left = {}
    for file in folder.glob("*/results.json"):
        for id_, result in json.loads(file.read_text()).items():
            weights = torch.load(file.parent / f"{id_}.pt", weights_only=True)
            found[id_] = result["accuracy"], list(weights.values())
    return found


def _processes(work: Work, name: str, options: Callable[[int], list[str]]) -> float:
    """Runs one process per run, two at a time."""
    folder = work.folder / name
    folder.mkdir()
    commands = []
    for number, stage in enumerate(work.transfers):
        config = folder / f"{number}.yaml"
        config.write_text(yaml.safe_dump({key: value for key, value in stage.config.items() if key != "ckpt_path"}))
        quiet = ["--trainer.enable_progress_bar", "false"]
        command = ["-m", "tlkit", "fit", "--config", config, *quiet, *options(number)]
        commands.append((command, folder / f"{number}.log"))
    return _at_once(commands, WORKERS)


def _loops(work: Work, name: str, processes: int) -> float:
    groups = _groups(work)
    first = next(iter(work.plan.stages.values()))
    network = first.config["model"]["init_args"]["network"]["init_args"]
    channels = [round(channels * network["width"]) for channels in (64, 192, 384, 256, 256)]
    sizes = {"channels": channels, "fc": network["fc_width"], "pool": network["pool"], "dropout": network["dropout"]}
    store = _data(first).store.folder
    commands = []
    for number in range(processes):
        out = work.folder / name / str(number)
        out.mkdir(parents=True)
        job = {"images": str(store / "input.npy"), "labels": str(store / "target.npy"), "network": sizes}
        (out / "job.json").write_text(json.dumps(job | {"groups": groups[number::processes]}))
        loop = Path(__file__).with_name("study_loop.py")
        commands.append(([loop, out / "job.json", out], work.folder / name / f"{number}.log"))
    return _at_once(commands, processes)


def _at_once(commands: list[tuple[list[str | Path], Path]], processes: int) -> float:
    """Runs commands, so many at a time, and returns the seconds on the clock."""
    start = time.perf_counter()
    with ThreadPoolExecutor(processes) as pool:
        for _ in pool.map(lambda one: run(*one), commands):
            pass
    return time.perf_counter() - start


def _groups(work: Work) -> list[dict[str, Any]]:
    """Returns each pretrain with the runs of its split, as the hand-written loop takes them."""
    stages = work.plan.stages.values()
    splits = {stage.config["data"]["init_args"]["split"] for stage in stages}
    groups = []
    for split in sorted(splits):
        mine = [stage for stage in stages if stage.config["data"]["init_args"]["split"] == split]
        (pretrain,) = (stage for stage in mine if stage.stage == "pretrain")
        transfers = [stage for stage in mine if stage.stage == "transfer"]
        groups.append({"pretrain": _plain(pretrain), "transfers": [_plain(stage) for stage in transfers]})
    return groups


def _plain(stage: PlannedStage) -> dict[str, Any]:
    """Returns a stage as numbers: what a script would have in its variables."""
    data, config = _data(stage), stage.config
    sgd, (decay,) = config["model"]["init_args"]["optimizer"]["init_args"], config["trainer"]["callbacks"]
    return {
        "id": stage.id,
        "seed": config["seed_everything"],
        "layers": config["pretrain"]["layers"],
        "epochs": config["trainer"]["max_epochs"],
        "batch_size": data.batch_size,
        "sgd": {name: sgd[name] for name in ("lr", "momentum", "weight_decay")},
        "decay_every": decay["init_args"]["every"],
        "decay_factor": decay["init_args"]["factor"],
        "rows": {part: data.rows(part)[""].tolist() for part in ("train", "val", "test")},
        "classes": [data.dataset.classes.index(name) for name in data.stage_classes()],
    }


def _data(stage: PlannedStage) -> Any:
    cli = StageCLI(stage.config)
    cli.build()
    return cli.datamodule
