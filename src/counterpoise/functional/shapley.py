"""Shapley values of any set function over modalities, exact for a few of them and sampled for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import torch
from torch import Tensor

LATTICE = 6
"""The most modalities whose subsets are all looked at: 63. With more of them, orders of joining are sampled."""
PAIRS = 8
"""Sampled orders of joining, and as many reversed ones: at most 16 M subsets."""

Orders = Sequence[Sequence[str]]


def coalitions(modalities: Sequence[str], orders: Orders | None = None) -> list[frozenset[str]]:
    """The subsets that ``shapley`` needs: every non-empty one, small ones first (2^M - 1), or those of the orders."""
    if orders is not None:
        return list(dict.fromkeys(frozenset(order[:size]) for order in orders for size in range(1, len(order) + 1)))
    if len(modalities) > 20:
        raise ValueError(
            f"modalities: {len(modalities)} have 2^{len(modalities)} - 1 subsets, which no memory holds. "
            "Sample orders of joining, counterpoise.functional.sampled_orders(modalities), and pass them on."
        )
    return [frozenset(s) for size in range(1, len(modalities) + 1) for s in combinations(modalities, size)]


def sampled_orders(
    modalities: Sequence[str], pairs: int = PAIRS, generator: torch.Generator | None = None
) -> list[tuple[str, ...]] | None:
    """Random orders in which the modalities join, each followed by its reverse; None for up to ``LATTICE`` modalities.

    What a modality gains early in an order it gains late in the reverse, so the mean of the two varies less.

    Args:
        modalities: names.
        pairs: how many random orders.
        generator: of the random numbers; None for the same orders every time.
    """
    if len(modalities) <= LATTICE:
        return None
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    orders = []
    for _ in range(pairs):
        order = tuple(modalities[i] for i in torch.randperm(len(modalities), generator=generator).tolist())
        orders += [order, order[::-1]]
    return orders


def shapley(
    values: Mapping[frozenset[str], Tensor], modalities: Sequence[str], orders: Orders | None = None
) -> dict[str, Tensor]:
    r"""Shapley value of each modality, elementwise over the values of a set function.

    .. math:: \phi_m = \sum_{S \subseteq N \setminus m} \frac{|S|!\,(M-|S|-1)!}{M!}\,\bigl(v(S \cup m) - v(S)\bigr)

    The values add up to :math:`v(N) - v(\emptyset)`, elementwise. With ``orders`` it is the mean gain of each modality
    over these orders instead of over all M! of them: without bias when they are random, and with the same sum.

    Args:
        values: subset -> value, tensors of one shape: logits (batch, classes), correctness (batch,), a scalar.
            All of ``coalitions(modalities, orders)`` must be there; the empty one counts as zero when it is not.
        modalities: the players, in any order.
        orders: orders of joining, each of all players (``sampled_orders``); None for the exact value.

    Returns:
        modality -> tensor shaped like a value; differentiable.

    Raises:
        ValueError: when the value of a subset is missing.

    Reference:
        L. S. Shapley. A Value for n-Person Games. 1953.
    """
    needed = coalitions(modalities, orders)
    for subset in needed:
        if subset not in values:
            raise ValueError(
                f"values must hold every subset of coalitions(modalities, orders); {sorted(subset)} is missing. "
                "List them with counterpoise.functional.coalitions."
            )
    if orders is not None:
        gains = [_gains(values, order) for order in orders]
        return {m: torch.stack([gain[m] for gain in gains]).mean(0) for m in modalities}
    count = len(modalities)
    weight = [factorial(size) * factorial(count - size - 1) / factorial(count) for size in range(count)]
    shares = {m: torch.zeros_like(values[frozenset({m})]) for m in modalities}
    for subset in [frozenset[str](), *needed]:
        if subset not in values:
            continue
        for m in modalities:
            share = weight[len(subset) - 1] if m in subset else -weight[len(subset)]
            shares[m] = shares[m] + share * values[subset]
    return shares


def shapley_error(
    values: Mapping[frozenset[str], Tensor], modalities: Sequence[str], orders: Orders
) -> dict[str, Tensor]:
    """Standard error of each sampled Shapley value: the spread of the pairs of orders over the root of their number.

    Args:
        values: as in ``shapley``.
        modalities: the players.
        orders: of ``sampled_orders``, at least two pairs.
    """
    gains = [_gains(values, order) for order in orders]
    pairs = list(zip(gains[::2], gains[1::2], strict=True))
    means = {m: torch.stack([(a[m] + b[m]) / 2 for a, b in pairs]) for m in modalities}
    return {m: gains.std(0, correction=1) / len(pairs) ** 0.5 for m, gains in means.items()}


def _gains(values: Mapping[frozenset[str], Tensor], order: Sequence[str]) -> dict[str, Tensor]:
    """What each modality adds to those before it."""
    whole = values[frozenset(order)]
    before, shares = values.get(frozenset(), torch.zeros_like(whole)), {}
    for size, m in enumerate(order, start=1):
        now = values[frozenset(order[:size])]
        shares[m], before = now - before, now
    return shares
