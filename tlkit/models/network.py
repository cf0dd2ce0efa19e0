"""The base of tlkit's own networks: ordered layers, runnable in two parts."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A network made of named, ordered layers that can be split at any boundary between them.

    Attributes:
        layer_modules: layer name -> paths of the modules that make it up, in the order of the forward pass. Every
            parameter and buffer lies below exactly one of these paths.
        groups: alias -> names of several layers.
    """

    layer_modules: dict[str, tuple[str, ...]]
    groups: dict[str, tuple[str, ...]]

    @abstractmethod
    def run(self, state: Any, start: int, stop: int) -> Any:
        """Applies layers ``start`` to ``stop - 1``.

        Args:
            state: the input ``(B, C, H, W)`` if ``start`` is 0, else what ``run(..., stop=start)`` returned.
            start: index of the first layer to apply.
            stop: index after the last layer to apply.

        Returns:
            The network's output if ``stop`` is the number of layers, else whatever the later layers need.
        """

    def prefix(self, x: Tensor, k: int) -> Any:
        """Applies the first ``k`` layers to ``x`` ``(B, C, H, W)``."""
        return self.run(x, 0, k)

    def suffix(self, state: Any, k: int) -> Tensor:
        """Applies the layers after the first ``k`` to what ``prefix(x, k)`` returned."""
        out: Tensor = self.run(state, k, len(self.layer_modules))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Applies all layers to ``x`` ``(B, C, H, W)``."""
        out: Tensor = self.run(x, 0, len(self.layer_modules))
        return out
