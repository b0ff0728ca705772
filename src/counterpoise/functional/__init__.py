"""The mathematics of the methods as functions of tensors; they work in any training loop, without the engine."""

from counterpoise.functional.gradients import assign, cosine, flatten, global_norm, unflatten
from counterpoise.functional.perturb import ascended, changed_fraction
from counterpoise.functional.statistics import frozen_statistics

__all__ = [
    "ascended",
    "assign",
    "changed_fraction",
    "cosine",
    "flatten",
    "frozen_statistics",
    "global_norm",
    "unflatten",
]
