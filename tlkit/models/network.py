"""The base of tlkit's own networks: ordered layers, runnable in two parts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tlkit.errors import UserError


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
        """Applies layers ``start`` to ``stop - 1``; never changes ``state`` in place, so it may be kept and used again.

        Args:
            state: the input ``(B, C, H, W)`` if ``start`` is 0, else what ``run(..., stop=start)`` returned.
            start: index of the first layer to apply.
            stop: index after the last layer to apply.

        Returns:
            The network's output if ``stop`` is the number of layers, else whatever the later layers need: a tensor, or
            a tuple of tensors.
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


def check_arguments(network: str, rules: Mapping[str, tuple[object, bool, str]]) -> None:
    """Reports all bad constructor arguments at once.

    Args:
        network: the network's name.
        rules: argument -> its value, whether it is good, and what is expected of it.

    Raises:
        UserError: an argument is not good.
    """
    faults = [f"{name}: expected {wanted}, got {value!r}" for name, (value, good, wanted) in rules.items() if not good]
    if faults:
        raise UserError(f"{network}: " + "; ".join(faults))


def check_channels(network: str, x: Tensor, in_channels: int) -> None:
    """Raises a ``UserError`` unless ``x`` is ``(B, C, H, W)`` with ``C = in_channels``."""
    if x.ndim != 4 or x.shape[1] != in_channels:
        raise UserError(
            f"{network}: expected images (B, {in_channels}, H, W), got shape {tuple(x.shape)}; "
            "set the network's in_channels to the channels of the data"
        )
