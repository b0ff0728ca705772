"""Mixup of one modality's inputs (Zhang et al., ICLR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from counterpoise.engine import Step


class Mix(NamedTuple):
    """Which samples meet, and in what proportion: x <- share * x + (1 - share) * x[order]."""

    share: float
    order: Tensor

    def inputs(self, x: Tensor) -> Tensor:
        """The mixed inputs."""
        return self.share * x + (1 - self.share) * x[self.order]


def draw_mix(x: Tensor, alpha: float, generator: torch.Generator) -> Mix | None:
    """One share ~ Beta(alpha, alpha) and one permutation for a batch.

    None for alpha = 0 and for inputs that are whole numbers, such as tokens.
    """
    if alpha == 0 or not x.is_floating_point():
        return None
    seed = int(torch.randint(2**62, (), generator=generator))  # on the CPU: no device to wait for
    order = torch.randperm(len(x), generator=generator).to(x.device, non_blocking=True)
    return Mix(float(np.random.default_rng(seed).beta(alpha, alpha)), order)


def mixed_loss(step: Step, logits: Tensor, modality: str, mix: Mix | None) -> Tensor:
    """The loss of these logits on the labels, or on both labels of mixed samples by their shares."""
    present = step.present(modality)
    if mix is None:
        return step.criterion(logits, present=present)
    both = None if present is None else present & present[mix.order]  # an absent partner has nothing to mix in
    target, weight = step.batch.target[mix.order], step.batch.weight
    own = step.criterion(logits, present=both)
    other = step.criterion(logits, target, both, None if weight is None else weight[mix.order])
    return mix.share * own + (1 - mix.share) * other
