"""The mean over samples that are there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_mean(values: Tensor, weight: Tensor | None, average: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Weighted mean of (batch,) values, differentiable; 0 where the weights sum to 0.

    Args:
        values: (batch,).
        weight: (batch,) bool or at least 0; None counts all alike.
        average: the mean of a scalar over the replicas that share a batch, so that the average of their results is the
            mean over the whole batch (``step.mean``).
    """
    if weight is None:
        return values.mean()
    weight = weight.to(values.dtype)
    total = weight.sum() if average is None else average(weight.sum())
    return (values * weight).sum() / torch.where(total > 0, total, 1.0)
