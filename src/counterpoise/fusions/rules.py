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
from counterpoise.functional.pooling import presence

RULES = ("mean", "entropy", "sum", "pool")
"""Each is a function below, but for the pool, which is fitted (``fusions.pool``)."""


def mean(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Log of the mean of the probabilities: log 1/M sum_m softmax(u_m), over the modalities there."""
    there = presence(logits, present).unsqueeze(-1)
    log_p = F.log_softmax(logits, dim=-1).masked_fill(~there, -torch.inf)
    return torch.logsumexp(log_p, dim=0) - there.sum(0).to(log_p.dtype).log()


def entropy(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Logits weighted by confidence: sum_m lambda_m u_m with ``functional.entropy_weights`` as lambda."""
    return (entropy_weights(logits, present).unsqueeze(-1) * logits).sum(0)


def total(logits: Tensor, present: Tensor | None = None) -> Tensor:
    """Sum of the logits of the modalities there."""
    return logits.masked_fill(~presence(logits, present).unsqueeze(-1), 0).sum(0)
