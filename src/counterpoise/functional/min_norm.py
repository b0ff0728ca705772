"""The shortest vector between two gradients, and MMPareto's way of keeping its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise._checks import choice
from counterpoise.functional.gradients import global_norm

RESCALES = ("encoder", "tensor")
# Below this share of its two parts the shortest vector is rounding noise, not a direction.
STATIONARY = 1e-5


def min_norm_pair(gg: Tensor, uu: Tensor, gu: Tensor) -> tuple[Tensor, Tensor]:
    r"""Weights of the shortest convex combination of two vectors, from their inner products.

    .. math:: \min_{a_g + a_u = 1,\ a \ge 0} \lVert a_g g + a_u u \rVert^2 \quad\Rightarrow\quad
              a_g = \mathrm{clip}\Big(\frac{\langle u, u - g\rangle}{\lVert u - g\rVert^2}, 0, 1\Big)

    Args:
        gg: ``<g, g>``, 0-d or any shape.
        uu: ``<u, u>``, same shape.
        gu: ``<g, u>``, same shape.

    Returns:
        ``a_g`` and ``a_u``; one half each when the vectors are equal.

    Source: Désidéri, Multiple-gradient descent algorithm, C. R. Acad. Sci. Paris 350, 2012.
    """
    gap = gg - 2 * gu + uu
    apart, safe = gap > 0, torch.where(gap > 0, gap, 1.0)
    # Each from its own formula: 1 - a would lose the digits of a small weight on a long vector.
    a_g = torch.where(apart, (uu - gu) / safe, 0.5).clamp(0.0, 1.0)
    a_u = torch.where(apart, (gg - gu) / safe, 0.5).clamp(0.0, 1.0)
    return a_g, a_u


def pareto_gradient(
    g: Sequence[Tensor],
    u: Sequence[Tensor],
    gamma: float = 1.5,
    rescale: str = "encoder",
    total: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    r"""One gradient that descends on both losses, at least as long as their sum.

    With :math:`c = \cos(g, u)` over all tensors together:

    .. math:: \gamma (g + u)\ \text{ if } c > 0, \qquad
              \gamma \max\Big(1, \frac{\lVert g + u\rVert}{\lVert n\rVert}\Big) n,\quad
              n = 2 a_g g + 2 a_u u\ \text{ otherwise,}

    with the weights of ``min_norm_pair``. A zero gradient conflicts with nothing. Exactly opposed
    gradients have no common direction: the answer is then zero and not a blown-up rounding error.

    Args:
        g: gradient of the first loss, one tensor per parameter.
        u: gradient of the second loss, same shapes.
        gamma: common factor, > 0.
        rescale: "encoder" measures the two norms over all tensors, "tensor" over each on its own
            (as the released code does; the direction is then no longer the common one).
        total: ``g + u`` when it is known from one backward pass; the conflict-free answer is then
            exactly ``gamma * total``.

    Returns:
        One tensor per parameter.

    Source: Wei and Hu, MMPareto, ICML 2024, https://arxiv.org/abs/2405.17730
    """
    choice("rescale", rescale, RESCALES)
    total = [a + b for a, b in zip(g, u, strict=True)] if total is None else list(total)
    gg, uu, gu = ([_dot(a, b) for a, b in zip(*pair, strict=True)] for pair in ((g, g), (u, u), (g, u)))
    all_gg, all_uu, all_gu = (torch.stack(dots).sum() for dots in (gg, uu, gu))
    a_g, a_u = min_norm_pair(all_gg, all_uu, all_gu)
    conflict = (all_gu <= 0) & (all_gg > 0) & (all_uu > 0)
    shortest = [(2 * a_g * x).addcmul_(y, 2 * a_u) for x, y in zip(g, u, strict=True)]
    if rescale == "encoder":
        grown = [_growth(global_norm(shortest), a_g, a_u, all_gg, all_uu, global_norm(total))] * len(total)
    else:
        sizes = zip(shortest, gg, uu, total, strict=True)
        grown = [_growth(n.norm(), a_g, a_u, one_gg, one_uu, t.norm()) for n, one_gg, one_uu, t in sizes]
    return [
        torch.where(conflict, n, t).mul_(gamma * torch.where(conflict, growth, 1.0))
        for n, t, growth in zip(shortest, total, grown, strict=True)
    ]


def _growth(length: Tensor, a_g: Tensor, a_u: Tensor, gg: Tensor, uu: Tensor, total: Tensor) -> Tensor:
    """``max(1, |g + u| / |n|)`` for |n| = ``length``; 1 where n vanishes."""
    real = length > STATIONARY * 2 * torch.maximum(a_g * gg.sqrt(), a_u * uu.sqrt())
    return torch.where(real, (total / torch.where(real, length, 1.0)).clamp(min=1.0), 1.0)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of all entries, in the order of storage where both have the same."""
    if a.stride() == b.stride() and not a.is_contiguous():
        order = sorted(range(a.dim()), key=lambda axis: -a.stride(axis))
        a, b = a.permute(order), b.permute(order)
    return torch.dot(a.reshape(-1), b.reshape(-1))
