"""The pool from its equations, in NumPy and SciPy: another parametrisation, other solvers, one sample set at a time."""

from __future__ import annotations

import numpy as np
from scipy import optimize
from scipy.special import expit, log_softmax, logsumexp, softmax


def fit(u, y, there=None, fallback=True):
    """(T, w, e^s, c, losses, t) of logits u (experts, samples, classes); ``there`` (experts, samples)."""
    there = np.ones(u.shape[:2], bool) if there is None else there
    v = np.log(0.99 * softmax(u, axis=-1) + 0.01 / u.shape[-1])
    T = np.array([temperature(v[m][there[m]], y[there[m]]) for m in range(len(u))])
    log_p = log_softmax(v / T[:, None, None], axis=-1)
    w, scale = weights(log_p, y, there)
    c = bias(combined(log_p, w, scale, there), y)
    losses = np.array([-log_p[m][there[m], y[there[m]]].mean() for m in range(len(u))])
    t = trust(u, v, y, there) if fallback else 0.0
    return T, w, scale, c, losses, t


def predict(pool, u, there=None):
    """Probabilities (samples, classes)."""
    there = np.ones(u.shape[:2], bool) if there is None else there
    T, w, scale, c, losses, t = pool
    log_p = log_softmax(np.log(0.99 * softmax(u, axis=-1) + 0.01 / u.shape[-1]) / T[:, None, None], axis=-1)
    q = softmax(combined(log_p, w, scale, there) + c, axis=-1)
    best = np.where(there, losses[:, None], np.inf).argmin(0)
    return t * np.exp(log_p[best, np.arange(u.shape[1])]) + (1 - t) * q


def temperature(v, y):
    """exp(b), by the zeros of the derivative."""

    def objective(b):
        return -log_softmax(v * np.exp(-b), axis=-1)[np.arange(len(y)), y].mean() + 0.01 * b**2

    def slope(b):
        expected = (softmax(v * np.exp(-b), axis=-1) * v).sum(-1)
        return -np.exp(-b) * (expected - v[np.arange(len(y)), y]).mean() + 0.02 * b

    grid = np.linspace(-3, 3, 61)
    slopes = [slope(b) for b in grid]
    zeros = [
        optimize.brentq(slope, a, b, xtol=1e-14)
        for a, b, left, right in zip(grid, grid[1:], slopes, slopes[1:], strict=False)
        if left < 0 <= right
    ]
    return np.exp(min([*zeros, -3.0, 3.0], key=objective))


def combined(log_p, w, scale, there):
    share = w[:, None] * there
    return scale * np.einsum("mn,mnc->nc", share / share.sum(0), log_p)


def weights(log_p, y, there):
    """(w, e^s) in the coordinates x = log(e^s w), first by BFGS, then as the zero of the gradient."""
    n = len(y)

    def objective(x):
        log_w, s = log_softmax(x), logsumexp(x)
        q = log_softmax(combined(log_p, np.exp(log_w), np.exp(s), there), axis=-1)
        return -q[np.arange(n), y].mean() + 5 / n * (-np.log(len(log_p)) - log_w.mean()) + s**2 / (2 * n)

    def gradient(x):
        w, s = softmax(x), logsumexp(x)
        share = w[:, None] * there
        share = share / share.sum(0)
        z = combined(log_p, w, np.exp(s), there)
        residual = (softmax(z, axis=-1) - np.eye(log_p.shape[-1])[y]) / n
        along = np.exp(s) * np.einsum("nc,mnc->mn", residual, log_p)  # of each expert's term per unit of share
        of_shares = share * (along - (share * along).sum(0)) * there
        total = (residual * z).sum()
        return of_shares.sum(1) + 5 / n * (w - 1 / len(log_p)) + w * (total + s / n)

    near = optimize.minimize(objective, np.full(len(log_p), -np.log(len(log_p))), jac=gradient, method="BFGS")
    x = optimize.root(gradient, near.x, method="hybr", tol=1e-14).x
    assert objective(x) <= near.fun + 1e-12
    return softmax(x), np.exp(logsumexp(x))


def bias(z, y):
    """c by Newton's method, over the classes that occur."""
    seen, place = np.unique(y, return_inverse=True)
    n, ridge, c = len(y), (5 + 250 / len(y)) / len(y), np.zeros(len(seen))
    for _ in range(50):
        q = softmax(z[:, seen] + c, axis=-1)
        gradient = (q - np.eye(len(seen))[place]).mean(0) + ridge * c
        hessian = (np.diag(q.sum(0)) - q.T @ q) / n + ridge * np.eye(len(seen))
        c = c - np.linalg.solve(hessian, gradient)
    whole = np.zeros(z.shape[1])
    whole[seen] = c
    return whole


def trust(u, v, y, there):
    """t of the best expert."""
    n, C = len(y), u.shape[-1]
    own = np.where(there, -v[:, np.arange(n), y], 0)
    difficulty = own.sum(0) / there.sum(0)
    mean = np.array([difficulty[y == k].mean() if (y == k).any() else 0 for k in range(C)])
    fold = np.empty(n, int)
    fold[np.lexsort((difficulty, mean[y]))] = np.arange(n) % (8 if n < 200 else 5)

    def score(p, target):
        own = np.log(p[np.arange(len(target)), target])
        return (p.argmax(-1) == target) + 0.5 * np.maximum(own, -np.log(C) - 2)

    d = []
    for k in range(fold.max() + 1):
        held = fold == k
        *pool, _ = fit(u[:, ~held], y[~held], there[:, ~held], fallback=False)
        best, q = (predict((*pool, t), u[:, held], there[:, held]) for t in (1, 0))
        d.append(score(best, y[held]) - score(q, y[held]))
    d = np.concatenate(d)
    return expit(2 * d.mean() / (d.std(ddof=1) / np.sqrt(n)))
