"""AUG: what a classifier added to others of the same modality learns, and which modality needs one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import choice
from counterpoise.functional.modulation import true_probability

RESIDUALS = ("ensemble", "sum")


def residual_losses(
    logits: Tensor, before: Tensor, target: Tensor, lam: float = 0.5, residual: str = "ensemble"
) -> Tensor:
    r"""Cross-entropy of the newest classifier on what those before it leave over, per sample.

    .. math:: -(1 - \lambda q_y) \log \mathrm{softmax}(u_t)_y, \qquad
              q = \mathrm{softmax}\Bigl(\sum_{j<t} u_j\Bigr) \;\text{ or }\; \sum_{j<t} \mathrm{softmax}(u_j)

    Args:
        logits: (batch, classes), :math:`u_t`.
        before: (classifiers, batch, classes), :math:`u_1, \dots, u_{t-1}`; no gradient reaches them.
        target: (batch,) class numbers.
        lam: :math:`\lambda`, in [0, 1]; 0 gives the cross-entropy.
        residual: "ensemble" for the first q; "sum" for the second, with the weight held at 0 where it would be
            negative.

    Returns:
        (batch,) losses, at least 0.
    """
    choice("residual", residual, RESIDUALS)
    before = before.detach()
    learners = [before.sum(0)] if residual == "ensemble" else list(before)
    q = torch.stack([true_probability(u, target) for u in learners]).sum(0)
    return (1 - lam * q).clamp(min=0) * F.cross_entropy(logits, target, reduction="none")


def left_behind(scores: Sequence[float], sigma: float = 1.0, tau: float = 0.01, *, ratio: bool = False) -> int | None:
    """The place of the weakest modality when the strongest is far enough ahead of it; None otherwise, or for NaN.

    Args:
        scores: of each modality, in [0, 1].
        sigma: factor of the weakest's score, > 0.
        tau: how far ahead, at least 0: strongest - sigma * weakest > tau.
        ratio: strongest / weakest > sigma + tau instead.
    """
    values = torch.tensor(scores, dtype=torch.float64)
    weak, strong = int(values.argmin()), values.max().item()
    lead = strong - (sigma + tau) * scores[weak] if ratio else strong - sigma * scores[weak] - tau
    return weak if lead > 0 else None
