r"""The pool for regression: experts that predict a number, each with a Gaussian error.

With :math:`f_m` the prediction of expert m and the names of ``GaussianPool``, for each target

.. math:: \mu_m = a_m + b_m f_m, \qquad
          \lambda = \frac{1}{\sigma^2} + e^s \sum_m w_m \Bigl(\frac{1}{\sigma_m^2} - \frac{1}{\sigma^2}\Bigr), \qquad
          \mu = \bar y + \frac{e^s}{\lambda} \sum_m w_m \frac{\mu_m - \bar y}{\sigma_m^2}.

This is the density of the targets, :math:`N(\bar y, \sigma^2)`, times what each expert adds to it,
:math:`N(\mu_m, \sigma_m^2) / N(\bar y, \sigma^2)`, to the power :math:`e^s w_m`: the pool of classifiers for numbers.
An expert is weighted by the precision that it adds, so one that knows nothing does not pull the others to the mean, and
with :math:`e^s w_m = 1` the pool is exact for independent errors.

Errors do correlate. No covariance is estimated for it: w and s are fitted on the loss of the combined prediction, which
contains it. Two experts that say the same share one weight, and :math:`e^s` is the number of independent experts that
all of them amount to.
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
        mean: (targets,) ȳ, also predicted for a sample without any expert.
        variance: (targets,) σ² of the targets; infinite before the fit.
        offset: (targets, experts) a, in units of the target.
        slope: (targets, experts) b.
        error: (targets, experts) σ_m² > 0, variance of the error of a + b f.
        weight: (targets, experts) w, at least 0, sum 1.
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
    def equal(cls, experts: int) -> GaussianPool:
        """The pool of one target before a fit, in float64: the mean of the predictions, with a variance of 1."""
        zero, ones = torch.zeros((), dtype=torch.float64), torch.ones(experts, dtype=torch.float64)
        return cls(
            low=zero - math.inf,
            high=zero + math.inf,
            mean=zero.clone(),
            variance=zero + math.inf,
            offset=torch.zeros_like(ones),
            slope=ones,
            error=ones.clone(),
            weight=ones / experts,
            scale=zero + 1,
            loss=torch.zeros_like(ones),
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
    in_range = f.isfinite() & (f >= pool.low[:, None, None]) & (f <= pool.high[:, None, None])
    there = presence(predictions, present) & in_range
    mu = pool.offset.unsqueeze(-1) + pool.slope.unsqueeze(-1) * f.masked_fill(~there, 0)
    mean, variance = _product(pool, mu, shares(pool.weight, there), pool.scale)
    best = best_there(pool.loss, there)
    best_mean, best_error = (best * mu).sum(-2), (best * pool.error.unsqueeze(-1)).sum(-2)
    t = pool.trust.unsqueeze(-1)
    mixed = t * best_mean + (1 - t) * mean
    spread = t * (best_error + (best_mean - mixed) ** 2) + (1 - t) * (variance + (mean - mixed) ** 2)
    anyone = there.any(-2)
    mixed = torch.where(anyone, mixed, pool.mean.unsqueeze(-1))
    return mixed.T, torch.where(anyone, spread, pool.variance.unsqueeze(-1)).T


def _product(pool: GaussianPool, mu: Tensor, share: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (..., samples) from what the experts say and their shares, (..., experts, samples)."""
    prior, own = 1 / pool.variance.unsqueeze(-1), 1 / pool.error
    added = (own - prior).clamp(min=0)
    own = own * (added > 0)  # one that is worse than the mean of the targets adds nothing
    precision = prior + scale.unsqueeze(-1) * (share * added.unsqueeze(-1)).sum(-2)
    precision = torch.where(precision > 0, precision, 1)
    deviation = (share * own.unsqueeze(-1) * (mu - pool.mean[..., None, None])).sum(-2)
    return pool.mean.unsqueeze(-1) + scale.unsqueeze(-1) * deviation / precision, 1 / precision


