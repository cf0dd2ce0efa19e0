"""A callback that tells what kind of process a stage is trained in."""

import json
import os
import threading

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
        }
        json.dumps(self.seen)

    def summary(self):
        return self.seen
