"""Shapley values of any set function over modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial

import torch
from torch import Tensor


def coalitions(modalities: Sequence[str]) -> list[frozenset[str]]:
    """Every non-empty subset of the modalities, small ones first: 2^M - 1 of them."""
    return [frozenset(s) for size in range(1, len(modalities) + 1) for s in combinations(modalities, size)]


def shapley(values: Mapping[frozenset[str], Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    r"""Shapley value of each modality, elementwise over the values of a set function.

    .. math:: \phi_m = \sum_{S \subseteq N \setminus m} \frac{|S|!\,(M-|S|-1)!}{M!}\,\bigl(v(S \cup m) - v(S)\bigr)

    The values add up to :math:`v(N) - v(\emptyset)`, elementwise.

    Args:
        values: subset -> value, tensors of one shape: logits (batch, classes), correctness (batch,), a scalar.
            Every non-empty subset must be there; the empty one counts as zero when it is not.
        modalities: the players, in any order.

    Returns:
        modality -> tensor shaped like a value; differentiable.

    Raises:
        ValueError: when the value of a subset is missing.

    Reference:
        L. S. Shapley. A Value for n-Person Games. 1953.
    """
    for subset in coalitions(modalities):
        if subset not in values:
            raise ValueError(
                f"values must hold every non-empty subset of {tuple(modalities)}; {sorted(subset)} is missing. "
                "List them with counterpoise.functional.coalitions(modalities)."
            )
    count = len(modalities)
    weight = [factorial(size) * factorial(count - size - 1) / factorial(count) for size in range(count)]
    shares = {m: torch.zeros_like(values[frozenset({m})]) for m in modalities}
    for subset in [frozenset[str](), *coalitions(modalities)]:
        if subset not in values:
            continue
        for m in modalities:
            share = weight[len(subset) - 1] if m in subset else -weight[len(subset)]
            shares[m] = shares[m] + share * values[subset]
    return shares
