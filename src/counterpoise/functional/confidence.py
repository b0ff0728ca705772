"""CML: confidence must not rise when a modality is taken away."""

from __future__ import annotations

import torch
from torch import Tensor


def confidence_rise(more: Tensor, less: Tensor, target: Tensor, hold_wrong: bool = False) -> Tensor:
    r"""How much surer the prediction is from fewer modalities, per sample.

    .. math:: h = \max\bigl(0, \max_c \mathrm{softmax}(f_{less})_c - \max_c \mathrm{softmax}(f_{more})_c\bigr)

    0 where the fewer are right and the more are wrong: there they deserve more trust.

    Args:
        more: (batch, classes) fused logits of a set of modalities.
        less: of a part of that set.
        target: (batch,) class numbers.
        hold_wrong: hold the confidence of the larger set constant where both are wrong, so that no wrong prediction is
            made surer.

    Returns:
        (batch,) in [0, 1].

    Source: Ma et al., Calibrating Multimodal Learning, ICML 2023, https://proceedings.mlr.press/v202/ma23i.html
    """
    sure, surer = more.softmax(1).amax(1), less.softmax(1).amax(1)
    more_right, less_right = more.argmax(1) == target, less.argmax(1) == target
    if hold_wrong:
        sure = torch.where(more_right | less_right, sure, sure.detach())
    return (surer - sure).relu() * ~(less_right & ~more_right)
