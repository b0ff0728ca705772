"""SAM's inner step as a context manager, for any training loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.gradients import global_norm


@contextmanager
def ascended(params: Iterable[Tensor], grads: Sequence[Tensor | None], rho: float) -> Iterator[list[Tensor]]:
    r"""Stand at the worst point of a small ball around the weights, as SAM does.

    .. math:: w + \rho \frac{g}{\lVert g \rVert_2}

    with one norm over all parameters together. The weights come back bit for bit on leaving,
    also after an exception. A zero gradient moves nothing. Gradients must be computed inside the
    block: leaving it changes the weights in place, and autograd refuses a later backward pass.

    Example::

        grads = torch.autograd.grad(loss(model), params)
        with ascended(params, grads, rho=0.05), frozen_statistics(model):
            loss(model).backward()
        optimizer.step()

    Args:
        params: the weights to move.
        grads: one gradient per weight; None counts as zero.
        rho: radius of the ball, at least 0; 0 stays where it is.

    Yields:
        The weights as they were, in the order of ``params`` (see ``changed_fraction``).

    Source: Foret et al., Sharpness-Aware Minimization, ICLR 2021, https://arxiv.org/abs/2010.01412
    """
    number("rho", rho, low=0.0)
    params = list(params)
    if len(grads) != len(params):
        raise ValueError(f"grads must hold one gradient per parameter ({len(params)}); got {len(grads)}.")
    start = [p.detach() for p in params]
    climb = [None if g is None else g.detach() for g in grads]
    known = [g for g in climb if g is not None]
    if not known or rho == 0:
        yield start
        return
    norm = global_norm(known)
    scale = torch.where(norm > 0, rho / norm, 0.0)
    # The weights stay where they are in memory and others stand in for them: half the traffic of moving them
    # to and fro. Version counters advance by hand, as if they had been written to.
    moved = [w if g is None else torch.addcmul(w, g, scale) for w, g in zip(start, climb, strict=True)]
    try:
        _swap(params, moved)
        yield start
    finally:
        _swap(params, start)


def _swap(params: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for p, value in zip(params, values, strict=True):
        p.data = value
    torch.autograd.graph.increment_version(params)


def changed_fraction(before: Iterable[Tensor], after: Iterable[Tensor]) -> Tensor:
    """The share of scalars that differ, a 0-d tensor in [0, 1].

    A radius below the resolution of the weights' number format changes almost none of them, and
    SAM then does nothing. In float32 that happens around ``rho = 1e-8`` for ordinary weights.
    """
    pairs = list(zip(before, after, strict=True))
    total = sum(a.numel() for a, _ in pairs)
    if total == 0:
        raise ValueError("before: changed_fraction needs at least one scalar; got none.")
    return torch.stack([torch.count_nonzero(a != b) for a, b in pairs]).sum() / total
