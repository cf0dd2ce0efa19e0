"""A SLURM of one node, which is this machine; beside any other that may run on it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import yaml
from pools import ENGINES, gone

CORES = len(os.sched_getaffinity(0))
CONFIGURATION = """\
ClusterName=tlkit
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthInfo=socket={place}/munge/socket
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
KillWait=5
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4096 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def one_node() -> Iterator[None]:
    """Starts SLURM, makes it the one that this process talks to, and stops it."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=path)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs Debian's slurm-wlm and munge, and root to start them; missing: {missing or 'root'}")
    place = Path(mkdtemp(prefix="slurm-", dir="/tmp"))  # a socket's path has a hundred characters at most
    for name in ("munge", "state", "spool"):
        (place / name).mkdir()
    (place / "munge" / "key").write_bytes(os.urandom(128))
    (place / "munge" / "key").chmod(0o400)
    host, file = socket.gethostname(), place / "slurm.conf"
    file.write_text(CONFIGURATION.format(host=host, place=place, ports=_free_ports(2), cores=CORES))
    munge = [f"--{name}-file={place}/munge/{name}" for name in ("key", "pid", "log", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={place}/munge/socket", *munge],
        ["slurmctld", "-D", "-f", str(file)],
        ["slurmd", "-D", "-N", host, "-f", str(file)],
    ]
    with pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        running.callback(shutil.rmtree, place)
        running.callback(gone, str(place), 30)  # what its jobs have started
        patch.setenv("PATH", path)
        patch.setenv("SLURM_CONF", str(file))
        for command in daemons:
            with (place / f"{command[0]}.out").open("w") as log:
                running.callback(_stop, subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(1)
        _wait_for_node(place)
        running.callback(said, "scancel", "--user=root")
        yield


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _stop(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _wait_for_node(place: Path) -> None:
    for _ in range(60):
        if "idle" in said("sinfo", "-h", "-o", "%t"):
            return
        time.sleep(1)
    logs = "\n".join(f"{file.name}: {file.read_text()}" for file in place.glob("*.out"))
    pytest.fail(f"SLURM's node does not come up:\n{logs}")


def said(*words: str) -> str:
    """Returns the output of one of SLURM's commands."""
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


def jobs() -> dict[str, dict[str, str]]:
    """Returns id -> what SLURM knows of a job, of all since it was started."""
    lines = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in _job_lines()]
    return {job["JobId"]: job for job in lines}


def _job_lines() -> list[str]:
    return [line for line in said("scontrol", "-o", "show", "job").splitlines() if line.startswith("JobId=")]


def begin(job: dict[str, str]) -> float:
    """Returns when a job was started, seconds since 1970; never: infinity."""
    text = job["StartTime"]
    return float("inf") if text == "Unknown" else datetime.fromisoformat(text).timestamp()


def engine(tmp_path: Path, **changes: Any) -> Path:
    """Writes the engine for this SLURM, with changes to its provider."""
    content = yaml.safe_load((ENGINES / "slurm.yaml").read_text())
    config = content["parsl"]["init_args"]
    executor = config["executors"][0]["init_args"]
    executor |= {"address": "127.0.0.1", "heartbeat_threshold": 10, "mem_per_worker": 1}
    executor["provider"]["init_args"] |= {
        "partition": "debug",
        "cores_per_node": CORES,
        "walltime": "00:30:00",
        "launcher": {"class_path": "parsl.launchers.SimpleLauncher"},
    } | changes
    config["strategy_period"] = 1  # s
    target = tmp_path / "slurm.yaml"
    target.write_text(yaml.safe_dump(content))
    return target
