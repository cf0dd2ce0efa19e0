"""Protocols that come with tlkit, one file per callback."""

from tlkit_callbacks.chain_thaw import ChainThaw
from tlkit_callbacks.constant_rate import ConstantRate
from tlkit_callbacks.cosine_decay import CosineDecay
from tlkit_callbacks.cyclic_cosine import CyclicCosine
from tlkit_callbacks.ema_weights import EMAWeights
from tlkit_callbacks.energy_monitor import EnergyMonitor
from tlkit_callbacks.exponential_decay import ExponentialDecay
from tlkit_callbacks.freezing import Freezing
from tlkit_callbacks.gradual_unfreezing import GradualUnfreezing
from tlkit_callbacks.initial_decay import InitialDecay
from tlkit_callbacks.inverse_sqrt_decay import InverseSqrtDecay
from tlkit_callbacks.l2sp import L2SP
from tlkit_callbacks.layer_freezing import LayerFreezing
from tlkit_callbacks.linear_decay import LinearDecay
from tlkit_callbacks.linear_probe import LinearProbeThenFineTune
from tlkit_callbacks.moment import Moment
from tlkit_callbacks.one_cycle import OneCycle
from tlkit_callbacks.phase import Phase
from tlkit_callbacks.plateau import Plateau
from tlkit_callbacks.polyak_mean import PolyakMean
from tlkit_callbacks.reduce_on_plateau import ReduceOnPlateau
from tlkit_callbacks.schedule import Curve, Schedule
from tlkit_callbacks.snapshot_ensemble import SnapshotEnsemble
from tlkit_callbacks.step_decay import StepDecay
from tlkit_callbacks.surgical_fine_tuning import SurgicalFineTuning
from tlkit_callbacks.weight_update_ratio import WeightUpdateRatio

__all__ = [
    "L2SP",
    "ChainThaw",
    "ConstantRate",
    "CosineDecay",
    "Curve",
    "CyclicCosine",
    "EMAWeights",
    "EnergyMonitor",
    "ExponentialDecay",
    "Freezing",
    "GradualUnfreezing",
    "InitialDecay",
    "InverseSqrtDecay",
    "LayerFreezing",
    "LinearDecay",
    "LinearProbeThenFineTune",
    "Moment",
    "OneCycle",
    "Phase",
    "Plateau",
    "PolyakMean",
    "ReduceOnPlateau",
    "Schedule",
    "SnapshotEnsemble",
    "StepDecay",
    "SurgicalFineTuning",
    "WeightUpdateRatio",
]
