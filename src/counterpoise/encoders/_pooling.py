"""Averages over the steps of a padded sequence."""

from __future__ import annotations

from torch import Tensor


def masked_mean(x: Tensor, there: Tensor) -> Tensor:
    """Mean of x (batch, T, dim) over the steps where ``there`` (batch, T) holds; zero where none does."""
    weight = there.to(x.dtype).unsqueeze(-1)
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)
