import math

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.special import log_softmax, logsumexp, softmax

from counterpoise.functional import GaussianPool, fit_gaussian_pool, pooled_gaussian
from counterpoise.functional.pool_fitting import folds

torch.set_num_threads(1)


def draw(n=63, noise=(1.0, 3.0, 9.0), targets=1, seed=0, absent=0.0):
    """Experts that see the targets through noise, the second with an offset and a slope; targets; who is there."""
    g = torch.Generator().manual_seed(seed)
    y = 10 + 3 * torch.randn(n, targets, generator=g, dtype=torch.float64)
    f = torch.stack([y + a * torch.randn(n, targets, generator=g, dtype=torch.float64) for a in noise])
    if len(noise) > 1:
        f[1] = 4 + 0.5 * f[1]
    there = torch.rand(len(noise), n, generator=g) >= absent
    there[0] |= ~there.any(0)
    return f, y, there


def assert_close(a, b, atol=1e-7):
    for name in GaussianPool._fields:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-6, atol=atol, msg=name)


# -- the equations again, in NumPy and SciPy ---------------------------------------------------------------------------


def product(mu, error, w, scale, there, mean, variance):
    """By the natural parameters of Gaussians: theirs less the prior's, weighted, on top of the prior's."""
    share = w[:, None] * there / (w[:, None] * there).sum(0)
    linear = (share * (mu / error[:, None] - mean / variance)).sum(0) * scale + mean / variance
    precision = (share * (1 / error - 1 / variance)[:, None]).sum(0) * scale + 1 / variance
    return linear / precision, 1 / precision


def nll(mean, variance, y):
    return (np.log(2 * np.pi * variance) + (y - mean) ** 2 / variance) / 2


def reference(f, y, there, prior):
    """(a, b, σ², w, e^s, losses) of one target, whose mean and variance are those of ``prior``."""
    variance = prior[1]
    a, b, error, loss = [], [], [], []
    for values, rows in zip(f, there, strict=True):
        x, t, n = values[rows], y[rows], rows.sum()
        slope = (((x - x.mean()) * (t - t.mean())).sum() + 5 * variance) / (((x - x.mean()) ** 2).sum() + 5 * variance)
        offset = x.mean() + n / (n + 5) * (t.mean() - x.mean()) - slope * x.mean()
        a, b = [*a, offset], [*b, slope]
        error.append(((t - offset - slope * x) ** 2).sum() / (n - 2))
        loss.append(nll(offset + slope * x, error[-1], t).mean())
    a, b, error = map(np.array, (a, b, error))
    mu = a[:, None] + b[:, None] * f

    def objective(x):
        log_w, s = log_softmax(x), logsumexp(x)
        divergence = -np.log(len(f)) - log_w.mean()
        own = nll(*product(mu, error, np.exp(log_w), np.exp(s), there, *prior), y).mean()
        return own + (5 * divergence + s**2 / 2) / len(y)

    best = optimize.minimize(objective, np.full(len(f), -np.log(len(f))), method="BFGS", options={"gtol": 1e-9})
    return a, b, error, softmax(best.x), np.exp(logsumexp(best.x)), np.array(loss)


@pytest.mark.parametrize(
    ("samples", "noise", "absent"), [(63, (1.0, 3.0, 9.0), 0), (30, (2.0,), 0), (210, (1.0, 1.0, 2.0, 5.0), 0.3)]
)
def test_agrees_with_the_equations_by_another_solver(samples, noise, absent):
    f, y, there = draw(samples, noise, absent=absent)
    pool = fit_gaussian_pool(f, y, there)
    prior = y.mean().item(), y.var().item()
    arguments = f[..., 0].numpy(), y[:, 0].numpy(), there.numpy()
    a, b, error, w, scale, loss = reference(*arguments, prior)
    for part, number in zip((pool.offset, pool.slope, pool.error, pool.loss), (a, b, error, loss), strict=True):
        np.testing.assert_allclose(part[0].numpy(), number, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pool.weight[0].numpy(), w, rtol=0, atol=1e-6)
    np.testing.assert_allclose(pool.scale[0].numpy(), scale, rtol=0, atol=1e-5)
    # t by squared errors of samples that were left out; folds are dealt out by error within quarters of the target
    f1, y1, there1 = arguments
    quarter = torch.tensor(np.searchsorted(np.quantile(y1, [0.25, 0.5, 0.75]), y1))
    fold = folds(torch.tensor((f1 - y1) ** 2), there, quarter).numpy()
    d = np.empty(samples)
    for k in range(fold.max() + 1):
        held = fold == k
        a, b, error, w, scale, loss = reference(f1[:, ~held], y1[~held], there1[:, ~held], prior)
        mu = a[:, None] + b[:, None] * f1[:, held]
        best = np.where(there1[:, held], loss[:, None], np.inf).argmin(0)
        mean, _ = product(mu, error, w, scale, there1[:, held], *prior)
        d[held] = (mean - y1[held]) ** 2 - (mu[best, np.arange(held.sum())] - y1[held]) ** 2
    z = d.mean() / (d.std(ddof=1) / math.sqrt(samples)) if d.any() else 0.0
    assert pool.trust.item() == pytest.approx(1 / (1 + math.exp(-2 * z)), abs=1e-5)


