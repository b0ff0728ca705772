"""Fits the pool of ``pooling`` on validation samples, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.functional.pooling import Pool, floored, log_product, pooled, tempered, two_classes

FLOOR = 0.01
MIN_SAMPLES = 10
"""On fewer validation samples nothing is fitted."""
PRIOR_SAMPLES = 5
"""Weights shrink as if by so many samples."""
MAX_LOG_TEMPERATURE = 3.0
"""Samples that an expert separates perfectly would send T to 0, and an expert that misleads to infinity."""


class Evidence(NamedTuple):
    """What validation samples there are to fit a pool on.

    Attributes:
        there: (experts, samples) bool: present, and all logits finite.
        broken: (experts,) number of samples that are present and have a logit that is not finite.
        constant: (experts,) bool: the same probabilities for every sample, of two or more.
        dropped: (experts,) bool: gets weight 0, as it is constant, or present and never finite.
        per_class: (classes,) number of samples with an expert that is not dropped.
    """

    there: Tensor
    broken: Tensor
    constant: Tensor
    dropped: Tensor
    per_class: Tensor

    @property
    def samples(self) -> int:
        """Number of samples that a fit can use."""
        return int(self.per_class.sum())


def evidence(logits: Tensor, target: Tensor, present: Tensor | None = None) -> Evidence:
    """What a fit has to go by; the arguments are those of ``fit_pool``."""
    if present is None:
        present = torch.ones_like(logits[..., 0], dtype=torch.bool)
    there = present & logits.isfinite().all(-1)
    count, absent = there.sum(1), ~there.unsqueeze(-1)
    log_p = logits.masked_fill(absent, 0).log_softmax(-1).masked_fill(absent, 0)
    mean = log_p.sum(1) / count.clamp(min=1).unsqueeze(1)
    spread = (log_p - mean.unsqueeze(1)).abs().masked_fill(absent, 0).sum(1).amax(1)
    broken, constant = (present & ~there).sum(1), (count > 1) & (spread < 1e-6 * count)
    dropped = constant | ((broken > 0) & (count == 0))
    per_class = torch.bincount(target[there[~dropped].any(0)], minlength=logits.shape[-1])
    return Evidence(there, broken, constant, dropped, per_class)


def fit_pool(logits: Tensor, target: Tensor, present: Tensor | None = None, prior: Pool | None = None) -> Pool:
    r"""The pool of these experts.

    With :math:`L` the mean over n samples of :math:`-\log p_y`, the floor 0.01, M experts, in this order:

    .. math:: T_m = e^{b_m}, \quad b_m = \arg\min_{|b| \le 3} L(v_m e^{-b}) + 0.01\, b^2
    .. math:: (w, s) = \arg\min L\bigl(e^s \textstyle\sum_m w_m l_m\bigr)
              + \tfrac{5}{n} KL\bigl(\tfrac1M \big\| w\bigr) + \tfrac{1}{2n} s^2
    .. math:: c = \arg\min L\bigl(e^s \textstyle\sum_m w_m l_m + c\bigr) + \tfrac{5 + 250 / n}{2n} \lVert c \rVert^2
    .. math:: j = \arg\min_m L(l_m)
    .. math:: t = \frac{1}{1 + e^{-2z}}, \quad z = \frac{\bar d}{sd(d) / \sqrt n}, \quad d = S(l_j) - S(q), \quad
              S(p) = [\arg\max p = y] + \tfrac12 \max(\log p_y, -\log C - 2),

    the last with l and q of samples that were left out in turn, in 8 folds (5 from 200 samples on). Accuracy is in S
    because the pool may forecast better and classify worse than the best expert.

    With fewer than 10 samples nothing is fitted: ``Pool.equal`` with the floor. An expert with fewer than 10 samples
    keeps T = 1 and ranks as one that knows nothing. An expert that is constant, or never finite where it is present,
    gets weight 0. A class without a sample keeps bias 0, and so does the mean of the others. ``evidence`` finds these
    cases.

    Args:
        logits: (experts, samples, classes) of one or more experts.
        target: (samples,) class numbers.
        present: (experts, samples) bool; None when every expert is there for every sample. Samples without any expert
            are left out.
        prior: a pool of the same experts: its temperatures are taken, and w and s shrink to its own instead.

    Returns:
        The pool, float64 on the CPU. It depends neither on the order of the samples nor on that of experts and classes.
    """
    with torch.inference_mode(mode=False):
        logits, target = logits.detach().cpu().double().clone(), target.detach().cpu().clone()
        seen = evidence(logits, target, None if present is None else present.detach().cpu().clone())
        pool = Pool.equal(len(logits), logits.shape[-1], FLOOR)
        if seen.samples < MIN_SAMPLES:
            return pool
        kept = ~seen.dropped
        samples = seen.there[kept].any(0)
        there, target = seen.there[kept][:, samples], target[samples]
        logits = logits[kept][:, samples].masked_fill(~there.unsqueeze(-1), 0)
        if prior is not None:
            weight = prior.weight[kept] / prior.weight[kept].sum()
            prior = prior._replace(temperature=prior.temperature[kept], weight=weight)
        fitted = _fit(logits, target, there, prior)
        return fitted._replace(
            temperature=pool.temperature.masked_scatter(kept, fitted.temperature),
            weight=torch.zeros_like(pool.weight).masked_scatter(kept, fitted.weight),
            loss=pool.loss.masked_scatter(kept, fitted.loss),
            trust=_cross_validated_trust(logits, target, there, prior),
        )


def fit_label_pools(logits: Tensor, target: Tensor, present: Tensor | None = None) -> Pool:
    """A pool of the two classes "no" and "yes" for each label, which borrow strength from each other.

    One pool is fitted first to all labels together, as if every label of a sample were a sample. Each label then takes
    its temperatures, and has weights and a scale of its own that shrink to the common ones as if by 5 samples.

    Args:
        logits: (experts, samples, labels) of "yes".
        target: (samples, labels), 0 or 1.
        present: as for ``fit_pool``.

    Returns:
        The pools of the labels, stacked.
    """
    by_label, target = two_classes(logits), target.T.long()
    repeated = None if present is None else present.repeat(1, len(target))
    common = fit_pool(by_label.transpose(0, 1).flatten(1, 2), target.flatten(), repeated)
    pools = [fit_pool(u, y, present, common) for u, y in zip(by_label, target, strict=True)]
    return Pool(*(torch.stack(values) for values in zip(*pools, strict=True)))


def _fit(logits: Tensor, target: Tensor, there: Tensor, prior: Pool | None) -> Pool:
    """Everything but t, of samples that have an expert."""
    experts, samples, classes = logits.shape
    pool = Pool.equal(experts, classes, FLOOR)
    v = floored(logits, pool.floor)
    temperature = _temperatures(v, target, there) if prior is None else prior.temperature
    log_p = tempered(v, temperature)
    towards = pool if prior is None else prior
    weight, scale = fit_weights(
        lambda w, scale: _losses(log_product(log_p, w, scale, there), target).mean(),
        samples,
        towards.weight,
        towards.scale,
    )
    bias = _bias(log_product(log_p, weight, scale, there), target)
    loss = torch.where(_enough(there), _expert_losses(log_p, target, there), pool.loss)
    return pool._replace(temperature=temperature, weight=weight, scale=scale, bias=bias, loss=loss)


def _temperatures(v: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """T (experts,)."""

    def objective(b: Tensor) -> Tensor:
        return _expert_losses(v / b.exp()[:, None, None], target, there) + 0.01 * b**2

    # Of an expert that hardly says anything, 0.01 b² and the loss have a valley each: start in the deeper one.
    grid = torch.linspace(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE, 13, dtype=v.dtype)
    values = torch.stack([objective(b.expand(len(v))) for b in grid])
    (b,) = minimise(lambda b: objective(b).sum(), grid[values.argmin(0)])
    return torch.where(_enough(there), b.clamp(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE).exp(), 1)


def fit_weights(
    loss: Callable[[Tensor, Tensor], Tensor], samples: int, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The w and e^s that minimise :math:`L + \frac5n KL(w^0 \| w) + \frac{1}{2n} (s - s^0)^2`.

    Args:
        loss: L as a function of w (experts,) and e^s ().
        samples: n.
        weight: (experts,) w⁰ > 0.
        scale: () e to the power of s⁰.
    """

    def objective(a: Tensor, s: Tensor) -> Tensor:
        log_w = a.log_softmax(0)
        divergence = (weight * (weight.log() - log_w)).sum()
        return loss(log_w.exp(), s.exp()) + (PRIOR_SAMPLES * divergence + (s - scale.log()) ** 2 / 2) / samples

    a, s = minimise(objective, weight.log(), scale.log())
    return a.softmax(0), s.exp()


