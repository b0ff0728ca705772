"""Scores of predictions, and what they say about the balance between modalities."""

from counterpoise.metrics.balance import gap, subset_name, subsets
from counterpoise.metrics.classification import BACKEND, METRICS
from counterpoise.metrics.metric import Metric
from counterpoise.metrics.robustness import effective_robustness, relative_robustness
from counterpoise.metrics.scoring import LOWER_IS_BETTER, SHARES, lower_is_better, score

__all__ = [
    "BACKEND",
    "LOWER_IS_BETTER",
    "METRICS",
    "SHARES",
    "Metric",
    "effective_robustness",
    "gap",
    "lower_is_better",
    "relative_robustness",
    "score",
    "subset_name",
    "subsets",
]
