"""A study that Snakemake carries out, on this machine and under SLURM."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from slurm import CORES, one_node
from test_study_export import SMALL, exported, of_kind, small  # noqa: F401  the fixture applies here too
from test_study_plan import say

from tlkit.study.plan import plan_study

TIMES = ("seconds", "joules", "peak_bytes", "run")  # beginnings of columns that differ from run to run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("snakemake") is None, reason="needs pip install -e '.[snakemake]'"),
]


def snakemake(flow: Path, *words: Any) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "XDG_CACHE_HOME": str(flow.parent / "cache")}
    command = [sys.executable, "-m", "snakemake", *map(str, words)]
    return subprocess.run(command, cwd=flow, env=environment, capture_output=True, text=True, timeout=240)


def same_table(path: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Tells whether a study that is done has the table that it has when carried out in this process."""
    table = pd.read_parquet(path.parent / "runs" / "toys" / "table.parquet")
    say(capsys, "run", path, "--engine", "inline", "--runs", path.parent / "here")
    here = pd.read_parquet(path.parent / "here" / "toys" / "table.parquet")
    columns = [column for column in here if not column.startswith(TIMES)]
    pd.testing.assert_frame_equal(table[columns], here[columns], check_exact=True)
    return set(table["status"]) == {"done"}


def test_snakemake_gives_what_study_run_gives(small: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    flow, _ = exported(small, capsys)
    first = snakemake(flow, "--cores", 2)
    assert first.returncode == 0, first.stderr
    assert (small.parent / "runs" / "toys" / "report" / "report.html").exists()
    for kind in ("benchmarks", "logs", "results"):
        assert {path.name.partition("-")[0] for path in (flow / kind).iterdir()} >= {"pretrain", "transfer"}
    assert "Nothing to be done" in snakemake(flow, "--cores", 2).stderr
    assert same_table(small, capsys)
    # what is gone is made again, and no more
    planned = plan_study(small)
    gone, *_ = of_kind(planned, "transfer")
    shutil.rmtree(*(small.parent / "runs" / "toys").glob(f"transfer-{gone[:8]}"))
    exported(small, capsys)
    again = snakemake(flow, "--cores", 2)
    assert again.returncode == 0 and again.stderr.count("rule transfer:") == 1 and "rule pretrain:" not in again.stderr
    assert same_table(small, capsys)


def test_a_failure_is_reported_and_the_others_go_on(small: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    small.write_text(SMALL.replace("pretrain.layers:", "data.bad_row: [null, 3]\n  pretrain.layers:"))
    flow, rows = exported(small, capsys)
    assert len(rows) == 6
    done = snakemake(flow, "--cores", 2)
    assert done.returncode == 1
    # a pretrain and a transfer from scratch see the bad image; what would start from that pretrain is not run
    assert {path.name.partition("-")[0] for path in (flow / "results").iterdir()} == {"pretrain", "transfer"}
    assert len(list((flow / "results").iterdir())) == 3
    assert "expected training images that vary" in done.stderr  # the log of the stage
    assert [line.split() for line in done.stderr.splitlines() + done.stdout.splitlines() if "  transfer  " in line] == [
        ["transfer", "2", "1", "1", "4"]  # done, failed, to do, all
    ]


def test_snakemake_under_slurm_gives_what_study_run_gives(
    small: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("needs pip install -e '.[snakemake]'")
    place = Path("/etc/slurm/slurm.conf")  # the plugin's jobs lose SLURM_CONF
    if place.exists() or place.is_symlink():
        pytest.skip(f"{place} is another SLURM's")
    base = small.with_name("toy.yaml")
    content = yaml.safe_load(base.read_text())
    content["trainer"]["callbacks"].append({"class_path": "probes.Probe"})
    base.write_text(yaml.safe_dump(content))
    with one_node():
        place.parent.mkdir(exist_ok=True)
        request.addfinalizer(place.unlink)
        place.symlink_to(os.environ["SLURM_CONF"])
        flow, _ = exported(small, capsys)
        polls = ("--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", 2)
        done = snakemake(flow, "--executor", "slurm", "--jobs", CORES, *polls)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has been submitted with SLURM jobid") == 3
    assert same_table(small, capsys)
    results = [json.loads(path.read_text()) for path in (flow / "results").glob("transfer-*")]
    probes = [result["summaries"]["Probe"] for result in results]
    assert {(probe["environment"], probe["world_size"], probe["omp"]) for probe in probes} == {
        ("LightningEnvironment", 1, "1")
    }
