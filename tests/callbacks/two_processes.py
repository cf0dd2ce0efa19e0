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
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, ends = [], []
    for rank in range(WORLD):
        end, child = context.Pipe(duplex=False)
        processes.append(context.Process(target=_rank, args=(rank, port, child, function, arguments), daemon=True))
        processes[-1].start()
        child.close()  # so that the end of the process is the end of the pipe
        ends.append(end)
    results = []
    for rank, end in enumerate(ends):
        assert end.poll(120), f"rank {rank} says nothing"
        try:
            results.append(end.recv())
        except EOFError:
            raise AssertionError(f"rank {rank} ended without a result; its traceback is above") from None
    for process in processes:
        process.join()
    return results


def _rank(rank: int, port: int, end: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
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
    end.send(function(rank, *arguments))
