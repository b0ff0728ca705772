"""Cosine logits: directions of features and of classifier rows, without their lengths."""

from __future__ import annotations

from torch import Tensor


def unit_rows(x: Tensor) -> Tensor:
    """Rows divided by their Euclidean length; zero rows stay zero, with a finite gradient."""
    length = x.norm(dim=1, keepdim=True)
    return x / length.masked_fill(length == 0, 1.0)


def cosine_logits(features: Tensor, weight: Tensor) -> Tensor:
    """Cosine of every feature with every class row: (batch, classes) in [-1, 1].

    Args:
        features: (batch, dim).
        weight: (classes, dim).

    Reference:
        Xu et al. MMCosine: Multi-Modal Cosine Loss Towards Balanced Audio-Visual Fine-Grained Learning. ICASSP 2023.
    """
    return unit_rows(features) @ unit_rows(weight).T
