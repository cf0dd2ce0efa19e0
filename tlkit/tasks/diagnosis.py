"""Where a NaN or an infinity came from."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.data.batch import Batch
from tlkit.errors import NonFinite, UserError
from tlkit.layers import layers_of
from tlkit.tasks.loss_meter import Entry

SHOWN = 8  # samples named in a message


def explain(
    what: str, entry: Entry, batch: Batch | None, normalise: Callable[[Tensor], Tensor], network: nn.Module
) -> NonFinite:
    """Builds the error for a loss that is not finite.

    Args:
        what: which loss, such as ``training loss``.
        entry: the first step at which it was not finite.
        batch: the batch at hand, on which the forward pass is repeated; None: none is.
        normalise: from the data module's input to the network's, both ``(B, C, H, W)``.
        network: the network as it is now.
    """
    here = batch is not None and entry.sample is batch.sample
    rows = _bad_rows(entry, batch if here else None)
    found = [f"expected a finite {what}, got {entry.loss.item()} at global step {entry.step}"]
    if rows:
        found.append(f"the input is not finite in {_listed(rows)}: remove or repair these images")
        return NonFinite("; ".join(found))
    found.append("the input is finite" if rows is not None else "the input is no longer at hand")
    if here and batch is not None and not _finite(batch.target):
        found.append("the target is not finite: repair the targets")
        return NonFinite("; ".join(found))
    place = _first_bad_layer(network, batch.input, normalise) if batch is not None else _first_bad_weight(network)
    late = "" if here or batch is None else " by the time of this check"
    found.append(f"{place}{late}" if place else "all weights and outputs of layers are finite, only the loss is not")
    found.append(
        "lower the learning rate (model.optimizer.lr), clip gradients (trainer.gradient_clip_val), "
        "or leave half precision (trainer.precision: 32-true or bf16-mixed)"
    )
    return NonFinite("; ".join(found))


def _bad_rows(entry: Entry, batch: Batch | None) -> list[int] | None:
    """Returns the rows of the store whose input is not finite; None if there is no telling."""
    if batch is not None:
        good = torch.isfinite(batch.input).flatten(1).all(1)
    elif entry.sums is not None:
        good = torch.isfinite(entry.sums)
    else:
        return None
    rows: list[int] = entry.sample[~good].tolist()
    return rows


def _listed(rows: list[int]) -> str:
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"sample{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:SHOWN]))}{more} (rows of the data set)"


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x).all())


def _owners(network: nn.Module) -> dict[str, str]:
    """Returns path of a leaf module -> how to call it, in layer order; by module where the network has no layers."""
    try:
        return {path: f"layer '{layer.name}'" for layer in layers_of(network).values() for path in layer.modules}
    except UserError:
        return {path: f"module '{path}'" for path, module in network.named_modules() if not any(module.children())}


def _bad_weights(module: nn.Module) -> bool:
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return not all(_finite(tensor) for tensor in own)


def _first_bad_weight(network: nn.Module) -> str | None:
    modules = dict(network.named_modules())
    bad = (name for path, name in _owners(network).items() if _bad_weights(modules[path]))
    name = next(bad, None)
    return None if name is None else f"{name} is the first with weights that are not finite"


def _first_bad_layer(network: nn.Module, x: Tensor, normalise: Callable[[Tensor], Tensor]) -> str | None:
    """Repeats the forward pass of ``x`` ``(B, C, H, W)`` and tells which layer breaks it, in order of execution."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            if not found and _bad_weights(module):
                found.append(f"{name} is the first with weights that are not finite")
            elif not found and isinstance(output, Tensor) and not _finite(output):
                found.append(f"{name} is the first whose output is not finite")

        return hook

    modules = dict(network.named_modules())
    handles = [modules[path].register_forward_hook(watch(name)) for path, name in _owners(network).items()]
    try:
        with torch.no_grad():
            x = normalise(x)
            if not _finite(x):
                return "the normalised input is not finite: check the normalisation's mean and std"
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else _first_bad_weight(network)
