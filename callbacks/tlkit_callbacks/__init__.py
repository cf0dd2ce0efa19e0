"""Protocols that come with tlkit, one file per callback."""

from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.schedule import Schedule
from tlkit_callbacks.step_decay import StepDecay

__all__ = ["LayerFreezing", "Schedule", "StepDecay"]
