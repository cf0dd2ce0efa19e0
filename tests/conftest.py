"""What every test shares: quiet pictures, a temporary place for runs and caches, a tiny experiment."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

os.environ.setdefault("MPLBACKEND", "Agg")
# tiny networks: two threads only wait for each other, and for ever on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

Write = Callable[..., Path]


def toy_experiment(tmp_path: Path) -> dict[str, Any]:
    """Returns a two-stage experiment that trains in about a second."""
    return {
        "model": {
            "class_path": "Classification",
            "init_args": {
                "network": {"class_path": "toy.ToyNet"},
                "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.05, "momentum": 0.9}},
            },
        },
        "data": {"class_path": "toy.ToyData", "init_args": {"cache_dir": str(tmp_path / "cache")}},
        "pretrain": {"layers": 2, "with": {"data.stage": "pretrain", "trainer.max_epochs": 2}},
        "trainer": {
            "max_epochs": 3,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "LayerFreezing", "init_args": {"layers": 1}}],
        },
        "runs": str(tmp_path / "runs"),
    }


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """The command line sets tlkit's log up for its whole process, which the next test is in as well."""
    log = logging.getLogger("tlkit")
    log.handlers, log.propagate = [], True
    log.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def each_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """From which epoch a run goes on must not depend on how fast this machine is."""
    monkeypatch.setattr("tlkit.recorder.PACE", 0.0)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the tiny experiment to a YAML file, with some of it changed: ``write(**{"trainer.max_epochs": 5})``."""

    def write(file: str = "toy.yaml", **changes: Any) -> Path:
        config = toy_experiment(tmp_path)
        for path, value in changes.items():
            *parents, key = path.split(".")
            node = config
            for parent in parents:
                node = node[parent]
            node[key] = value
        target = tmp_path / file
        target.write_text(yaml.safe_dump(config, sort_keys=False))
        return target

    return write