def _bias(logits: Tensor, target: Tensor) -> Tensor:
    """The bias c (classes,). Classes without a sample are left out of the softmax: the others must not gain on them."""
    seen, target = target.unique(return_inverse=True)
    ridge = (PRIOR_SAMPLES + 250 / len(target)) / (2 * len(target))
    some = logits[:, seen]
    (c,) = minimise(lambda c: _losses(some + c, target).mean() + ridge * (c**2).sum(), torch.zeros_like(some[0]))
    return torch.zeros_like(logits[0]).index_copy(0, seen, c)


def _cross_validated_trust(logits: Tensor, target: Tensor, there: Tensor, prior: Pool | None) -> Tensor:
    fold = folds(_losses(floored(logits, logits.new_tensor(FLOOR)), target), there, target)
    gains = []
    for held in (fold == k for k in fold.unique()):
        pool = _fit(logits[:, ~held], target[~held], there[:, ~held], prior)
        best = pool._replace(trust=torch.ones_like(pool.trust))
        of_best, of_pool = (_score(pooled(p, logits[:, held], there[:, held]), target[held]) for p in (best, pool))
        gains.append(of_best - of_pool)
    return trust(torch.cat(gains))


def _score(log_p: Tensor, target: Tensor) -> Tensor:
    """S (samples,)."""
    low = -math.log(log_p.shape[-1]) - 2
    return (log_p.argmax(-1) == target) + 0.5 * (-_losses(log_p, target)).clamp(min=low)


