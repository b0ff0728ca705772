r"""The pool: several experts as one prediction, so that the best of them is not lost.

An expert is whatever gives logits: the head of a modality, a fused prediction, another model. With logits
:math:`u_m` of expert m and C classes, in the names of ``Pool``,

.. math:: v_m = \log\bigl((1 - \epsilon)\,\mathrm{softmax}(u_m) + \epsilon / C\bigr), \qquad
          l_m = \log \mathrm{softmax}(v_m / T_m),
.. math:: q = \mathrm{softmax}\bigl(e^s \textstyle\sum_m w_m l_m + c\bigr), \qquad
          p = t\,\mathrm{softmax}(l_j) + (1 - t)\,q \quad \text{with j the best expert.}

Log-probabilities are averaged, not probabilities. The floor :math:`\epsilon` bounds what a wild input can do, and t
falls back on the best expert where it is not shown that q is better. ``pool_fitting`` fits all this.

An expert may be absent for a sample. Then the weights of the others are renormalised for this sample, and the best
expert is the best one that is there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Pool(NamedTuple):
    """A pool as plain tensors. Pools of several labels are stacked: each tensor has a first dimension of labels.

    Attributes:
        floor: () ε in [0, 1); 0 leaves probabilities as they are.
        temperature: (experts,) T > 0.
        weight: (experts,) w, at least 0, sum 1. Experts of weight 0 count only where no other is there.
        scale: () e^s > 0.
        bias: (classes,) c.
        loss: (experts,) validation loss of each l_m; the best expert has the least.
        trust: () t in [0, 1], the share of the best expert.
    """

    floor: Tensor
    temperature: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor
    loss: Tensor
    trust: Tensor

    @classmethod
    def equal(cls, experts: int, classes: int, floor: float) -> Pool:
        """The pool before a fit, in float64: the normalised mean of the log-probabilities."""
        zero, ones = torch.zeros((), dtype=torch.float64), torch.ones(experts, dtype=torch.float64)
        return cls(
            floor=zero + floor,
            temperature=ones,
            weight=ones / experts,
            scale=zero + 1,
            bias=torch.zeros(classes, dtype=torch.float64),
            loss=ones * math.log(classes),  # of an expert that knows nothing
            trust=zero.clone(),
        )


def pooled(pool: Pool, logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Log-probabilities (samples, classes) of the pool. Nothing here branches on a value, so it can be exported.

    Args:
        pool: of ``fit_pool``.
        logits: (experts, samples, classes). An expert is absent where one of its logits is infinite or NaN, unless the
            floor is 0: before the fit, a training loss must show that something is broken.
        present: (experts, samples) bool; None when every expert is there for every sample. A sample without any expert
            counts as having all of them.
    """
    there = presence(logits, present) & (logits.isfinite().all(-1) | (pool.floor == 0)[..., None, None])
    log_p = tempered(floored(logits.masked_fill(~there.unsqueeze(-1), 0), pool.floor), pool.temperature)
    log_q = (log_product(log_p, pool.weight, pool.scale, there) + pool.bias.unsqueeze(-2)).log_softmax(-1)
    log_best = (best_there(pool.loss, there).unsqueeze(-1) * log_p).sum(-3)
    trust = pool.trust[..., None, None]
    return torch.stack([trust.log() + log_best, (1 - trust).log() + log_q]).logsumexp(0)


def pooled_labels(pools: Pool, logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Logits (samples, labels) of "yes" by one pool per label.

    Args:
        pools: of ``fit_label_pools``.
        logits: (experts, samples, labels) of "yes".
        present: as for ``pooled``.
    """
    no, yes = pooled(pools, two_classes(logits), present).unbind(-1)
    return (yes - no).T


def two_classes(logits: Tensor) -> Tensor:
    """Logits (labels, experts, samples, 2) of "no" and "yes" from (experts, samples, labels) of "yes"."""
    yes = logits.movedim(-1, 0)
    return torch.stack([torch.zeros_like(yes), yes], -1)


def presence(logits: Tensor, present: Tensor | None) -> Tensor:
    """``present`` as (experts, samples) bool, with all experts for a sample that has none."""
    if present is None:
        return torch.ones_like(logits[..., 0], dtype=torch.bool)
    return present | ~present.any(-2, keepdim=True)


def floored(logits: Tensor, floor: Tensor) -> Tensor:
    """The log-probabilities v (experts, samples, classes), each at least log(ε / C)."""
    log_p = logits.log_softmax(-1)
    low = (floor.to(log_p.dtype).log() - math.log(logits.shape[-1]))[..., None, None, None]
    return torch.stack(
        [log_p + (-floor).to(log_p.dtype).log1p()[..., None, None, None], low.expand_as(log_p)]
    ).logsumexp(0)


def tempered(logits: Tensor, temperature: Tensor) -> Tensor:
    """The log-probabilities l (experts, samples, classes)."""
    return (logits / temperature[..., None, None]).log_softmax(-1)


def shares(weight: Tensor, there: Tensor) -> Tensor:
    """The weights (experts, samples) over the experts that are there; equal ones where these have weight 0."""
    mask = there.to(weight.dtype)
    weights = weight.unsqueeze(-1) * mask
    total = weights.sum(-2, keepdim=True)
    equal = mask / mask.sum(-2, keepdim=True).clamp(min=1)
    return torch.where(total > 0, weights / torch.where(total > 0, total, 1), equal)


def best_there(loss: Tensor, there: Tensor) -> Tensor:
    """One-hot (experts, samples): of the experts that are there, the one with the least loss (experts,)."""
    least = loss.unsqueeze(-1).masked_fill(~there, math.inf).argmin(-2)
    return one_hot(least, there.shape[-2]).movedim(-1, -2)


def log_product(log_p: Tensor, weight: Tensor, scale: Tensor, there: Tensor) -> Tensor:
    r""":math:`e^s \sum_m w_m l_m` (samples, classes), not normalised."""
    return scale[..., None, None] * (shares(weight, there).unsqueeze(-1) * log_p).sum(-3)
