r"""The pool for regression: experts that predict a number, with a Gaussian error.

With :math:`f_m` the prediction of expert m and the names of ``GaussianPool``, for each target

.. math:: \mu_m = a_m + b_m f_m, \qquad
          \lambda = e^s \sum_m \frac{w_m}{\sigma_m^2}, \qquad
          \mu = \sum_m \frac{w_m}{\sigma_m^2} \mu_m \Big/ \sum_m \frac{w_m}{\sigma_m^2}

This is the product of the densities :math:`N(\mu_m, \sigma_m^2)` to the powers :math:`e^s w_m`, as the pool of
classifiers is the product of probabilities: with equal w the experts are weighted by their precision.

The errors of experts correlate. No covariance is estimated: w and s are fitted on the loss of the combined prediction,
which contains it. Two experts that say the same share one weight, and :math:`e^s` is the number of independent experts
that all of them amount to.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.functional.pool_fitting import MIN_SAMPLES, PRIOR_SAMPLES, fit_weights, folds, trust
from counterpoise.functional.pooling import best_there, presence, shares

LEAST_VARIANCE = 1e-6
"""Of an expert's error, as a share of the variance of the target: validation samples may be met exactly."""


class GaussianPool(NamedTuple):
    """A fitted pool of predictions of numbers; plain tensors.

    Attributes:
        low: (targets,) the least prediction that is believed; one below it counts as absent.
        high: (targets,) the largest.
        mean: (targets,) mean of the validation targets, predicted for a sample without any expert.
        variance: (targets,) their variance.
        offset: (targets, experts) a, in units of the target.
        slope: (targets, experts) b.
        error: (targets, experts) σ² > 0, variance of the error of a + b f.
        weight: (targets, experts) w, at least 0, sum 1. Experts of weight 0 count only where no other is there.
        scale: (targets,) e^s > 0.
        loss: (targets, experts) mean of -log density on validation; the best expert has the least.
        trust: (targets,) t in [0, 1], the share of the best expert.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    variance: Tensor
    offset: Tensor
    slope: Tensor
    error: Tensor
    weight: Tensor
    scale: Tensor
    loss: Tensor
    trust: Tensor

    @classmethod
    def equal(cls, experts: int, target: Tensor) -> GaussianPool:
        """The pool before a fit, of one target with values (samples,), in float64: the mean of the predictions."""
        zero, ones = torch.zeros((), dtype=torch.float64), torch.ones(experts, dtype=torch.float64)
        variance = target.var() if len(target) > 1 and target.var() > 0 else zero + 1
        return cls(
            low=zero - math.inf,
            high=zero + math.inf,
            mean=target.mean() if len(target) else zero.clone(),
            variance=variance,
            offset=torch.zeros_like(ones),
            slope=ones,
            error=ones * variance,
            weight=ones / experts,
            scale=zero + 1,
            loss=ones * ((2 * math.pi * variance).log() + 1) / 2,  # of an expert that knows mean and variance alone
            trust=zero.clone(),
        )


def pooled_gaussian(pool: GaussianPool, predictions: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean and variance of the pool, each (samples, targets).

    Args:
        pool: of ``fit_gaussian_pool``.
        predictions: (experts, samples, targets). An expert is absent where its prediction is NaN or out of range.
        present: (experts, samples) bool; None when every expert is there for every sample. A sample without any expert
            counts as having all of them.
    """
    f = predictions.movedim(-1, 0)
    inside = f.isfinite() & (f >= pool.low[:, None, None]) & (f <= pool.high[:, None, None])
    there = presence(predictions, present) & inside
    mu = pool.offset.unsqueeze(-1) + pool.slope.unsqueeze(-1) * f.masked_fill(~there, 0)
    mean, variance = _product(mu, pool.error, shares(pool.weight, there), pool.scale.unsqueeze(-1))
    best = best_there(pool.loss, there)
    best_mean, best_error = (best * mu).sum(-2), (best * pool.error.unsqueeze(-1)).sum(-2)
    t = pool.trust.unsqueeze(-1)
    mixed = t * best_mean + (1 - t) * mean
    spread = t * (best_error + (best_mean - mixed) ** 2) + (1 - t) * (variance + (mean - mixed) ** 2)
    anyone = there.any(-2)
    mixed = torch.where(anyone, mixed, pool.mean.unsqueeze(-1))
    return mixed.T, torch.where(anyone, spread, pool.variance.unsqueeze(-1)).T


