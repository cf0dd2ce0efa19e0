"""What is measured over one pass over one data loader, and how it is called."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torchmetrics import MetricCollection

from tlkit.tasks.loss_meter import LossMeter


class First(NamedTuple):
    """A batch's fields and the network's float32 output for them, on CPU."""

    input: Tensor
    target: Tensor
    sample: Tensor
    output: Tensor


@dataclass
class Meter:
    """Loss and metrics of one domain.

    Attributes:
        domain: its name; ``""`` where there is only one.
        metrics: on the network's device, by name without a prefix.
        loss: mean over the samples.
        first: the first few samples, where a picture needs them.
    """

    domain: str
    metrics: MetricCollection
    loss: LossMeter = field(default_factory=LossMeter)
    first: First | None = None


def names(prefix: str, metrics: MetricCollection) -> list[str]:
    """Returns the names of the loss and of the scalar metrics as `named` has them where there is one domain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchmetrics: nothing has been measured
        scalars = [name for name, value in metrics.compute().items() if value.ndim == 0]
    return [f"{prefix}/{name}" for name in ["loss", *scalars]]


def named(prefix: str, meters: Sequence[Meter], strategy: Strategy) -> dict[str, float | Tensor]:
    """Returns the scalar metrics under the names they are logged by.

    ``prefix/metric`` is that of the first domain, the stage's own; ``prefix/metric/domain`` that of each where there
    are several. A domain without samples has none.
    """
    results: dict[str, float | Tensor] = {}
    for index, meter in enumerate(meters):
        loss = meter.loss.mean(strategy)
        if loss is None:
            continue
        scalars = {name: value for name, value in meter.metrics.compute().items() if value.ndim == 0}
        values = {"loss": loss, **scalars}
        if index == 0:
            results |= {f"{prefix}/{name}": value for name, value in values.items()}
        if len(meters) > 1:
            results |= {f"{prefix}/{name}/{meter.domain}": value for name, value in values.items()}
    return results