def trust(gain: Tensor) -> Tensor:
    """The share t of the best expert, from d (samples,): its score less that of the pool."""
    standard_error = gain.std() / math.sqrt(len(gain))
    return torch.sigmoid(2 * gain.mean() / standard_error.clamp(min=torch.finfo(gain.dtype).tiny))


def folds(losses: Tensor, there: Tensor, stratum: Tensor) -> Tensor:
    """The numbers (samples,) of 8 folds, or of 5 from 200 samples on, with every stratum in proportion.

    Within a stratum the samples are dealt out in the order of their mean loss, and the strata in that of theirs. There
    is no random number in it, so nothing depends on a seed or on the order of the samples.

    Args:
        losses: (experts, samples).
        there: (experts, samples) bool, the losses that count; at least one of each sample.
        stratum: (samples,) int64, at least 0.
    """
    losses = losses.masked_fill(~there, 0)
    difficulty = losses.sort(0).values.sum(0) / there.sum(0)  # sorted, as sums depend on the order in their last bits
    total = torch.zeros(int(stratum.max()) + 1, dtype=losses.dtype).index_add(0, stratum, difficulty)
    of_stratum = (total / torch.bincount(stratum))[stratum]
    order = torch.arange(len(stratum))
    for key in (*losses, difficulty, of_stratum):  # from the least to the most important
        order = order[key[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % (8 if len(order) < 200 else 5)
    return fold


def minimise(objective: Callable[..., Tensor], *start: Tensor) -> list[Tensor]:
    """Where a smooth function is least, from ``start``, by L-BFGS with exact gradients."""
    arguments = [value.clone().requires_grad_() for value in start]
    solver = torch.optim.LBFGS(
        arguments, max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        value = objective(*arguments)
        for argument, gradient in zip(arguments, torch.autograd.grad(value, arguments), strict=True):
            argument.grad = gradient
        return value

    solver.step(closure)
    return [value.detach() for value in arguments]


def _losses(logits: Tensor, target: Tensor) -> Tensor:
    """-log softmax of the true class, (..., samples) of (..., samples, classes)."""
    return -logits.log_softmax(-1)[..., torch.arange(len(target)), target]


def _expert_losses(logits: Tensor, target: Tensor, there: Tensor) -> Tensor:
    """The mean loss (experts,) over the samples that each is there for, 0 when there is none."""
    return _losses(logits, target).masked_fill(~there, 0).sum(1) / there.sum(1).clamp(min=1)


def _enough(there: Tensor) -> Tensor:
    """Which experts (experts,) have enough samples to be judged."""
    return there.sum(1) >= MIN_SAMPLES
