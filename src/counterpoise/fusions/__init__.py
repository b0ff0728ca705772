"""Ways to turn the features of several modalities into one prediction."""

from counterpoise.fusions.base import Fusion

__all__ = ["Fusion"]