def pool(targets=1, experts=3, **other):
    parts = {
        "low": torch.tensor(-50.0), "high": torch.tensor(50.0),
        "mean": torch.tensor(9.0), "variance": torch.tensor(7.0),
        "offset": torch.linspace(-1, 1, experts), "slope": torch.linspace(0.5, 1.5, experts),
        "error": torch.linspace(1, 4, experts), "weight": torch.arange(1, experts + 1) / sum(range(1, experts + 1)),
        "scale": torch.tensor(2.0), "loss": torch.linspace(1.5, 2, experts), "trust": torch.tensor(0.3),
    }  # fmt: skip
    return GaussianPool(**{name: torch.stack([value.double()] * targets) for name, value in (parts | other).items()})


def test_mean_and_variance_are_those_of_the_mixture():
    f, _, _ = draw(4)
    present = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [1, 0, 1, 0]]).bool()
    mean, variance = pooled_gaussian(pool(), f, present)
    p = GaussianPool(*(value[0].numpy() for value in pool()))
    mu = p.offset[:, None] + p.slope[:, None] * f[..., 0].numpy()
    q, q_variance = product(mu, p.error, p.weight, p.scale, present.numpy(), p.mean, p.variance)
    for i in range(4):
        best = int(present[:, i].nonzero()[0])  # the losses rise
        expected = 0.3 * mu[best, i] + 0.7 * q[i]
        second = 0.3 * (p.error[best] + mu[best, i] ** 2) + 0.7 * (q_variance[i] + q[i] ** 2)
        assert mean[i].item() == pytest.approx(expected)
        assert variance[i].item() == pytest.approx(second - expected**2)


