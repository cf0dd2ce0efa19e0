"""Run something that draws random numbers and leave no trace of it."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

_MANY = 1000
"""Items from which on a container holds data, not what reads them."""


@contextmanager
def untouched(*data: Any) -> Iterator[None]:
    """Restores, however it is left, all generators: the global ones and those that data hold, samplers and loaders.

    The global ones are Python's, NumPy's, and torch's of the CPU and of every CUDA device. A loader that keeps its
    workers is used with fresh ones.

    Args:
        *data: data modules, loaders or anything that holds them.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(range(torch.cuda.device_count())))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(torch.set_grad_enabled, torch.is_grad_enabled())  # Lightning enables it for good
        for item in _parts(data):
            restore = _restoring(item)
            if restore:
                stack.callback(restore)
            if isinstance(item, DataLoader):
                vars(item)["_iterator"] = None  # else the caller's iteration would start again
        yield


def _restoring(item: Any) -> Callable[[], Any] | None:
    """Returns what brings an object back to its present state; None where it has none to speak of."""
    if isinstance(item, torch.Generator):
        return partial(item.set_state, item.get_state())
    if isinstance(item, np.random.Generator):
        return partial(setattr, item.bit_generator, "state", item.bit_generator.state)
    if isinstance(item, np.random.RandomState):
        return partial(item.set_state, item.get_state())
    if isinstance(item, random.Random):
        return partial(item.setstate, item.getstate())
    if isinstance(item, DataLoader | Sampler):
        return partial(_reset, vars(item), dict(vars(item)))
    return None


def _reset(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    attributes.clear()
    attributes.update(before)


def _parts(data: Any) -> Iterator[Any]:
    """Yields objects reachable through attributes and small containers, each once."""
    waiting, seen = [data], set()
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, str | bytes | type | Trainer | Tensor | np.ndarray | nn.Module):
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, dict | list | tuple | set):
            parts = item.values() if isinstance(item, dict) else item
            waiting += parts if len(item) <= _MANY else []
        elif hasattr(item, "__dict__"):
            waiting += vars(item).values()
