"""Callbacks that tell what kind of process a stage is trained in, take their time, or kill it."""

import json
import multiprocessing
import os
import signal
import threading
import time

from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment


class Probe(Callback):
    """Puts into ``result.json`` what a test asks of a worker."""

    def on_fit_start(self, trainer, pl_module):
        import torch

        self.seen = {
            "pid": os.getpid(),
            "main": threading.current_thread() is threading.main_thread(),
            "threads": torch.get_num_threads(),
            "omp": os.environ["OMP_NUM_THREADS"],
            "environment": type(trainer.strategy.cluster_environment).__name__
            if hasattr(trainer.strategy, "cluster_environment")
            else LightningEnvironment.__name__,
            "world_size": trainer.world_size,
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "data_workers": multiprocessing.get_start_method(),
        }
        json.dumps(self.seen)

    def summary(self):
        return self.seen


class Nap(Callback):
    """Makes epochs long without a processor."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_epoch_start(self, trainer, pl_module):
        time.sleep(self.seconds)


class Exit(Callback):
    """Ends the process without a word, as the kernel does that has no memory left.

    Args:
        part: ``train`` or ``test``.
        epoch: from which on.
    """

    def __init__(self, part: str, epoch: int = 0) -> None:
        self.part, self.epoch = part, epoch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.part == "train" and trainer.current_epoch >= self.epoch:
            os._exit(9)

    def on_test_start(self, trainer, pl_module):
        if self.part == "test":
            os._exit(9)


class Terminated(Callback):
    """Ends the process as a scheduler does at first, SIGTERM, at the beginning of a hook."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
