"""Scores of predictions, and what they say about the balance between modalities."""

from counterpoise.metrics.balance import gap, subset_name, subsets
from counterpoise.metrics.classification import BACKEND, METRICS
from counterpoise.metrics.metric import Metric
from counterpoise.metrics.scoring import LOWER_IS_BETTER, SHARES, lower_is_better, score

__all__ = [
    "BACKEND",
    "LOWER_IS_BETTER",
    "METRICS",
    "SHARES",
    "Metric",
    "gap",
    "lower_is_better",
    "score",
    "subset_name",
    "subsets",
]
