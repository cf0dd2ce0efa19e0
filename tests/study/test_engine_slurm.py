"""The same study under SLURM: one node, which is this machine."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from studies import toy_study
from test_engine_parsl import ENGINES, PROBED, results

from tlkit.study.engine import carry_out

pytestmark = [pytest.mark.cluster, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]

CONFIGURATION = """\
ClusterName=tlkit
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthInfo=socket={munge}/socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Starts SLURM with one node, and stops it."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=_path())]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs Debian's slurm-wlm and munge, and root to start them; missing: {missing or 'root'}")
    monkeypatch.setenv("PATH", _path())
    place = Path("/tmp") / f"slurm-{os.getpid()}"  # a socket's path has a hundred characters at most
    munge = place / "munge"
    for directory in (munge, place / "state", place / "spool"):
        directory.mkdir(parents=True)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o400)
    configuration = place / "slurm.conf"
    cores = len(os.sched_getaffinity(0))
    host = socket.gethostname()
    configuration.write_text(CONFIGURATION.format(host=host, place=place, munge=munge, cores=cores))
    monkeypatch.setenv("SLURM_CONF", str(configuration))
    files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={munge}/socket", *files],
        ["slurmctld", "-D", "-f", str(configuration)],
        ["slurmd", "-D", "-N", host, "-f", str(configuration)],
    ]
    running = []
    try:
        for command in daemons:
            log = (place / f"{command[0]}.out").open("w")
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
            log.close()
            time.sleep(1)
        _wait_for_node(place)
        yield
    finally:
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait(30)
        shutil.rmtree(place, ignore_errors=True)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _wait_for_node(place: Path) -> None:
    for _ in range(60):
        if "idle" in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True).stdout:
            return
        time.sleep(1)
    logs = "\n".join(f"{file.name}: {file.read_text()}" for file in place.glob("*.out"))
    pytest.fail(f"SLURM's node does not come up:\n{logs}")


def slurm_engine(tmp_path: Path) -> Path:
    content = yaml.safe_load((ENGINES / "slurm.yaml").read_text())
    executor = content["parsl"]["init_args"]["executors"][0]["init_args"]
    executor["address"] = "127.0.0.1"
    executor["provider"]["init_args"] |= {
        "partition": "debug",
        "cores_per_node": len(os.sched_getaffinity(0)),
        "max_blocks": 1,
        "walltime": "00:30:00",
        "launcher": {"class_path": "parsl.launchers.SimpleLauncher"},
    }
    target = tmp_path / "slurm.yaml"
    target.write_text(yaml.safe_dump(content))
    return target


def test_slurm_gives_what_this_process_gives_although_a_pilot_job_is_cancelled(tmp_path, slurm):
    variants = [{"seed_everything": seed, **PROBED} for seed in range(4)]
    study, here = toy_study(tmp_path, variants), toy_study(tmp_path / "here", variants)
    jobs: list[str] = []

    def cancel() -> None:
        while not list(tmp_path.glob("runs/toys/*/checkpoints/last.ckpt")):
            time.sleep(0.2)
        jobs.extend(subprocess.run(["squeue", "-h", "-o", "%A"], capture_output=True, text=True).stdout.split())
        subprocess.run(["scancel", *jobs], check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert carry_out(study, slurm_engine(tmp_path), {id_: 5.0 for id_ in study.stages}).failed == {}
    canceller.join()
    assert len(jobs) == 1
    pooled = results(study)
    probes = [r["summaries"]["Probe"] for r in pooled.values() if r["stage"] == "transfer"]
    assert {(probe["environment"], probe["world_size"]) for probe in probes} == {("LightningEnvironment", 1)}
    assert carry_out(here, "inline").failed == {}
    assert {id_: r["metrics"] for id_, r in pooled.items()} == {id_: r["metrics"] for id_, r in results(here).items()}
    assert subprocess.run(["squeue", "-h", "-o", "%t"], capture_output=True, text=True).stdout.split() in ([], ["CG"])