def fit_gaussian_pool(predictions: Tensor, target: Tensor, present: Tensor | None = None) -> GaussianPool:
    r"""The pool of these experts, fitted on validation samples, each target by itself.

    A prediction that is further outside the range of the targets than this range is wide counts as absent, here and
    later: one wild input would spoil a mean. :math:`a, b` are least squares, shrunk towards 0 and 1 as if by 5 samples;
    w and s minimise the mean loss :math:`-\log N(y; \mu, 1/\lambda)` plus
    :math:`\frac{5}{n} KL(\frac1M \| w) + \frac{s^2}{2n}`; t is the fallback of ``fit_pool`` with the negative squared
    error as the score.

    With fewer than 10 samples, or one value in all of them, nothing is fitted and the predictions are averaged. An
    expert that is constant, or has fewer than 10 samples in range, gets weight 0 and counts as one that predicts the
    mean of the targets.

    Args:
        predictions: (experts, samples, targets), at least one expert, in the units of the target.
        target: (samples, targets).
        present: (experts, samples) bool or None. Samples without any expert are left out.

    Returns:
        The pool, float64 on the CPU. It depends neither on the order of the samples nor on that of experts and targets.
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
    pool = GaussianPool.equal(len(f))
    if len(y) < MIN_SAMPLES or y.max() == y.min():
        return pool
    width, variance = y.max() - y.min(), y.var()
    pool = pool._replace(low=y.min() - width, high=y.max() + width, mean=y.mean(), variance=variance)
    there = present & (f >= pool.low) & (f <= pool.high)
    spread = f.masked_fill(~there, -math.inf).amax(1) - f.masked_fill(~there, math.inf).amin(1)
    kept = (there.sum(1) >= MIN_SAMPLES) & (spread > 1e-6 * width)
    idle = torch.ones_like(pool.error)
    pool = pool._replace(offset=idle * pool.mean, slope=0 * idle, error=idle * variance, weight=0 * idle)
    pool = pool._replace(loss=_losses(pool.mean, pool.error, pool.mean) + 0.5)  # of the mean and variance alone
    if not kept.any():
        return pool
    samples = there[kept].any(0)
    there, y = there[kept][:, samples], y[samples]
    f = f[kept][:, samples].masked_fill(~there, 0)
    fitted = _fit(f, y, there, pool)
    of_experts = {
        name: getattr(pool, name).masked_scatter(kept, getattr(fitted, name))
        for name in ("offset", "slope", "error", "weight", "loss")
    }
    return fitted._replace(**of_experts, trust=_cross_validated_trust(f, y, there, pool))


def _fit(f: Tensor, y: Tensor, there: Tensor, pool: GaussianPool) -> GaussianPool:
    """``pool`` with everything fitted but t, of samples that have an expert."""
    mask = there.to(f.dtype)
    n = mask.sum(1).clamp(min=1)
    f_mean, y_mean = (mask * f).sum(1) / n, (mask * y).sum(1) / n
    df, dy = mask * (f - f_mean.unsqueeze(1)), mask * (y - y_mean.unsqueeze(1))
    prior = PRIOR_SAMPLES * pool.variance
    slope = ((df * dy).sum(1) + prior) / ((df**2).sum(1) + prior)
    offset = f_mean + n / (n + PRIOR_SAMPLES) * (y_mean - f_mean) - slope * f_mean
    mu = offset.unsqueeze(1) + slope.unsqueeze(1) * f
    error = (mask * (y - mu) ** 2).sum(1) / (n - 2).clamp(min=1)
    pool = pool._replace(offset=offset, slope=slope, error=error.clamp(min=LEAST_VARIANCE * pool.variance))
    loss = (mask * _losses(mu, pool.error.unsqueeze(1), y)).sum(1) / n
    weight, scale = fit_weights(
        lambda w, scale: _losses(*_product(pool, mu, shares(w, there), scale), y).mean(),
        len(y),
        torch.full_like(slope, 1 / len(f)),
        pool.scale,
    )
    return pool._replace(weight=weight, scale=scale, loss=loss)


def _losses(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    """-log density of y."""
    return ((2 * math.pi * variance).log() + (y - mean) ** 2 / variance) / 2


def _cross_validated_trust(f: Tensor, y: Tensor, there: Tensor, pool: GaussianPool) -> Tensor:
    quarter = torch.bucketize(y, y.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=y.dtype)))
    fold, gains = folds((f - y) ** 2, there, quarter), []
    for held in (fold == k for k in fold.unique()):
        fitted = _fit(f[:, ~held], y[~held], there[:, ~held], pool)
        best = fitted._replace(trust=torch.ones_like(fitted.trust))
        of_best, of_pool = (_squared_errors(p, f[:, held], y[held], there[:, held]) for p in (best, fitted))
        gains.append(of_pool - of_best)
    return trust(torch.cat(gains))


def _squared_errors(pool: GaussianPool, f: Tensor, y: Tensor, there: Tensor) -> Tensor:
    """The squared errors (samples,) of a pool of one target."""
    one_target = GaussianPool(*(value.unsqueeze(0) for value in pool))
    return (pooled_gaussian(one_target, f.unsqueeze(-1), there)[0].squeeze(-1) - y) ** 2
