"""Gradient-Blending: how much each source should weigh, from how it generalises."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise._checks import number


def overfitting_to_generalization(
    train_before: Tensor, val_before: Tensor, train_after: Tensor, val_after: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Growth of the generalisation gap, gain on held-out data, and the size of their ratio.

    .. math:: \Delta O_k = (L^V_{N+n} - L^T_{N+n}) - (L^V_N - L^T_N), \qquad
              \Delta G_k = L^V_N - L^V_{N+n}, \qquad OGR_k = |\Delta O_k / \Delta G_k|

    Args:
        train_before: (sources,) mean training loss before the trial.
        val_before: (sources,) mean held-out loss before the trial.
        train_after: (sources,) mean training loss after it.
        val_after: (sources,) mean held-out loss after it.

    Returns:
        ``ΔO``, ``ΔG`` and ``OGR``, each (sources,). Means per sample, never sums over batches: the
        two parts have different numbers of batches.

    Source: Wang, Tran and Feiszli, What makes training multi-modal classification networks hard?,
    CVPR 2020, https://arxiv.org/abs/1905.12681
    """
    overfitting = (val_after - train_after) - (val_before - train_before)
    gain = val_before - val_after
    return overfitting, gain, (overfitting / gain).abs()


def blend_weights(
    train_before: Tensor, val_before: Tensor, train_after: Tensor, val_after: Tensor, eps: float = 1e-6
) -> Tensor:
    r"""The blend that minimises the overfitting-to-generalisation ratio.

    .. math:: w_k \propto \max(\Delta G_k, 0) / \Delta O_k^2, \qquad \textstyle\sum_k w_k = 1

    A source whose held-out loss did not fall gets weight 0; when no source's did, or a loss is not a
    number, the weights are equal.

    Args:
        train_before: (sources,), see ``overfitting_to_generalization``.
        val_before: (sources,).
        train_after: (sources,).
        val_after: (sources,).
        eps: least :math:`\Delta O^2`, > 0.

    Returns:
        (sources,) float64, non-negative, sum 1.
    """
    number("eps", eps, above=0)
    losses = (v.to(torch.float64) for v in (train_before, val_before, train_after, val_after))
    overfitting, gain, _ = overfitting_to_generalization(*losses)
    raw = gain.clamp(min=0) / overfitting.square().clamp(min=eps)
    raw = torch.nan_to_num(raw, nan=0.0, posinf=0.0)
    total = raw.sum()
    return torch.where(total > 0, raw / torch.where(total > 0, total, 1.0), torch.full_like(raw, 1 / len(raw)))
