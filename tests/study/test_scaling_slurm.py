"""A scaling study under SLURM: one node, which is this machine."""

import os
from pathlib import Path

import pandas as pd
import pytest
from conftest import Write
from slurm import engine as slurm_engine
from test_engine_slurm import prompt, slurm  # noqa: F401  the fixtures apply here too
from test_scaling import STUDY

from tlkit.study import commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_a_job_has_as_many_workers_as_are_asked_for(write: Write, tmp_path: Path, slurm: None) -> None:  # noqa: F811
    write(**{"trainer.max_epochs": 1, "pretrain.with": {"data.stage": "pretrain", "trainer.max_epochs": 1}})
    cores = len(os.sched_getaffinity(0))
    text = STUDY.replace("threads: [1, 4]", "threads: [1]").replace("repeats: 3", "repeats: 1")
    path = tmp_path / "scaling.yaml"
    path.write_text(text.replace("[1, 2]", f"[1, {cores + 1}]"))
    engine = slurm_engine(tmp_path)
    commands.run(["run", str(path), "--engine", str(engine)])
    frame = pd.read_parquet(tmp_path / "runs" / "toys" / "table.parquet")
    assert list(frame["workers"]) == [1, cores + 1]
    assert list(frame["status"]) == ["done", "done"]
    assert set(frame["engine"]) == {str(engine)}
    assert set(frame["cores"]) == {cores} and set(frame["nodes"]) == {1}
