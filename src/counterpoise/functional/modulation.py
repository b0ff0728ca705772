"""Who leads in a batch, and what each method makes of it: coefficients, rates and gradient noise.

Scores, ratios and coefficients of all modalities travel as one (modalities,) tensor, in model order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-8
"""Smallest true-class probability that a log-score sees."""
TINY = 1e-12
"""Smallest score that is divided by: zero scores give large finite ratios, and 0 / 0 gives 0."""
LARGEST_EXPONENT = 80.0
"""exp of it is still finite in float32."""


def true_probability(logits: Tensor, target: Tensor) -> Tensor:
    """(batch,) softmax probability of the true class, from (batch, classes) logits."""
    return logits.softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)


def floored(losses: Tensor) -> Tensor:
    """(batch,) minus log-likelihoods of the targets, which are floored at 1e-8: at most 18.43."""
    return losses.clamp(max=-math.log(FLOOR))


def _pairs(scores: Tensor) -> Tensor:
    """(M, M) ratios s_m / s_j."""
    return scores.unsqueeze(1) / scores.clamp(min=TINY).unsqueeze(0)


def ogm_ratios(scores: Tensor, rule: str = "mean") -> Tensor:
    r"""How far each modality is ahead: :math:`\rho_m`, (M,), above 1 for who leads.

    With two modalities both rules act as the paper's :math:`\rho_m = s_m / s_{other}`.

    Args:
        scores: (M,) summed or mean true-class probabilities, not negative.
        rule: ``"mean"`` averages :math:`s_m / s_j` over the others (what the authors suggest for M > 2);
            ``"weakest"`` takes :math:`s_m / \min_j s_j`, which is 1 for the weakest.

    Raises:
        ValueError: for another rule.
    """
    if rule == "mean":
        others = 1 - torch.eye(len(scores), dtype=scores.dtype, device=scores.device)
        return (_pairs(scores) * others).sum(1) / max(len(scores) - 1, 1)
    if rule == "weakest":
        return scores / scores.min().clamp(min=TINY)
    raise ValueError(f"rule must be 'mean' or 'weakest'; got {rule!r}.")


def ogm_coefficients(ratios: Tensor, alpha: float) -> Tensor:
    r"""Gradient coefficients of OGM: :math:`k_m = 1 - \tanh(\alpha \rho_m)` if :math:`\rho_m > 1`, else 1.

    Args:
        ratios: (M,) from ``ogm_ratios``.
        alpha: strength, at least 0; 0 gives ones.

    Returns:
        (M,) in [0, 1]. The rule jumps at :math:`\rho = 1`, as in the paper.

    Reference:
        Peng et al. Balanced Multimodal Learning via On-the-fly Gradient Modulation. CVPR 2022, eq. 10.
    """
    return torch.where(ratios > 1, 1 - torch.tanh(alpha * ratios), torch.ones_like(ratios))


def ge_noise(gradient: Tensor, generator: torch.Generator) -> Tensor:
    r"""Noise of generalisation enhancement: :math:`\mathcal{N}(0, (\sigma + 10^{-8})^2)`, shaped like the gradient.

    :math:`\sigma` is the standard deviation over the entries of this tensor (divided by their number, so that one
    entry gives 0 and not NaN).

    Args:
        gradient: the gradient before it is scaled.
        generator: on the device of ``gradient``.
    """
    sigma = gradient.std(unbiased=False) + FLOOR
    noise = torch.randn(gradient.shape, generator=generator, device=gradient.device, dtype=gradient.dtype)
    return noise * sigma


def opm_ratios(scores: Tensor) -> Tensor:
    r""":math:`r_m = s_m / \mathrm{mean}_{j \ne m} s_j`, (M,): the paper's ratio at M = 2, at most 1 for the weakest."""
    others = (scores.sum() - scores) / max(len(scores) - 1, 1)
    return scores / others.clamp(min=TINY)


def opm_rates(ratios: Tensor, q_base: float, strength: float) -> Tensor:
    r"""Dropping rates of OPM: :math:`q_m = \mathrm{clip}(q_{base}(1 + \lambda \tanh(r_m - 1)), 0, 1)` if r > 1, else 0.

    Args:
        ratios: (M,) from ``opm_ratios``.
        q_base: rate just above :math:`r = 1`, in [0, 1].
        strength: the paper's :math:`\lambda`, at least 0.

    Returns:
        (M,) in [0, 1]. The rule jumps from 0 to ``q_base`` at r = 1, as in the paper.

    Reference:
        Wei et al. On-the-fly Modulation for Balanced Multimodal Learning. TPAMI 2024.
    """
    rates = (q_base * (1 + strength * torch.tanh(ratios - 1))).clamp(0, 1)
    return torch.where(ratios > 1, rates, torch.zeros_like(ratios))


def agm_ratios(scores: Tensor) -> Tensor:
    r""":math:`r_m = \exp\bigl(\frac{M}{M-1}(\bar s - s_m)\bigr)` from (M,) losses: above 1 for who leads; product 1."""
    count = len(scores)
    return torch.exp(count / max(count - 1, 1) * (scores.mean() - scores))


def agm_coefficients(scores: Tensor, means: Tensor, alpha: float, cap: float | None = None) -> Tensor:
    r"""Gradient coefficients of AGM: :math:`\kappa_m = \exp(\alpha \min(\tau_m - r_m, \mathrm{cap}))`.

    Args:
        scores: (M,) mean losses of the responses in this batch; they give :math:`r_m`.
        means: (M,) their running means before this batch; they give :math:`\tau_m`. All zero at the first batch.
        alpha: strength, at least 0; 0 gives ones.
        cap: largest :math:`\tau_m - r_m`; None for no cap (the exponent still stops at 80, which is finite).

    Returns:
        (M,) positive: below 1 for a modality further ahead than it usually is.

    Reference:
        Li et al. Boosting Multi-modal Model Performance with Adaptive Gradient Modulation. ICCV 2023.
    """
    gap = agm_ratios(means) - agm_ratios(scores)
    if cap is not None:
        gap = gap.clamp(max=cap)
    return torch.exp((alpha * gap).clamp(max=LARGEST_EXPONENT))