def _product(mu: Tensor, error: Tensor, share: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (..., samples) of the product of Gaussians; of (..., experts, samples)."""
    precision = share / error.unsqueeze(-1)
    total = precision.sum(-2)
    total = torch.where(total > 0, total, 1)
    return (precision * mu).sum(-2) / total, 1 / (scale * total)


def fit_gaussian_pool(predictions: Tensor, target: Tensor, present: Tensor | None = None) -> GaussianPool:
    r"""The pool of these experts, fitted on validation samples, each target by itself.

    A prediction that is further outside the range of the targets than this range is wide counts as absent, here and
    later: one wild input would spoil a mean.
    :math:`a, b` are least squares, shrunk towards 0 and 1 as if by 5 samples; w and s minimise the mean loss
    :math:`-\log N(y; \mu, 1/\lambda)` plus :math:`\frac{5}{n} KL(\frac1M \| w) + \frac{s^2}{2n}`; t is the fallback
    of ``fit_pool`` with the negative squared error as the score.

    With fewer than 10 samples, or one value in all of them, nothing is fitted and the predictions are averaged. An
    expert with fewer than 10 samples keeps a = 0, b = 1 and the variance of the target. An expert that is constant, or
    never in range where it is present, gets weight 0.

    Args:
        predictions: (experts, samples, targets), at least one expert, in the units of the target.
        target: (samples, targets).
        present: (experts, samples) bool or None. Samples without any expert are left out.

    Returns:
        float64 on the CPU.
    """
    with torch.inference_mode(mode=False):
        predictions, target = (values.detach().cpu().double().clone() for values in (predictions, target))
        if present is None:
            present = torch.ones(predictions.shape[:2], dtype=torch.bool)
        there = present.detach().cpu().clone()
        pools = [_fit_target(f, y, there) for f, y in zip(predictions.unbind(-1), target.unbind(-1), strict=True)]
        return GaussianPool(*(torch.stack(values) for values in zip(*pools, strict=True)))


def _fit_target(f: Tensor, y: Tensor, present: Tensor) -> GaussianPool:
    """Of one target: (experts, samples) predictions and (samples,) values."""
    some = (present & f.isfinite()).any(0)
    f, y, present = f[:, some], y[some], present[:, some]
    pool = GaussianPool.equal(len(f), y)
    if len(y) < MIN_SAMPLES or y.max() == y.min():
        return pool
    width = y.max() - y.min()
    pool = pool._replace(low=y.min() - width, high=y.max() + width)
    there = present & (f >= pool.low) & (f <= pool.high)
    spread = f.masked_fill(~there, -math.inf).amax(1) - f.masked_fill(~there, math.inf).amin(1)
    kept = ~((there.sum(1) > 1) & (spread < 1e-6 * width) | (present.any(1) & ~there.any(1)))
    rows = there[kept].any(0)
    if rows.sum() < MIN_SAMPLES:
        return pool
    there, y = there[kept][:, rows], y[rows]
    f = f[kept][:, rows].masked_fill(~there, 0)
    fitted = _fit(f, y, there, pool)
    full = {
        name: getattr(pool, name).masked_scatter(kept, getattr(fitted, name))
        for name in ("offset", "slope", "error", "loss")
    }
    weight = torch.zeros_like(pool.weight).masked_scatter(kept, fitted.weight)
    return fitted._replace(**full, weight=weight, trust=_trust(f, y, there, pool))


def _fit(f: Tensor, y: Tensor, there: Tensor, pool: GaussianPool) -> GaussianPool:
    """``pool`` with everything fitted but ``trust``, of samples that have an expert."""
    count = there.sum(1)
    enough = count >= MIN_SAMPLES
    mask, n = there.to(f.dtype), count.clamp(min=1)
    f_mean, y_mean = (mask * f).sum(1) / n, (mask * y).sum(1) / n
    df, dy = mask * (f - f_mean.unsqueeze(1)), mask * (y - y_mean.unsqueeze(1))
    prior = PRIOR_SAMPLES * pool.variance
    slope = ((df * dy).sum(1) + prior) / ((df**2).sum(1) + prior)
    offset = f_mean + n / (n + PRIOR_SAMPLES) * (y_mean - f_mean) - slope * f_mean
    residual = mask * (y - offset.unsqueeze(1) - slope.unsqueeze(1) * f)
    error = ((residual**2).sum(1) / (n - 2).clamp(min=1)).clamp(min=LEAST_VARIANCE * pool.variance)
    slope, offset = torch.where(enough, slope, 1), torch.where(enough, offset, 0)
    error = torch.where(enough, error, pool.variance)
    mu = offset.unsqueeze(1) + slope.unsqueeze(1) * f
    own = (mask * _losses(mu, error.unsqueeze(1), y)).sum(1) / n
    equal = torch.full_like(slope, 1 / len(f))
    weight, scale = fit_weights(
        lambda w, scale: _losses(*_product(mu, error, shares(w, there), scale), y).mean(), len(y), equal, pool.scale
    )
    unknown = ((2 * math.pi * pool.variance).log() + 1) / 2
    loss = torch.where(enough, own, unknown)
    return pool._replace(offset=offset, slope=slope, error=error, weight=weight, scale=scale, loss=loss)


def _losses(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """-log density of y."""
    return ((2 * math.pi * variance).log() + (y - mean) ** 2 / variance) / 2


def _trust(f: Tensor, y: Tensor, there: Tensor, pool: GaussianPool) -> Tensor:
    """The share t of the best expert, by predictions of samples that were left out."""
    errors = ((f - y) ** 2).masked_fill(~there, 0).sort(0).values.sum(0) / there.sum(0)
    quarter = torch.bucketize(y, y.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=y.dtype)))
    fold, gains = folds(errors, quarter), []
    for k in fold.unique():
        held = fold == k
        fitted = _fit(f[:, ~held], y[~held], there[:, ~held], pool)
        best = fitted._replace(trust=torch.ones_like(fitted.trust))
        of_best, of_pool = (_squared_errors(p, f[:, held], y[held], there[:, held]) for p in (best, fitted))
        gains.append(of_pool - of_best)
    return trust(torch.cat(gains))


def _squared_errors(pool: GaussianPool, f: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """(samples,) of a pool of one target."""
    one_target = GaussianPool(*(value.unsqueeze(0) for value in pool))
    return (pooled_gaussian(one_target, f.unsqueeze(-1), there)[0].squeeze(-1) - y) ** 2
