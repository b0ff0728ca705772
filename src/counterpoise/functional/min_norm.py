"""The shortest vector between two gradients, and MMPareto's way of keeping its size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from counterpoise._checks import choice
from counterpoise.functional.gradients import flatten, unflatten

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
    flat_g, flat_u = flatten(g), flatten(u)
    gg, uu, gu = flat_g @ flat_g, flat_u @ flat_u, flat_g @ flat_u
    a_g, a_u = min_norm_pair(gg, uu, gu)
    conflict = (gu <= 0) & (gg > 0) & (uu > 0)
    parts = 2 * a_g * flat_g, 2 * a_u * flat_u
    if rescale == "encoder":
        pieces = unflatten(_grown(*parts, flat_g + flat_u), g)
    else:
        triples = zip(unflatten(parts[0], g), unflatten(parts[1], g), g, u, strict=True)
        pieces = [_grown(part_g, part_u, a + b) for part_g, part_u, a, b in triples]
    return [gamma * torch.where(conflict, n, t) for n, t in zip(pieces, total, strict=True)]


def _grown(part_g: Tensor, part_u: Tensor, total: Tensor) -> Tensor:
    """``n max(1, |g + u| / |n|)`` for ``n`` the sum of the parts; ``n`` itself where it vanishes."""
    n = part_g + part_u
    length = n.norm()
    real = length > STATIONARY * torch.maximum(part_g.norm(), part_u.norm())
    return n * torch.where(real, (total.norm() / torch.where(real, length, 1.0)).clamp(min=1.0), 1.0)
