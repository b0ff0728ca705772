"""Curvature of a loss at the present weights: eigenvalues, trace, and the sharpness that SAM minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise.analysis.objective import Loss, gradient, summands, value
from counterpoise.functional.gradients import flatten, global_norm, unflatten
from counterpoise.functional.perturb import ascended


@dataclass(frozen=True)
class Eigenvalues:
    """The largest eigenvalues of a Hessian.

    Attributes:
        values: (k,) largest first (by value, not by magnitude).
        residuals: (k,) norms of ``H v - value v``: each value is that near to an eigenvalue, apart from the
            rounding of the products (float32: about 1e-6 of the largest).
        lowest: the smallest one met; clearly below 0 means a saddle. Less exact than the others.
        steps: products with the Hessian.
    """

    values: np.ndarray
    residuals: np.ndarray
    lowest: float
    steps: int


@dataclass(frozen=True)
class Trace:
    """Hutchinson's estimate of the trace of a Hessian.

    Attributes:
        estimates: (samples,) one per random vector.
        dimension: scalars the Hessian is over.
    """

    estimates: np.ndarray
    dimension: int

    @property
    def mean(self) -> float:
        """The estimate."""
        return float(self.estimates.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean; nan with one sample."""
        n = len(self.estimates)
        return float(self.estimates.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


@dataclass(frozen=True)
class Sharpness:
    """How much the loss rises within a ball around the weights.

    Attributes:
        rho: radius of the ball.
        loss: at the weights.
        perturbed: at the point SAM climbs to.
    """

    rho: float
    loss: float
    perturbed: float

    @property
    def increase(self) -> float:
        """Rise of the loss: the sharpness."""
        return self.perturbed - self.loss


def hessian_product(loss: Loss, params: Sequence[Tensor], vector: Tensor) -> Tensor:
    """The Hessian at the present weights times a flat vector (n,); zero for weights the loss does not use."""
    pieces = unflatten(vector, params)
    total = torch.zeros_like(vector)
    with torch.enable_grad(), summands(loss) as parts:
        for part in parts:
            grads = torch.autograd.grad(part, params, create_graph=True, allow_unused=True, materialize_grads=True)
            inner = torch.stack([(g * v).sum() for g, v in zip(grads, pieces, strict=True)]).sum()
            if not inner.requires_grad:  # a loss that is linear in the weights
                continue
            products = torch.autograd.grad(inner, params, allow_unused=True, materialize_grads=True)
            total += flatten(products)
    return total


def top_eigenvalues(
    loss: Loss,
    params: Sequence[Tensor],
    k: int = 5,
    *,
    steps: int = 60,
    tolerance: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Eigenvalues:
    """The k largest eigenvalues of the Hessian, by Lanczos with full reorthogonalisation.

    Memory for ``steps`` vectors as long as the weights. An eigenvalue that occurs several times is found once,
    unless ``steps`` reaches the number of weights, where the result is exact.

    Args:
        loss: for example a ``SplitLoss``; with ``double=True`` for residuals below about 1e-4 of the largest value.
        params: the weights.
        k: how many, at least 1; at most the number of weights are returned.
        steps: most products with the Hessian, at least k.
        tolerance: stop when all residuals are below this share of the largest magnitude, >= 0.
        seed: of the start vector.
        progress: called with (steps done, most steps).

    Raises:
        FloatingPointError: when the Hessian holds NaN or infinity.
    """
    whole("k", k, low=1)
    whole("steps", steps, low=k)
    number("tolerance", tolerance, low=0)
    size = sum(p.numel() for p in params)
    steps, k = min(steps, size), min(k, size)
    generator = torch.Generator().manual_seed(seed)
    like = params[0].detach()
    basis = like.new_empty(steps, size)
    diagonal, beside, vector = np.zeros(steps), np.zeros(steps), _start(basis[:0], generator)
    for j in range(steps):
        basis[j] = vector
        product = hessian_product(loss, params, vector)
        diagonal[j] = float(vector @ product)
        if not np.isfinite(diagonal[j]):
            raise FloatingPointError("The Hessian holds NaN or infinity at these weights.")
        vector = _orthogonal(product, basis[: j + 1])
        beside[j] = float(vector.norm())
        scale = float(product.norm())
        # What is left at the level of rounding has no direction: the vectors so far span an invariant space.
        exhausted = beside[j] <= max(scale, 1.0) * torch.finfo(like.dtype).eps * size**0.5
        if exhausted:
            beside[j] = 0.0
        ritz, vectors = _ritz(diagonal[: j + 1], beside[:j])
        count = min(k, j + 1)
        residuals = np.abs(beside[j] * vectors[-1, :count])
        if progress is not None:
            progress(j + 1, steps)
        # A first invariant space may miss large eigenvalues whose vectors the start did not touch: go on there.
        done = count == k and not exhausted and (residuals <= tolerance * np.abs(ritz).max()).all()
        if done or j + 1 == steps:
            return Eigenvalues(ritz[:count], residuals, float(ritz[-1]), j + 1)
        vector = _start(basis[: j + 1], generator) if exhausted else vector / beside[j]
    raise AssertionError("unreachable: the last step returns")


def trace(
    loss: Loss,
    params: Sequence[Tensor],
    *,
    samples: int = 32,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    r"""Hutchinson's estimate :math:`\operatorname{tr} H \approx \frac1n \sum_i v_i^\top H v_i`, v of random signs.

    Args:
        loss: for example a ``SplitLoss``.
        params: the weights.
        samples: n, at least 1.
        seed: of the signs.
        progress: called with (samples done, samples).
    """
    whole("samples", samples, low=1)
    generator = torch.Generator().manual_seed(seed)
    size = sum(p.numel() for p in params)
    estimates = np.empty(samples)
    for i in range(samples):
        signs = torch.randint(0, 2, (size,), generator=generator).mul(2).sub(1).to(params[0].dtype).to(params[0].device)
        estimates[i] = float(signs @ hessian_product(loss, params, signs))
        if progress is not None:
            progress(i + 1, samples)
    return Trace(estimates, size)


def sam_sharpness(loss: Loss, params: Sequence[Tensor], rho: float = 0.05) -> Sharpness:
    r"""The rise of the loss at SAM's one-step answer to "where within the radius is it worst".

    .. math:: \max_{\lVert\epsilon\rVert_2 \le \rho} L(w + \epsilon) - L(w) \approx
        L\Bigl(w + \rho \frac{g}{\lVert g \rVert_2}\Bigr) - L(w), \qquad g = \nabla L(w)

    The weights come back bit for bit. At a stationary point, where the gradient is zero, the rise is 0.

    Args:
        loss: for example a ``SplitLoss``.
        params: the weights w.
        rho: radius, at least 0.

    Source: Foret et al., Sharpness-Aware Minimization, ICLR 2021, https://arxiv.org/abs/2010.01412
    """
    before = value(loss)
    with ascended(params, gradient(loss, params), rho):
        return Sharpness(rho, before, value(loss))


def gradient_norm(loss: Loss, params: Sequence[Tensor]) -> float:
    """Length of the gradient at the present weights: how far from stationary they are."""
    return float(global_norm(gradient(loss, params)))


def _start(basis: Tensor, generator: torch.Generator) -> Tensor:
    """A random unit vector orthogonal to the rows of ``basis``."""
    vector = torch.randn(basis.shape[1], generator=generator, dtype=basis.dtype).to(basis.device)
    vector = _orthogonal(vector, basis)
    return vector / vector.norm()


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """``vector`` without its part in the rows of ``basis``; twice, since once leaves rounding behind."""
    for _ in range(2):
        vector = vector - basis.mT @ (basis @ vector)
    return vector


def _ritz(diagonal: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric tridiagonal matrix, largest first, and its eigenvectors in columns."""
    values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
    return values[::-1], vectors[:, ::-1]
