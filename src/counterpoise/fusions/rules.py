"""How the logits of several modalities become one prediction, as pure functions.

Everywhere ``logits`` is (modalities, batch, classes) and ``present`` (modalities, batch) bool, None
when every sample has every modality. The result is (batch, classes) logits. A sample with no
modality at all counts as having them all, so that its prediction is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from counterpoise.functional import entropy_weights

RULES = ("mean", "entropy", "sum", "calibrated")


def _there(logits: Tensor, present: Tensor | None) -> Tensor:
    """(modalities, batch, 1) bool."""
    if present is None:
        return logits.new_ones(logits.shape[0], logits.shape[1], 1, dtype=torch.bool)
    return (present | ~present.any(0)).unsqueeze(-1)


def entropies(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax over the classes, (...,) for logits (..., classes)."""
    log_p = F.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def mean(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Log of the mean of the probabilities: log 1/M sum_m softmax(u_m), over the modalities there."""
    there = _there(logits, present)
    log_p = F.log_softmax(logits, dim=-1).masked_fill(~there, -torch.inf)
    return torch.logsumexp(log_p, dim=0) - there.sum(0).to(log_p.dtype).log()


def entropy(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Logits weighted by confidence: sum_m lambda_m u_m with ``functional.entropy_weights`` as lambda."""
    return (entropy_weights(logits, present).unsqueeze(-1) * logits).sum(0)


def total(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Sum of the logits of the modalities there."""
    return logits.masked_fill(~_there(logits, present), 0).sum(0)


def calibrated(logits: Tensor, present: Tensor | None, temperature: Tensor, weight: Tensor) -> Tensor:
    """Log of sum_m w_m softmax(u_m / T_m), the weights renormalised over the modalities there.

    Args:
        logits: (modalities, batch, classes).
        present: (modalities, batch) bool or None.
        temperature: (modalities,), positive.
        weight: (modalities,), positive.
    """
    there = _there(logits, present)
    log_p = F.log_softmax(logits / temperature.view(-1, 1, 1), dim=-1)
    log_w = weight.log().view(-1, 1, 1).masked_fill(~there, -torch.inf).log_softmax(dim=0)
    return torch.logsumexp(log_p.masked_fill(~there, -torch.inf) + log_w, dim=0)


def fit_calibration(logits: Tensor, target: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Temperatures in (0.05, 20) and weights summing to 1 that minimise the mean loss of ``calibrated``.

    Args:
        logits: (modalities, batch, classes), of validation samples.
        target: (batch,) class numbers.
        present: (modalities, batch) bool or None. Samples with no modality are left out.

    Returns:
        temperature and weight, (modalities,) float64 on the CPU. When the fit gains nothing over
        temperature 1 and equal weights, those.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        logits, target = logits.detach().cpu().double().clone(), target.detach().cpu().clone()
        if present is not None:
            present = present.detach().cpu().clone()
            rows = present.any(0)
            logits, target, present = logits[:, rows], target[rows], present[:, rows]
        plain = torch.ones(len(logits), dtype=torch.float64), torch.full((len(logits),), 1 / len(logits)).double()
        if target.numel() == 0:
            return plain
        a, b = torch.zeros(2, len(logits), dtype=torch.float64).unbind()
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()

        def values() -> tuple[Tensor, Tensor]:
            # Bounded and never exactly zero: separable validation data would send T to 0 or w to a corner.
            return (3 * (a / 3).tanh()).exp(), b.softmax(0) * (1 - 1e-6) + 1e-6 / len(b)

        def loss() -> Tensor:
            return F.nll_loss(calibrated(logits, present, *values()), target)

        solver = torch.optim.LBFGS([a, b], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> float:
            solver.zero_grad()
            value = loss()
            value.backward()
            return value.item()

        before = loss().item()
        solver.step(closure)
        if not loss().item() <= before:  # also when NaN
            return plain
        temperature, weight = values()
        return temperature.detach(), weight.detach()
