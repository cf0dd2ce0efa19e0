"""Takes turns and times them: one epoch of one arm at a time."""

import time
from multiprocessing.connection import Connection

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


class Turns:
    """An arm's side of the relay."""

    def __init__(self, fd: int) -> None:
        """Connects.

        Args:
            fd: inherited descriptor of the connection to `relay.Arm`.
        """
        self._connection = Connection(fd)
        self._start = self._lap = (0.0, 0.0)

    def wait(self, network: nn.Module | None = None) -> None:
        """Reports the last lap, seconds on the clock and of CPU, and blocks until it is this arm's turn.

        Args:
            network: sent along, before the first and after the last step.
        """
        parameters = None if network is None else [p.detach().numpy().copy() for p in network.parameters()]
        self._connection.send((self._lap, parameters))
        self._connection.recv()
        self._start = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        """Stops both clocks."""
        self._lap = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


class Stopwatch(Callback):
    """Times each epoch from before its first batch is fetched to after its last step; it hooks into no step.

    It comes first among the callbacks. What the others do when an epoch has ended (checkpoints, files) is not timed,
    but done before the turn passes on.
    """

    def __init__(self, fd: int) -> None:
        """Stores the descriptor; a parser may build stopwatches that are never used, which must not close it.

        Args:
            fd: as in `Turns`.
        """
        self._fd = fd

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Connects."""
        self._turns = Turns(self._fd)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Waits for the turn."""
        self._turns.wait(pl_module.network if trainer.global_step == 0 else None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the lap."""
        self._turns.lap()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Shows the trained network, and lets the others finish before the stage does what remains."""
        self._turns.wait(pl_module.network)
