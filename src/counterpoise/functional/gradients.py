"""Gradients as one vector: flatten, put back, compare."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """All entries in one (n,) vector, in the order given.

    Raises:
        ValueError: when there is nothing to flatten.
    """
    parts = [t.reshape(-1) for t in tensors]
    if not parts:
        raise ValueError("tensors: flatten needs at least one tensor; got none.")
    return torch.cat(parts)


def unflatten(vector: Tensor, like: Iterable[Tensor]) -> list[Tensor]:
    """The inverse of ``flatten``: pieces of ``vector`` shaped like the tensors of ``like``.

    Raises:
        ValueError: when the sizes do not add up.
    """
    like = list(like)
    total = sum(t.numel() for t in like)
    if vector.dim() != 1 or len(vector) != total:
        raise ValueError(f"vector must have shape ({total},), one entry per scalar of like; got {tuple(vector.shape)}.")
    return [part.view_as(t) for part, t in zip(vector.split([t.numel() for t in like]), like, strict=True)]


def assign(params: Iterable[nn.Parameter], gradient: Tensor | Sequence[Tensor]) -> None:
    """Set ``.grad`` of each parameter, from one flat vector or from one tensor per parameter.

    Raises:
        ValueError: when the sizes or the number of tensors do not match.
    """
    params = list(params)
    pieces = unflatten(gradient, params) if isinstance(gradient, Tensor) else list(gradient)
    if len(pieces) != len(params):
        raise ValueError(f"gradient must hold one tensor per parameter ({len(params)}); got {len(pieces)}.")
    for param, piece in zip(params, pieces, strict=True):
        param.grad = piece.detach()


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """Forward passes inside take the parameters for constants: gradients go through the module and not to it."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


def global_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all entries together, a 0-d tensor; no host synchronisation."""
    return nn.utils.get_total_norm(list(tensors), norm_type=2.0)


def cosine(a: Tensor | Iterable[Tensor], b: Tensor | Iterable[Tensor]) -> Tensor:
    """The cosine between two gradients, a 0-d tensor in [-1, 1]; 0 when either is zero.

    Each may be a tensor or a list of tensors; a list counts as one long vector.
    """
    a, b = (_unit(flatten([v] if isinstance(v, Tensor) else v)) for v in (a, b))
    return (a @ b).clamp(-1.0, 1.0)


def _unit(vector: Tensor) -> Tensor:
    """``vector`` at length 1, zero for zero; dividing by the largest entry first avoids underflow."""
    for norm in (torch.inf, 2.0):
        length = vector.norm(p=norm)
        vector = vector / torch.where(length > 0, length, 1.0)
    return vector
