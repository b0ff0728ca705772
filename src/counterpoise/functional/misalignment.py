"""MIDAS: samples put together of modalities of different samples, what their label is, and how much they count."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_shares(confidences: Tensor) -> Tensor:
    r""":math:`\tilde c_m = c_m / \sum_j c_j`, (modalities, samples): the parts of a soft label.

    Args:
        confidences: (modalities, samples) in (0, 1], the probability that the head of a modality gives the class of
            the sample that this modality was taken from.

    Source: Hwang et al., MIDAS: Misalignment-based Data Augmentation Strategy for Imbalanced Multimodal Learning,
    NeurIPS 2025, https://arxiv.org/abs/2509.25831
    """
    return confidences / confidences.sum(0).clamp(min=torch.finfo(confidences.dtype).tiny)


def misaligned_losses(logits: Tensor, targets: Tensor, shares: Tensor, alpha: Tensor, similarity: Tensor) -> Tensor:
    r"""(samples,) :math:`\bigl(1 + \frac{\tilde s + 1}{2}\bigr) \sum_m \alpha_m \tilde c_m (-\log \tilde p_{y_m})`.

    Args:
        logits: (samples, classes), fused, of the samples put together.
        targets: (modalities, samples) class numbers of where each modality was taken from.
        shares: (modalities, samples) :math:`\tilde c`.
        alpha: (modalities,) weak-modality weights, at least 1.
        similarity: (samples,) :math:`\tilde s` in [-1, 1], of what was swapped in to what it replaces.
    """
    surprise = -logits.log_softmax(1).gather(1, targets.T).T
    return (1 + (similarity + 1) / 2) * (alpha.unsqueeze(1) * shares * surprise).sum(0)


def under_predicted(logits: Tensor, targets: Tensor, shares: Tensor) -> Tensor:
    r"""(modalities, samples) :math:`\tilde c_m - \tilde p_{y_m} / \sum_j \tilde p_{y_j}`, > 0 where too little.

    Args:
        logits: (samples, classes), fused, of the samples put together.
        targets: (modalities, samples).
        shares: (modalities, samples) :math:`\tilde c`.
    """
    return shares - logits.log_softmax(1).gather(1, targets.T).T.softmax(0)


def weak_modality_weights(alpha: Tensor, weakest: Tensor, signal: Tensor, eta: float) -> Tensor:
    r"""(modalities,) next: :math:`\max(1, \alpha_m + \eta \Delta_m)` of the weakest, 1 of the others.

    Args:
        alpha: (modalities,).
        weakest: (), number of the least confident modality.
        signal: (modalities,) :math:`\Delta`, means of ``under_predicted``.
        eta: :math:`\eta`.
    """
    moved = (alpha + eta * signal).clamp(min=1)
    return torch.where(torch.arange(len(alpha), device=alpha.device) == weakest, moved, 1.0)
