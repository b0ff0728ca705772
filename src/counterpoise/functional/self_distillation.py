"""MBSD: of two modalities, the one that is surer of the true class teaches the other, sample by sample."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.functional.alignment import distillation_losses
from counterpoise.functional.modulation import true_probability


class Distilled(NamedTuple):
    """What a pair of modalities has to tell each other, per sample.

    Attributes:
        weight: (batch,) in [0, 1], without gradient: how far apart they are in the probability of the true class; 0
            where neither predicts it.
        squared: (batch,) mean squared difference of their logits.
        divergence: (batch,) KL of the weaker's prediction from the stronger's, which is held constant.
    """

    weight: Tensor
    squared: Tensor
    divergence: Tensor


def distilled(a: Tensor, b: Tensor, target: Tensor) -> Distilled:
    r"""The terms of modality-based self-distillation between two modalities.

    .. math:: t_m = \mathrm{softmax}(u_m)_y, \quad w = |t_a - t_b| \cdot [\hat y_a = y \lor \hat y_b = y], \quad
              \tfrac1C \lVert u_a - u_b \rVert^2, \quad
              \mathrm{KL}\bigl(\mathrm{sg}\, p_{strong} \,\|\, p_{weak}\bigr)

    The stronger is the one with the larger :math:`t`, the first of two equal ones.

    Args:
        a: (batch, classes) logits of one modality.
        b: of the other.
        target: (batch,) class numbers.

    Source: Liu et al., Multimodal Pre-Training with Self-Distillation for Product Understanding in E-Commerce, WSDM
    2023, https://doi.org/10.1145/3539597.3570423
    """
    t_a, t_b = true_probability(a, target).detach(), true_probability(b, target).detach()
    right = (a.argmax(1) == target) | (b.argmax(1) == target)
    a_leads = (t_a >= t_b).unsqueeze(1)
    strong, weak = torch.where(a_leads, a, b), torch.where(a_leads, b, a)
    return Distilled((t_a - t_b).abs() * right, (a - b).square().mean(1), distillation_losses(weak, strong))
