"""A foreign module that trains on a loss with both penalties of L2SP written out."""

import copy
from typing import Any

import torch
from foreign_module import ForeignModule, loader
from torch import Tensor, nn

ALPHA, BETA = 0.3, 0.05
SGD = {"optimizer": "SGD", "momentum": 0.9}


def foreign(**arguments: Any) -> ForeignModule:
    """Without what is random or depends on the other samples of a batch."""
    module = ForeignModule(**arguments)
    module.drop.p = 0.0
    for norm in (module.norm1, module.norm2):
        norm.eval()
        norm.train = lambda mode=True, norm=norm: norm  # type: ignore[method-assign]
    return module


def expected(
    module: ForeignModule, pulled: tuple[str, ...], updates: list[list[int]], clip: float | None = None
) -> dict[str, Tensor]:
    """Trains by hand on a loss with both penalties; each update is the mean over the batches named, of `window`."""
    module = copy.deepcopy(module)
    window = max(map(len, updates))
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer, batches = module.configure_optimizers(), list(loader())
    for update in updates:
        optimizer.zero_grad()
        penalty = torch.zeros((), dtype=next(module.parameters()).dtype)
        for name, p in module.named_parameters():
            if name.startswith(pulled):
                penalty = penalty + ALPHA / 2 * (p - start[name]).square().sum()
            else:
                penalty = penalty + BETA / 2 * p.square().sum()
        losses = [nn.functional.cross_entropy(module(batches[i][0].to(penalty)), batches[i][1]) for i in update]
        (torch.stack(losses).sum() / window + penalty).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), clip)
        optimizer.step()
    return {name: p.detach() for name, p in module.named_parameters()}
