"""AMCo: which modality a model depends on, and how much of its feature to hide as training goes on."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dependence(unimodal: Tensor) -> Tensor:
    r"""How much of one distribution over all classes of all modalities each modality has, per sample.

    .. math:: \mathrm{dep}_{m,i} = \sum_c \mathrm{softmax}\bigl([u_{1,i} | \dots | u_{M,i}]\bigr)_{(m,c)}

    Args:
        unimodal: (modalities, batch, classes) logits.

    Returns:
        (modalities, batch), each column sums to 1.

    Source: Zhou et al., Adaptive Mask Co-Optimization for Modal Dependence in Multimodal Learning, ICASSP 2023,
    https://doi.org/10.1109/ICASSP49357.2023.10096641
    """
    return unimodal.logsumexp(2).softmax(0)


def hidden_share(progress: float, ramp: float) -> float:
    r"""Share of a feature that is hidden: :math:`\sin\bigl(\frac\pi2 \min(1, l / \epsilon)\bigr)`, in [0, 1].

    Args:
        progress: l, the share of training that is over.
        ramp: :math:`\epsilon` > 0, from when on everything is hidden.
    """
    return math.sin(math.pi / 2 * min(1.0, progress / ramp))


def hide(width: int, share: float, generator: torch.Generator) -> Tensor:
    """(width,) bool on the CPU: False in floor(share * width) random places."""
    hidden = math.floor(share * width + 1e-9)  # sin(pi / 6) of 512 is 256 and not 255
    return torch.randperm(width, generator=generator) >= hidden
