"""Starts the arms as processes, lets them train one epoch each in turn, and checks that they did the same."""

import os
import pickle
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import yaml
from peers import ARMS
from torch.nn import functional as F  # noqa: N812
from workload import MEAN, SGD_ARGUMENTS, STD, Workload, plain_network, tensors

HERE = Path(__file__).parent
TERMINAL = (24, 120)  # lines, columns
# What differs between the arms runs on one thread; more than that wait for each other wherever other programs run.
THREADS = 1
ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    # Else it depends on how the heap happens to lie whether glibc returns memory to the system in every step and gets
    # it back by thousands of page faults: two runs of one arm then differ by more than the arms do.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
}

Parameters = list[np.ndarray]
Lap = tuple[float, float]


def race(workload: Workload, folder: Path) -> dict[str, np.ndarray]:
    """Trains a workload in all ways.

    Args:
        workload: what is trained.
        folder: an empty one, for what the arms write.

    Returns:
        Arm -> ``(rounds, 2)`` milliseconds per step, on the clock and of CPU; a round is one epoch of each arm.

    Raises:
        AssertionError: they did not begin or end with equal weights, or with equal losses.
    """
    workload.write(folder)
    python = sys.executable
    arms = [Arm("tlkit_fit", lambda fd: [python, "-m", "tlkit", "fit", "--config", str(_config(workload, folder, fd))])]
    (folder / "initial.pkl").write_bytes(pickle.dumps(arms[0].initial))
    for name in ARMS:
        arms.append(Arm(name, lambda fd, name=name: [python, "peers.py", name, str(folder), str(fd)]))
    laps: dict[str, list[Lap]] = {arm.name: [] for arm in arms}
    final: dict[str, Parameters | None] = {}
    for epoch in range(workload.epochs):
        for arm in arms[epoch % len(arms) :] + arms[: epoch % len(arms)]:
            lap, final[arm.name] = arm.turn()
            laps[arm.name].append(lap)
    for arm in arms:
        arm.finish()
    _check(workload, {arm.name: arm.initial for arm in arms}, final)
    return {name: np.array(seconds[1:]) * 1000 / workload.steps for name, seconds in laps.items()}


def _config(workload: Workload, folder: Path, fd: int) -> Path:
    """Writes the experiment for ``tlkit fit``: from scratch, with its own logger, checkpoints and progress bar."""
    w = workload
    task = {
        "network": {"class_path": w.network, "init_args": w.arguments},
        "optimizer": {"class_path": "SGD", "init_args": SGD_ARGUMENTS},
        "normalisation": {"mean": [MEAN] * w.channels, "std": [STD] * w.channels},
    }
    data = {
        **{"samples": w.samples, "channels": w.channels, "image_size": w.image_size, "batch_size": w.batch_size},
        "cache_dir": str(folder / "cache"),
    }
    stopwatch = {"class_path": "stopwatch.Stopwatch", "init_args": {"fd": fd}}
    config = {
        "model": {"class_path": "Classification", "init_args": task},
        "data": {"class_path": "workload.NoiseImages", "init_args": data},
        "trainer": {"max_epochs": w.epochs, "accelerator": "cpu", "callbacks": [stopwatch]},
        "runs": str(folder / "runs"),
    }
    path = folder / "tlkit.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _check(workload: Workload, initial: dict[str, Parameters], final: dict[str, Any]) -> None:
    losses = {name: _loss(workload, parameters) for name, parameters in final.items()}
    for name in ARMS:
        assert _equal(initial[name], initial["tlkit_fit"]), f"{name} and tlkit_fit began with different weights"
        assert losses[name] == losses["tlkit_fit"], f"{name} and tlkit_fit ended with different losses: {losses}"
        assert _equal(final[name], final["tlkit_fit"]), f"{name} and tlkit_fit ended with different weights"


def _equal(a: Parameters, b: Parameters) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(a, b, strict=True))


@torch.no_grad()
def _loss(workload: Workload, parameters: Parameters) -> float:
    """Returns the cross-entropy over the first batch in row order, in nats."""
    network = plain_network(workload)
    for parameter, value in zip(network.parameters(), parameters, strict=True):
        parameter.copy_(torch.from_numpy(value))
    images, target = (values[: workload.batch_size] for values in tensors(workload))
    return F.cross_entropy(network(images), target).item()


class Arm:
    """One process on a terminal of its own, which waits for its turns."""

    def __init__(self, name: str, command: Callable[[int], list[str]]) -> None:
        """Starts it and waits until it is ready for its first step.

        Args:
            name: of the arm.
            command: takes the descriptor of the connection, returns what to run.
        """
        self.name = name
        self.output = bytearray()
        self._connection, theirs = Pipe()
        ours, terminal = os.openpty()
        termios.tcsetwinsize(terminal, TERMINAL)
        self._process = subprocess.Popen(
            command(theirs.fileno()),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=HERE,
            pass_fds=[theirs.fileno()],
            env=os.environ | ENVIRONMENT,
        )
        os.close(terminal)
        theirs.close()
        threading.Thread(target=self._drain, args=(ours,), daemon=True).start()
        self.initial: Parameters = self._receive()[1]

    def turn(self) -> tuple[Lap, Parameters | None]:
        """Lets it train one epoch; returns the seconds, and after the last one the parameters."""
        self._connection.send(None)
        return self._receive()

    def finish(self) -> None:
        """Lets it do what remains after training; it must succeed."""
        self._connection.send(None)
        if self._process.wait() != 0:
            self._fail()

    def _receive(self) -> tuple[Lap, Any]:
        try:
            message: tuple[Lap, Any] = self._connection.recv()
        except EOFError:
            self._process.wait()
            self._fail()
        return message

    def _fail(self) -> NoReturn:
        sys.stderr.write(self.output[-4000:].decode(errors="replace"))
        sys.exit(f"{self.name} ended with exit code {self._process.returncode}")

    def _drain(self, terminal: int) -> None:
        """Reads what it draws, as a terminal does."""
        try:
            while text := os.read(terminal, 65536):
                self.output += text
        except OSError:  # Linux reports the end of a terminal as an error
            os.close(terminal)
