"""TCMax: how much likelier a model finds modalities and label of one sample than those of different ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_partition_of_sums(unimodal: Tensor, present: Tensor | None = None) -> Tensor:
    r"""Log of the mean of :math:`\exp \sum_m u_{m,j_m,c}` over all combinations of rows and all classes, a scalar.

    The mean over combinations factorises, so all :math:`B^M` of them cost as much as :math:`M B`:

    .. math:: \log Z = \operatorname{LSE}_c \sum_m \bigl(\operatorname{LSE}_j u_{m,j,c} - \log B_m\bigr) - \log C

    Args:
        unimodal: (modalities, batch, classes) logits that add up to the fused ones.
        present: (modalities, batch) bool; rows that lack a modality lend it to no combination, and :math:`B_m` are the
            others. A modality that nobody has counts with all its rows, so that the result stays finite.

    Source: Yu et al., Multimodal Classification via Total Correlation Maximization, ICLR 2026,
    https://arxiv.org/abs/2602.13015
    """
    if present is None:
        means = unimodal.logsumexp(1) - math.log(unimodal.shape[1])
    else:
        lent = present | ~present.any(1, keepdim=True)
        means = unimodal.masked_fill(~lent.unsqueeze(2), -torch.inf).logsumexp(1) - lent.sum(1, keepdim=True).log()
    return means.sum(0).logsumexp(0) - math.log(unimodal.shape[2])


def log_partition(logits: Tensor) -> Tensor:
    """Log of the mean of the exponentials of all entries, a scalar.

    Args:
        logits: (combinations, classes) fused logits of rows put together at random.
    """
    return logits.flatten().logsumexp(0) - math.log(logits.numel())