def test_an_expert_that_knows_less_than_the_mean_adds_nothing():
    f, _, _ = draw(4)
    idle = pool(error=torch.tensor([1.0, 9.0, 4.0]), trust=torch.tensor(0.0))
    shifted = torch.cat([f[:1], f[1:2] + 5, f[2:]])
    for a, b in zip(pooled_gaussian(idle, f), pooled_gaussian(idle, shifted), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("wild", [math.nan, math.inf, -51.0, 6921.0])
def test_what_is_out_of_range_is_absent(wild):
    f, _, there = draw(4)
    spoilt = f.clone()
    spoilt[1, 2], there[1, 2] = wild, False
    for a, b in zip(pooled_gaussian(pool(), spoilt), pooled_gaussian(pool(), f, there), strict=True):
        torch.testing.assert_close(a, b)
    spoilt[:, 3] = wild
    mean, variance = pooled_gaussian(pool(), spoilt)
    assert (mean[3].item(), variance[3].item()) == (9, 7)


def test_a_wild_prediction_does_not_spoil_the_fit():
    f, y, there = draw(80)
    spoilt = f.clone()
    spoilt[0, ::20], there[0, ::20] = 6921.0, False
    assert_close(fit_gaussian_pool(spoilt, y), fit_gaussian_pool(f, y, there), atol=0)


def test_correlated_experts_share_one_weight_and_scale_counts_the_independent_ones():
    g = torch.Generator().manual_seed(0)
    y = torch.randn(3000, 1, generator=g, dtype=torch.float64)
    a, b = (y + torch.randn(3000, 1, generator=g, dtype=torch.float64) for _ in range(2))
    same = fit_gaussian_pool(torch.stack([a, a + 0.01 * torch.randn(3000, 1, generator=g), b]), y)
    assert same.weight[0, :2].sum() == pytest.approx(0.5, abs=0.06)
    assert fit_gaussian_pool(torch.stack([a, a]), y).scale == pytest.approx(1, abs=0.02)
    independent = fit_gaussian_pool(torch.stack([a, b]), y)
    assert independent.scale == pytest.approx(2, abs=0.1)
    mean, variance = pooled_gaussian(independent, torch.stack([a, b]))
    torch.testing.assert_close(mean, (a + b) / 3, rtol=0, atol=0.2)  # given both, y has this mean and variance 1/3
    torch.testing.assert_close(variance, torch.full_like(y, 1 / 3), rtol=0, atol=0.02)


def test_neither_order_nor_units_count():
    f, y, there = draw(80, targets=2, absent=0.2)
    fitted = fit_gaussian_pool(f, y, there)
    n, m = torch.randperm(80, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0, 1])
    assert_close(fit_gaussian_pool(f[:, n], y[n], there[:, n]), fitted)
    by_expert = {name: getattr(fitted, name)[:, m] for name in ("offset", "slope", "error", "weight", "loss")}
    assert_close(fit_gaussian_pool(f[m], y, there[m]), fitted._replace(**by_expert))
    fresh, _, _ = draw(20, targets=2, seed=5)
    mean, variance = pooled_gaussian(fitted, fresh)
    other_mean, other_variance = pooled_gaussian(fit_gaussian_pool(1000 * f - 7, 1000 * y - 7, there), 1000 * fresh - 7)
    torch.testing.assert_close(other_mean, 1000 * mean - 7, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other_variance, 1e6 * variance, rtol=1e-6, atol=1e-6)
    assert_close(fit_gaussian_pool(f[..., :1], y[:, :1], there), GaussianPool(*(value[:1] for value in fitted)), atol=0)


def test_too_little_to_go_by_averages_the_predictions():
    for samples, change in ((9, 1.0), (0, 1.0), (63, 0.0)):
        f, y, _ = draw(samples)
        fitted = fit_gaussian_pool(f, change * y)
        fresh, _, _ = draw(5, seed=3)
        mean, variance = pooled_gaussian(fitted, fresh)
        torch.testing.assert_close(mean, fresh.mean(0))
        assert (variance > 0).all()


@pytest.mark.parametrize("value", [math.nan, 6921.0, 9.0])
def test_an_expert_that_is_broken_or_constant_drops_out(value):
    f, y, there = draw()
    f[1] = value
    fitted, without = fit_gaussian_pool(f, y), fit_gaussian_pool(f[[0, 2]], y)
    assert fitted.weight[0, 1] == 0
    fresh, _, _ = draw(50, seed=8)
    for a, b in zip(pooled_gaussian(fitted, fresh), pooled_gaussian(without, fresh[[0, 2]]), strict=True):
        torch.testing.assert_close(a, b)
    assert fit_gaussian_pool(f[[1, 1]], y).weight.tolist() == [[0, 0]] or math.isnan(value)
    there[1] = torch.arange(63) < 9
    few = fit_gaussian_pool(draw()[0], y, there)
    for a, b in zip(few, fitted, strict=True):
        torch.testing.assert_close(a, b)
    know_nothing = (math.log(2 * math.pi) + few.variance.log() + 1) / 2
    assert few.loss[0, 1] == pytest.approx(know_nothing.item())
    mean, variance = pooled_gaussian(few, fresh[[1, 1, 1]], torch.tensor([[0], [1], [0]]).bool().expand(3, 50))
    torch.testing.assert_close(mean, few.mean.expand(50, 1))
    torch.testing.assert_close(variance, few.variance.expand(50, 1))


@pytest.mark.slow
def test_a_strong_expert_among_noisy_ones_is_not_lost():
    ratio = []
    for seed in range(15):
        f, y, _ = draw(63, (1.0, 9.0, 9.0, 9.0), seed=seed)
        fresh, target, _ = draw(1000, (1.0, 9.0, 9.0, 9.0), seed=1000 + seed)
        mean, _ = pooled_gaussian(fit_gaussian_pool(f, y), fresh)
        ratio.append(float(((mean - target) ** 2).mean() / ((fresh[0] - target) ** 2).mean()))
    assert np.mean(ratio) < 1.02
