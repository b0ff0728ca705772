"""BSS: in which order samples come in, those on which the modalities agree and that are easy first."""

from __future__ import annotations

import math
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor


def agreement(probabilities: Tensor, present: Tensor | None = None) -> Tensor:
    """(samples,) mean cosine between the predictions of two modalities, over the pairs that a sample has.

    Args:
        probabilities: (modalities, samples, classes).
        present: (modalities, samples) bool. A sample without a pair has nothing to disagree: 1.
    """
    pairs = list(combinations(range(len(probabilities)), 2))
    cosines = torch.stack([F.cosine_similarity(probabilities[a], probabilities[b], dim=1) for a, b in pairs])
    if present is None:
        return cosines.mean(0)
    both = torch.stack([present[a] & present[b] for a, b in pairs])
    return torch.where(both.any(0), (cosines * both).sum(0) / both.sum(0).clamp(min=1), 1.0)


def balance_scores(agreements: Tensor, losses: Tensor) -> Tensor:
    r""":math:`s_i = \mathrm{minmax}_i(a_i) - \mathrm{minmax}_i(l_i)`, (samples,) in [-1, 1], high for balanced samples.

    Args:
        agreements: (samples,) :math:`a`.
        losses: (samples,) :math:`l`. Where all samples have the same, either term is 0.

    Source: Guan et al., Balance-aware Sequence Sampling Makes Multi-modal Learning Better, IJCAI 2025,
    https://www.ijcai.org/proceedings/2025/
    """
    return _unit_range(agreements) - _unit_range(losses)


def _unit_range(values: Tensor) -> Tensor:
    low, spread = values.min(), values.max() - values.min()
    return (values - low) / torch.where(spread > 0, spread, 1.0)


def pace(epoch: int, growth: int, start: float) -> float:
    r"""Share of the samples that are in: :math:`\min\bigl(1, \sqrt{(1 - \lambda_0^2)(t + 1)/T + \lambda_0^2}\bigr)`.

    Args:
        epoch: t, counted from 0.
        growth: T, epochs until all are in, at least 1.
        start: :math:`\lambda_0` in [0, 1].
    """
    return math.sqrt((1 - start**2) * (epoch + 1) / growth + start**2) if epoch + 1 < growth else 1.0


def draw_weights(scores: Tensor, rule: str) -> Tensor:
    r"""(samples,) positive weights that BSS-L draws samples by: high for balanced ones.

    Args:
        scores: (samples,) :math:`s` in [-1, 1].
        rule: "drawn" for :math:`e^{s_i}`, "ordered" for the released :math:`1 + s_i + 0.01`.
    """
    return (scores - scores.max()).exp() if rule == "drawn" else 1.01 + scores
