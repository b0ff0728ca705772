"""The shortest vector between two gradients, and MMPareto's way of keeping its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise._checks import choice
from counterpoise.functional.gradients import flatten, unflatten

RESCALES = ("encoder", "tensor")
# Below this share of the longer gradient the shortest vector is rounding noise, not a direction.
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
    a_g = torch.where(gap > 0, (uu - gu) / torch.where(gap > 0, gap, 1.0), 0.5).clamp(0.0, 1.0)
    return a_g, 1 - a_g


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
    flat_g, flat_u = flatten(g), flatten(u)
    gg, uu, gu = flat_g @ flat_g, flat_u @ flat_u, flat_g @ flat_u
    a_g, a_u = min_norm_pair(gg, uu, gu)
    conflict = (gu <= 0) & (gg > 0) & (uu > 0)
    shortest = 2 * (a_g * flat_g + a_u * flat_u)
    if rescale == "encoder":
        shortest = shortest * _growth(shortest, flat_g, flat_u)
        pieces = unflatten(shortest, g)
    else:
        pieces = [n * _growth(n, a, b) for n, a, b in zip(unflatten(shortest, g), g, u, strict=True)]
    return [gamma * torch.where(conflict, n, t) for n, t in zip(pieces, total, strict=True)]


def _growth(n: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """``max(1, |g + u| / |n|)``; 1 where ``n`` vanishes."""
    length = n.norm()
    real = length > STATIONARY * torch.maximum(g.norm(), u.norm())
    return torch.where(real, ((g + u).norm() / torch.where(real, length, 1.0)).clamp(min=1.0), 1.0)
