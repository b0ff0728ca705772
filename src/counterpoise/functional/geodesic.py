"""Mixing two features on the unit sphere, and IPRM's share of each from what it agrees with."""

from __future__ import annotations

import torch
from torch import Tensor

from counterpoise.functional.cosines import unit_rows

NEAR = 5e-5
"""1 - cosine below which the weights come from their series: an angle of 0.01."""
OPPOSITE = 5e-9
"""1 + cosine below which no shortest way is known: an angle of pi - 0.0001."""


def geodesic_weights(cosine: Tensor, lam: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weights of two unit vectors that mix them at constant length.

    .. math:: \frac{\sin \lambda\theta}{\sin\theta}, \quad \frac{\sin (1-\lambda)\theta}{\sin\theta}, \qquad
              \theta = \arccos\langle a, b\rangle

    For equal vectors this tends to :math:`\lambda` and :math:`1-\lambda`; those are given for opposite ones too,
    between which there is no shortest way.

    Args:
        cosine: of the angle, any shape, in [-1, 1] up to rounding.
        lam: share of the first, in [0, 1], broadcast.

    Returns:
        Both weights, of the shape of ``cosine``.
    """
    near, opposite = 1 - cosine < NEAR, 1 + cosine < OPPOSITE
    theta = torch.acos(torch.where(near | opposite, 0.0, cosine))

    def weight(share: Tensor) -> Tensor:
        series = share + share * (1 - share.square()) * (1 - cosine) / 3
        limit = torch.where(opposite, share, series)
        return torch.where(near | opposite, limit, torch.sin(share * theta) / torch.sin(theta))

    return weight(lam), weight(1 - lam)


def geodesic(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """The point at ``lam`` on the way from the direction of ``b`` to that of ``a``; a row of zeros has no direction.

    Args:
        a: (batch, dim).
        b: (batch, dim).
        lam: share of ``a``, a scalar in [0, 1].

    Returns:
        (batch, dim), of length 1 where both rows have a direction and these are not opposite.
    """
    a, b = unit_rows(a), unit_rows(b)
    first, second = geodesic_weights((a * b).sum(1, keepdim=True), lam)
    return first * a + second * b


def agreement_share(first: Tensor, second: Tensor) -> Tensor:
    """Share of the first of two modalities by how little each diverges from the fused prediction; 1/2 if neither does.

    Args:
        first: its mean divergence, at least 0.
        second: that of the other, same shape.

    Source: Yang et al., Towards Equilibrium: An Instantaneous Probe-and-Rebalance Multimodal Learning Approach,
    IJCAI 2025, https://www.ijcai.org/proceedings/2025/0395.pdf
    """
    total = first + second
    return torch.where(total > 0, second / torch.where(total > 0, total, 1.0), 0.5)
