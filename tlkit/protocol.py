"""Phases of gradual unfreezing from the head down: pure functions, and the YAML that is edited from there."""

import math
from collections.abc import Sequence

import yaml

from tlkit.errors import UserError

LATER_RATE = 0.1
"""Rate of what is thawed after the first phase, relative to its full one (Stanford CS231n: try about 1/10)."""


def head_down(names: Sequence[str], layers_per_phase: int) -> list[list[str]]:
    """Returns the layers that each phase thaws, the last layers first; the last phase may have fewer.

    Source: Howard & Ruder 2018 (ULMFiT), section 3.3, with one layer per phase.

    Args:
        names: of all layers, in the network's order.
        layers_per_phase: at least 1.
    """
    ends = range(len(names), 0, -layers_per_phase)
    return [list(names[max(end - layers_per_phase, 0) : end]) for end in ends]


def starter(
    names: Sequence[str],
    max_epochs: int,
    layers_per_phase: int | None = None,
    epochs_per_phase: int | None = None,
    named_groups: bool = True,
) -> str:
    """Returns the YAML of gradual unfreezing with its phases written out, to be edited.

    Args:
        names: of all layers, in the network's order.
        max_epochs: of the run.
        layers_per_phase: None: 1, or as many as it takes to give each phase an epoch.
        epochs_per_phase: None: the run is divided evenly.
        named_groups: whether each layer can have a rate of its own.

    Raises:
        UserError: more phases than the run has epochs for.
    """
    layers = head_down(names, layers_per_phase or math.ceil(len(names) / max_epochs))
    begins = [
        max_epochs * number // len(layers) if epochs_per_phase is None else number * epochs_per_phase
        for number in range(len(layers))
    ]
    if len(set(begins)) < len(begins) or begins[-1] >= max_epochs:
        each = epochs_per_phase or 1
        raise UserError(
            f"expected phases that all begin within trainer.max_epochs, got {len(layers)} of {each} "
            f"epoch{'s' * (each > 1)} in a run of {max_epochs}; give more epochs, fewer --epochs-per-phase or "
            "more --layers-per-phase"
        )
    lines = [_phase(group, begin, named_groups) for group, begin in zip(layers, begins, strict=True)]
    return HEADER + "\n".join(f"          - {line}" for line in lines) + "\n"


HEADER = """\
# Merge this into the experiment, or give it as a second --config, which replaces the experiment's callbacks.
# A phase begins at an `epoch`, a `step`, a `fraction` of the run, or at `plateau: {metric: val/loss, patience: 3}`;
# at the first of several, or with `when: all` at the last. Its layers may be `rest`. Further fields:
#   rate: of the layers it thaws, relative to their full one; rate_before: what it multiplies that of the others with
#   depth_factor: 0.385 gives each layer 1/2.6 of the rate of the layer above (ULMFiT)
#   restart: true begins the schedule anew; restore_best: true loads the best checkpoint so far
trainer:
  callbacks:
    - class_path: GradualUnfreezing
      init_args:
        phases:
"""


def _phase(layers: Sequence[str], epoch: int, named_groups: bool) -> str:
    phase: dict[str, object] = {"layers": list(layers)}
    if epoch:
        phase |= {"epoch": epoch} | ({"rate": LATER_RATE} if named_groups else {})
    return yaml.safe_dump(phase, default_flow_style=True, sort_keys=False, width=math.inf).strip()
