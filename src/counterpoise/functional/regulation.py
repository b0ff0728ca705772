"""InfoReg: who is ahead, whether it is in its prime learning window, and how strongly it is held back then."""

from __future__ import annotations

import torch
from torch import Tensor


def lead(scores: Tensor) -> Tensor:
    r"""(modalities,) :math:`\Delta_m`, mean difference to the modalities that score less; 0 for the last one.

    Args:
        scores: (modalities,), more is better.

    Source: Huang et al., Adaptive Unimodal Regulation for Balanced Multimodal Information Acquisition, CVPR 2025,
    https://arxiv.org/abs/2503.18595
    """
    over = (scores.unsqueeze(1) - scores).clamp(min=0)
    return over.sum(1) / (over > 0).sum(1).clamp(min=1)


def regulation(leads: Tensor, beta: float) -> Tensor:
    r"""(modalities,) :math:`\alpha_m = \exp(\beta \tanh \Delta_m)` where :math:`\Delta_m > 0`, else 0.

    Args:
        leads: (modalities,) :math:`\Delta`.
        beta: :math:`\beta`.
    """
    return torch.where(leads > 0, (beta * leads.tanh()).exp(), 0.0)


def released_regulation(sums: Tensor) -> Tensor:
    r""":math:`c_m \exp(\tanh(S_m - \bar S_{-m}))` for those ahead of the others' mean; c 0.95, then 0.1.

    Args:
        sums: (modalities,) sums over the batch of the probabilities of the true class.
    """
    gaps = sums - (sums.sum() - sums) / (len(sums) - 1)
    strength = torch.full_like(sums, 0.1)
    strength[0] = 0.95
    return torch.where(gaps > 0, strength * gaps.tanh().exp(), 0.0)


def growth(traces: Tensor, span: int) -> Tensor:
    r"""(...) relative growth :math:`(\bar T_t - \bar T_{t-1}) / \bar T_t` of the mean over ``span`` epochs.

    Args:
        traces: (..., epochs) of the last epochs in order, at least span + 1 of them.
        span: epochs that a mean is over.

    Returns:
        At most 1; 0 where the trace is 0.
    """
    now, before = traces[..., -span:].mean(-1), traces[..., -span - 1 : -1].mean(-1)
    return torch.where(now > 0, (now - before) / torch.where(now > 0, now, 1.0), 0.0)
