"""DI-MML: which dimensions of a feature separate the classes, lessons from one modality to another, a sure vote."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise.functional.entropy import certainty_weights
from counterpoise.functional.means import masked_mean
from counterpoise.functional.prototypes import class_sums


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, dim) mean feature of each class; infinite for a class without samples, so that it is near to nothing.

    Args:
        features: (samples, dim).
        labels: (samples,) class numbers.
        classes: how many there are.
    """
    sums, counts = class_sums(features, labels, classes)
    return (sums / counts.clamp(min=1).unsqueeze(1)).masked_fill(counts.unsqueeze(1) == 0, torch.inf)


def effective_dimensions(features: Tensor, labels: Tensor, means: Tensor) -> Tensor:
    """(dim,) bool: where the nearest class mean is the true one for a larger share of samples than on average over dim.

    Args:
        features: (samples, dim), at least one sample.
        labels: (samples,) class numbers.
        means: (classes, dim), of ``class_means``.

    Source: Fan et al., Detached and Interactive Multimodal Learning, ACM Multimedia 2024,
    https://arxiv.org/abs/2407.19514
    """
    right = torch.zeros(features.shape[1], dtype=torch.int64, device=features.device)
    for z, y in zip(features.split(256), labels.split(256), strict=True):  # (256, classes, dim) at a time
        nearest = (z.unsqueeze(1) - means).abs().argmin(1)
        right += (nearest == y.unsqueeze(1)).sum(0)
    return right > right.double().mean()


def lesson(learner: Tensor, teacher: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    r"""Mean of :math:`-\log \frac{\exp(l_i \cdot t_i / T)}{\sum_j \exp(l_i \cdot t_j / T)}`; the teacher is constant.

    Args:
        learner: (samples, dim) :math:`l`, the dimensions to learn.
        teacher: (samples, dim) :math:`t`.
        temperature: T, > 0.
        present: (samples,) bool, who has both; None when all do. 0 where nobody does.
    """
    logits = learner @ teacher.detach().T / temperature
    truth = torch.arange(len(logits), device=logits.device)
    if present is None:
        return F.cross_entropy(logits, truth)
    # who lacks one is no one's negative; its own row is finite, and does not count
    hidden = ~present & ~torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    losses = F.cross_entropy(logits.masked_fill(hidden, -torch.inf), truth, reduction="none")
    return masked_mean(losses, present)


def vote_weights(logits: Tensor, temperature: float, present: Tensor | None = None) -> Tensor:
    r"""(voters, samples) :math:`\operatorname{softmax}_k(\max_c p_{k,c} / T)`, 0 for who is not there.

    Args:
        logits: (voters, samples, classes).
        temperature: T, > 0.
        present: (voters, samples) bool; None where all are there.
    """
    return certainty_weights(logits.softmax(2).amax(2) / temperature, present)
