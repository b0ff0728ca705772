"""Greedy: how fast a set of weights learns for its size, and which modality leans on the others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def conditional_speed(parameters: Iterable[nn.Parameter]) -> Tensor:
    r""":math:`\lVert g\rVert^2 / \lVert\theta\rVert^2` over a set of weights, a scalar; 0 of weights that are 0.

    Args:
        parameters: of which one without ``.grad`` has gradient 0.
    """
    grads, weights = [], []
    for p in parameters:
        weights.append(p.detach().square().sum())
        grads.append(torch.zeros_like(weights[-1]) if p.grad is None else p.grad.square().sum())
    size = torch.stack(weights).sum()
    return torch.stack(grads).sum() / torch.where(size > 0, size, torch.inf)


def leaning_most(main: Sequence[float], bypass: Sequence[float], eps: float) -> int | None:
    r"""The modality with the largest :math:`\log_{10}(A^{by}_m / A^{main}_m)` when those differ by more than ``eps``.

    Args:
        main: sums of speeds of each modality's own path.
        bypass: sums of speeds of the way that the others reach it by.
        eps: at least 0.

    Returns:
        Its place; None when they differ by no more, or while any sum is 0.

    Source: Wu et al., Characterizing and Overcoming the Greedy Nature of Learning in Multi-modal Deep Neural
    Networks, ICML 2022, https://proceedings.mlr.press/v162/wu22d.html
    """
    if min(*main, *bypass) <= 0:
        return None
    ratios = [math.log10(by / own) for own, by in zip(main, bypass, strict=True)]
    return ratios.index(max(ratios)) if max(ratios) - min(ratios) > eps else None
