"""Scores of predicted numbers: functions of predictions (n, targets) and target (n, targets), in the target's units.

Of several targets each score is the mean. What cannot be said, because a target is constant, is None, and ``score``
leaves it out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.metrics.metric import Metric


def mean_absolute_error(prediction: Tensor, target: Tensor) -> float:
    """Mean absolute error."""
    return float((prediction - target).abs().mean())


def root_mean_squared_error(prediction: Tensor, target: Tensor) -> float:
    """Root of the mean squared error."""
    return float((prediction - target).square().mean(0).sqrt().mean())


def r2(prediction: Tensor, target: Tensor) -> float | None:
    """Share of the target's variance that is explained; 0 for who predicts its mean, below 0 for who does worse."""
    around = (target - target.mean(0)).square().sum(0)
    return _defined((1 - (target - prediction).square().sum(0) / _positive(around)).mean())


def pearson(prediction: Tensor, target: Tensor) -> float | None:
    """Pearson's correlation; 0 for a constant prediction."""
    a, b = prediction - prediction.mean(0), target - target.mean(0)
    spread = a.square().sum(0).sqrt() * _positive(b.square().sum(0)).sqrt()
    return _defined(((a * b).sum(0) / torch.where(spread == 0, 1, spread)).mean())


def spearman(prediction: Tensor, target: Tensor) -> float | None:
    """Pearson's correlation of the ranks; equal values share the mean of theirs."""
    return pearson(_ranks(prediction), _ranks(target))


def concordance(prediction: Tensor, target: Tensor) -> float | None:
    """Lin's concordance correlation: Pearson's, less for another mean or spread."""
    mean_p, mean_t = prediction.mean(0), target.mean(0)
    covariance = ((prediction - mean_p) * (target - mean_t)).mean(0)
    spread = prediction.var(0, correction=0) + _positive(target.var(0, correction=0))
    return _defined((2 * covariance / (spread + (mean_p - mean_t).square())).mean())


def _positive(value: Tensor) -> Tensor:
    """NaN where a target is constant."""
    return torch.where(value > 0, value, torch.nan)


def _defined(value: Tensor) -> float | None:
    return None if value.isnan() else float(value)


def _ranks(values: Tensor) -> Tensor:
    columns = []
    for column in values.unbind(1):
        _, place, count = column.unique(return_inverse=True, return_counts=True)
        last = count.cumsum(0).double()
        columns.append((last - (count - 1) / 2)[place])
    return torch.stack(columns, 1)


METRICS = {
    "mae": Metric(mean_absolute_error, lower_is_better=True, share=False),
    "rmse": Metric(root_mean_squared_error, lower_is_better=True, share=False),
    "r2": Metric(r2, share=False),
    "pearson": Metric(pearson, share=False),
    "spearman": Metric(spearman, share=False),
    "ccc": Metric(concordance, share=False),
}
"""Name -> metric of (predictions, numbers)."""
