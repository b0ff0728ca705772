"""Class prototypes of one modality's features: their distances, their update, and what PMR makes of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.functional.modulation import TINY

FAR = 1e9
"""Distance given to the prototype of a class that was never seen: its probability is 0."""


def prototype_distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Euclidean distances (not squared), (batch, classes); the gradient at distance zero is zero.

    Args:
        features: (batch, dim).
        prototypes: (classes, dim).
    """
    # The matrix-product shortcut of cdist loses digits for near points.
    return torch.cdist(features, prototypes, compute_mode="donot_use_mm_for_euclid_dist")


def prototype_logits(features: Tensor, prototypes: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""Minus the distances, (batch, classes): their softmax is PMR's :math:`q(k|x)` (eq. 7).

    Args:
        features: (batch, dim).
        prototypes: (classes, dim).
        seen: (classes,) bool, False for classes that have no prototype yet; they get probability 0.
    """
    logits = -prototype_distances(features, prototypes)
    return logits if seen is None else logits.masked_fill(~seen, -FAR)


def entropy(logits: Tensor) -> Tensor:
    """(batch,) Shannon entropy of the softmax, in nats."""
    log_q = logits.log_softmax(1)
    return -(log_q.exp() * log_q).sum(1)


def class_sums(features: Tensor, target: Tensor, num_classes: int, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of the features of each class (classes, dim), and how many there were (classes,).

    Args:
        features: (batch, dim).
        target: (batch,) class numbers.
        num_classes: number of classes.
        rows: (batch,) bool, the samples that count; None for all.
    """
    # A matrix product and not index_add, whose sums on a GPU differ from run to run.
    member = F.one_hot(target, num_classes).to(features.dtype)
    if rows is not None:
        member = member * rows.to(features.dtype).unsqueeze(1)
    return member.T @ features, member.sum(0)


def merge_prototypes(old: Tensor, seen: Tensor, sums: Tensor, counts: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    r"""New prototypes and who has one: :math:`c \leftarrow \epsilon\,c_{old} + (1 - \epsilon)\,c_{new}` (eq. 12).

    A class without samples keeps its prototype; one that had none takes the new mean as it is.

    Args:
        old: (classes, dim).
        seen: (classes,) bool, which rows of ``old`` are prototypes.
        sums: (classes, dim) and
        counts: (classes,) from ``class_sums``.
        momentum: :math:`\epsilon` in [0, 1]: 0 keeps the newest means only, 1 the first ones.
    """
    new = sums / counts.clamp(min=1).unsqueeze(1)
    merged = torch.where(seen.unsqueeze(1), momentum * old + (1 - momentum) * new, new)
    here = counts > 0
    return torch.where(here.unsqueeze(1), merged, old), seen | here


def pmr_coefficients(scores: Tensor, rule: str = "clip") -> tuple[Tensor, Tensor]:
    r"""Weights of the prototype losses and of the entropies, (M,) each, in [0, 1].

    .. math:: \beta_m = \mathrm{clip}(s_{max}/s_m - 1, 0, 1), \qquad \gamma_m = \mathrm{clip}(s_m/s_{min} - 1, 0, 1)

    At M = 2 these are eq. 11 and 13: only the weaker modality has :math:`\beta > 0`, only the stronger
    :math:`\gamma > 0`.

    Args:
        scores: (M,) summed or mean true-class probabilities under the prototypes, not negative.
        rule: ``"clip"`` is the paper's; ``"switch"`` is the released code's: 1 for every modality behind the
            best, 0 for the best, and no entropies.

    Returns:
        :math:`\beta` and :math:`\gamma`.

    Raises:
        ValueError: for another rule.

    Reference:
        Fan et al. PMR: Prototypical Modal Rebalance for Multimodal Learning. CVPR 2023.
    """
    if rule == "switch":
        return (scores < scores.max()).to(scores.dtype), torch.zeros_like(scores)
    if rule == "clip":
        beta = (scores.max() / scores.clamp(min=TINY) - 1).clamp(0, 1)
        return beta, (scores / scores.min().clamp(min=TINY) - 1).clamp(0, 1)
    raise ValueError(f"rule must be 'clip' or 'switch'; got {rule!r}.")


def stratified(target: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Positions of a random part of the samples: of each class this fraction, rounded, and at least one.

    Args:
        target: (n,) class numbers, on the CPU.
        fraction: in (0, 1].
        generator: on the CPU.

    Returns:
        Positions, grouped by class, int64.
    """
    order = torch.randperm(len(target), generator=generator)
    order = order[target[order].argsort(stable=True)]
    _, counts = target[order].unique_consecutive(return_counts=True)
    quota = (counts * fraction).round().clamp(min=1)
    rank = torch.arange(len(order)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    return order[rank < quota.repeat_interleave(counts)]
