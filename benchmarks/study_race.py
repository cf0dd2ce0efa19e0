"""Carries the same small stages out in several ways, checks that they did the same, and keeps what was measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from study_clock import WORKERS
from study_common import equal, network_weights, run


@dataclass(frozen=True)
class Arm:
    """What was measured of one arm in one round.

    Attributes:
        seconds: of the whole process: start of Python, planning, stages, table.
        window: seconds from handing out the first stage to the return of the last.
        laps: begin, end, worker and imported of each stage, in the order in which they were handed out.
        first: when the first stage was handed out, s.
        jobs: that were started.
    """

    seconds: float
    window: float
    laps: list[dict[str, Any]]
    first: float
    jobs: int

    @property
    def work(self) -> float:
        """Seconds at stages, without importing torch."""
        return sum(lap["end"] - lap["begin"] for lap in self.laps if not lap["imported"]) + self.usual * self.imports

    @property
    def usual(self) -> float:
        """Median seconds of a stage for which torch was not imported."""
        return median(lap["end"] - lap["begin"] for lap in self.laps if not lap["imported"])

    @property
    def overhead(self) -> float:
        """Seconds per stage."""
        return (self.window * WORKERS - self.work) / len(self.laps)

    @property
    def start_up(self) -> float:
        """That part of the overhead which is over when a worker has torch, seconds per stage."""
        firsts = [min(laps, key=lambda lap: lap["begin"]) for laps in self.by_worker.values()]
        return sum(lap["end"] - self.first - self.usual for lap in firsts) / len(self.laps)

    @property
    def by_worker(self) -> dict[int, list[dict[str, Any]]]:
        """Process -> its stages."""
        return {worker: [lap for lap in self.laps if lap["worker"] == worker] for worker in self.workers}

    @property
    def workers(self) -> list[int]:
        """Processes that did stages."""
        return sorted({lap["worker"] for lap in self.laps})

    @property
    def imports(self) -> int:
        """How often torch was imported."""
        return sum(lap["imported"] for lap in self.laps)

    @property
    def idle(self) -> float:
        """Share of the workers' time at no stage, until the last stage was taken."""
        start, end = min(lap["begin"] for lap in self.laps), max(lap["begin"] for lap in self.laps)
        busy = sum(min(lap["end"], end) - min(lap["begin"], end) for lap in self.laps)
        return 1 - busy / (WORKERS * (end - start))


def race(folder: Path, engine: Path, naps: Sequence[float], arms: Sequence[str], rounds: int) -> list[dict[str, Arm]]:
    """Carries the same stages out in several ways.

    Args:
        folder: to be made, for everything that the arms write.
        engine: its YAML.
        naps: seconds that each stage sleeps.
        arms: as in `study_driver`.
        rounds: each is all stages in each way.

    Returns:
        Arm -> what was measured, for each round.
    """
    folder.mkdir()
    study = write_study(folder, naps)
    measured = []
    for number in range(rounds):
        found, results = {}, {}
        for arm in arms if number % 2 == 0 else reversed(arms):
            runs, laps = folder / f"{arm}-{number}", folder / f"{arm}-{number}.json"
            driver = Path(__file__).with_name("study_driver.py")
            seconds = run([driver, arm, study, engine, runs, laps], folder / f"{arm}-{number}.log")
            noted = json.loads(laps.read_text())
            found[arm] = Arm(seconds, noted["end"] - noted["begin"], noted["laps"], noted["begin"], noted["jobs"])
            results[arm] = read_results(runs)
            print(f"{folder.name}, round {number + 1}, {arm}: {seconds:.1f} s", flush=True)
        check(results, len(naps))
        measured.append(found)
    return measured


def write_study(folder: Path, naps: Sequence[float]) -> Path:
    """Writes a study of one stage per nap, and returns its file."""
    experiment = {
        "model": {
            "class_path": "Classification",
            "init_args": {
                "network": {"class_path": "toy.ToyNet"},
                "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.9}},
            },
        },
        "data": {"class_path": "toy.ToyData", "init_args": {"batch_size": 48, "cache_dir": str(folder / "cache")}},
        "trainer": {
            "max_epochs": 1,
            "accelerator": "cpu",
            "callbacks": [{"class_path": "probes.Nap", "init_args": {"seconds": 0.0}}],
        },
    }
    study = {
        "name": folder.name,
        "goal": "What does an engine add to a stage?",
        "base": "base.yaml",
        "scientific": {"model.optimizer.lr": [0.05]},
        "replicates": {"seed_everything, callbacks.Nap.seconds": [[n, nap] for n, nap in enumerate(naps)]},
        "metric": {"name": "test/accuracy", "mode": "max"},
    }
    (folder / "base.yaml").write_text(yaml.safe_dump(experiment))
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study))
    return file


def read_results(runs: Path) -> dict[str, tuple[dict[str, float], Path]]:
    """Returns id -> metrics and checkpoint of each finished run."""
    found = [(json.loads(file.read_text()), file.parent) for file in runs.glob("*/*/result.json")]
    return {result["id"]: (result["metrics"], run / "checkpoints" / "best.ckpt") for result, run in found}


def check(results: dict[str, dict[str, tuple[dict[str, float], Path]]], stages: int) -> None:
    """Refuses arms that did not do the same."""
    (one, first), *others = results.items()
    assert len(first) == stages, f"{one} has {len(first)} of {stages} runs"
    for other, second in others:
        assert first.keys() == second.keys(), f"{one} and {other} have other runs"
        for id_, (metrics, checkpoint) in first.items():
            assert metrics == second[id_][0], f"{one} and {other} have other results of {id_[:8]}"
            weights = network_weights(checkpoint), network_weights(second[id_][1])
            assert equal(*weights), f"{one} and {other} have other weights of {id_[:8]}"
