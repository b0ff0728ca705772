"""Scores of predictions, and what they say about the balance between modalities."""

from counterpoise.metrics.balance import gap, subset_name, subsets
from counterpoise.metrics.classification import BACKEND, LOWER_IS_BETTER, METRICS, lower_is_better, score

__all__ = ["BACKEND", "LOWER_IS_BETTER", "METRICS", "gap", "lower_is_better", "score", "subset_name", "subsets"]
