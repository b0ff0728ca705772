"""How the outputs of several modalities become one prediction, as pure functions.

Everywhere ``outputs`` is (modalities, batch, outputs) and ``present`` (modalities, batch) bool, None when every sample
has every modality. The result is (batch, outputs). A sample with no modality at all counts as having them all, so that
its prediction is finite.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from counterpoise.functional.entropy import certainty_weights
from counterpoise.functional.pooling import presence

RULES = ("mean", "entropy", "sum", "pool")
"""How late fusion may combine. What the mean and the certainty of outputs are, the task says; the pool is fitted."""


def mean(outputs: Tensor, present: Tensor | None = None) -> Tensor:
    """Log of the mean of the probabilities of classes: log 1/M sum_m softmax(u_m), over the modalities there."""
    there = presence(outputs, present).unsqueeze(-1)
    log_p = F.log_softmax(outputs, dim=-1).masked_fill(~there, -torch.inf)
    return torch.logsumexp(log_p, dim=0) - there.sum(0).to(log_p.dtype).log()


def mean_of_labels(outputs: Tensor, present: Tensor | None = None) -> Tensor:
    """Logits of the mean of the probabilities of labels: logit 1/M sum_m sigmoid(u_m), over the modalities there."""
    there = presence(outputs, present).unsqueeze(-1)
    yes, no = (F.logsigmoid(u).masked_fill(~there, -torch.inf).logsumexp(0) for u in (outputs, -outputs))
    return yes - no


def mean_of_numbers(outputs: Tensor, present: Tensor | None = None) -> Tensor:
    """The mean over the modalities there."""
    there = presence(outputs, present).unsqueeze(-1)
    return outputs.masked_fill(~there, 0).sum(0) / there.sum(0)


def by_certainty(outputs: Tensor, certainty: Tensor, present: Tensor | None = None) -> Tensor:
    """Outputs weighted per sample by softmax(certainty) over the modalities there; certainty is (modalities, batch)."""
    return (certainty_weights(certainty, present).unsqueeze(-1) * outputs).sum(0)


def total(outputs: Tensor, present: Tensor | None = None) -> Tensor:
    """Sum of the outputs of the modalities there."""
    return outputs.masked_fill(~presence(outputs, present).unsqueeze(-1), 0).sum(0)
