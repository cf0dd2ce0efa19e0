"""Two processes that train together over gloo on this machine."""

import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import multiprocessing

WORLD = 2


def gloo(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Runs ``function(rank, *arguments)`` in two spawned processes and returns what each returns.

    Inside, Lightning's stock trainer (``strategy="ddp"``, ``devices=2``) finds that it has been launched.
    """
    context = multiprocessing.get_context("spawn")
    results: Any = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_rank, args=(rank, port, results, function, arguments)) for rank in range(WORLD)
    ]
    for process in processes:
        process.start()
    found: dict[int, Any] = {}
    for process in processes:
        process.join(120)
        assert process.exitcode == 0, f"a rank ended with {process.exitcode}"
    while not results.empty():
        rank, result = results.get()
        found[rank] = result
    return [found[rank] for rank in range(WORLD)]


def _rank(rank: int, port: int, results: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(WORLD),
    }
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results.put((rank, function(rank, *arguments)))
