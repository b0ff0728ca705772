"""Weights of modalities by how certain each is, for fusing at test time (MLA)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def entropy_weights(logits: Tensor, present: Tensor | None = None) -> Tensor:
    r"""How much each modality counts for each sample: the more certain, the more.

    .. math:: \lambda_m = \operatorname{softmax}_m(-H_m), \quad H_m = -\sum_c p_{mc} \log p_{mc}

    with :math:`p_m` the softmax of modality m's logits over the classes. A sample's weights depend on
    that sample alone.

    Args:
        logits: (modalities, batch, classes).
        present: (modalities, batch) bool; absent modalities get weight 0 and the others share it.
            A sample with none at all weighs all equally by the rule, so that it stays finite.

    Returns:
        (modalities, batch), each column sums to 1.

    Source: Zhang et al., MLA, CVPR 2024.
    """
    return certainty_weights(class_certainty(logits), present)


def class_certainty(logits: Tensor) -> Tensor:
    """Minus the entropy of the softmax over the last dimension, in nats."""
    log_p = F.log_softmax(logits, dim=-1)
    return (log_p.exp() * log_p).sum(-1)


def label_certainty(logits: Tensor) -> Tensor:
    """Minus the entropy of independent labels, summed over the last dimension, in nats."""
    return (logits.sigmoid() * F.logsigmoid(logits) + (-logits).sigmoid() * F.logsigmoid(-logits)).sum(-1)


def certainty_weights(certainty: Tensor, present: Tensor | None = None) -> Tensor:
    """The softmax of certainties (modalities, batch) over the modalities there, as ``entropy_weights`` has it."""
    if present is not None:
        certainty = certainty.masked_fill(~present & present.any(0), -torch.inf)
    return certainty.softmax(dim=0)


def batch_entropy_weights(logits: Tensor) -> Tensor:
    """One weight per modality for a whole batch, as MLA's released code computes it: (modalities,).

    The softmax runs over the samples instead of the classes, so the result depends on which samples
    share the batch. Here to reproduce published numbers only; use ``entropy_weights``.

    Args:
        logits: (modalities, batch, classes).
    """
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * log_p).sum((1, 2)).softmax(dim=0)
