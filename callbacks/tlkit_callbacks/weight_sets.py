"""The weights of a module and their average, beside each other."""

from itertools import chain

import torch
from torch import Tensor, nn

Weights = dict[str, Tensor]


class WeightSets:
    """The raw weights of a module and their average, of which the module holds one, and which change places.

    Values are copied into the tensors of the module, whose identity and memory stay: so an optimizer, DDP and
    ``torch.compile`` notice nothing.

    Attributes:
        average: name -> average, 16-bit weights in 32 bits, on the device of the module's own.
        raw: name -> copy of the raw weights while the module holds the average; None: it holds the raw ones.
    """

    average: Weights
    raw: Weights | None = None

    def __init__(self, module: nn.Module, buffers: bool, average: Weights | None = None) -> None:
        """Begins an average.

        Args:
            module: holds the raw weights. What its ``state_dict`` leaves out is not averaged: nobody could resume it.
            buffers: whether floating-point buffers are averaged too, and not only parameters.
            average: by name; None: it begins as the raw weights.
        """
        saved, named = module.state_dict(), module.named_parameters(remove_duplicate=False)
        everything = chain(named, module.named_buffers(remove_duplicate=False) if buffers else ())
        self._own = {k: t for k, t in everything if k in saved and (t.is_floating_point() or t.is_complex())}
        self.average = {}
        groups: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for name, own in self._own.items():
            wide = torch.promote_types(own.dtype, torch.float32)  # 16 bits would round most steps of an average away
            self.average[name] = (average or self._own)[name].detach().to(own.device, wide, copy=True)
            averages, owns = groups.setdefault((own.device, own.dtype), ([], []))
            averages.append(self.average[name])
            owns.append(own)
        self._groups = list(groups.values())

    @torch.no_grad()
    def update(self, weight: float) -> None:
        """Moves the average towards the weights that the module holds.

        Args:
            weight: how far, from 0 (not at all) to 1 (all the way).
        """
        for averages, owns in self._groups:
            wide = averages[0].dtype
            torch._foreach_lerp_(averages, owns if owns[0].dtype == wide else [own.to(wide) for own in owns], weight)

    @torch.no_grad()
    def swap_in(self) -> None:
        """Gives the module the average. Idempotent."""
        if self.raw is None:
            self.raw = {name: own.detach().clone() for name, own in self._own.items()}
            torch._foreach_copy_(list(self._own.values()), list(self.average.values()))

    @torch.no_grad()
    def swap_out(self) -> None:
        """Gives the module the raw weights back. Idempotent."""
        if self.raw is not None:
            torch._foreach_copy_([self._own[name] for name in self.raw], list(self.raw.values()))
            self.raw = None

    def raw_weights(self) -> Weights:
        """Returns the raw weights by name, whoever holds them."""
        return self.raw or {name: own.detach() for name, own in self._own.items()}
