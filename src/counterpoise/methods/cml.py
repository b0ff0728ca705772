"""CML: whoever loses a modality must not become surer."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.confidence import confidence_rise
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Step


class CML(Method):
    r"""Calibrating multimodal learning: a penalty on confidence that rises when a modality is taken away.

    In every batch the modalities are taken away one after another in a random order, all
    :math:`= S_0 \supset S_1 \supset \dots \supset S_{M-1}`, and with :math:`f_k` the fused logits of :math:`S_k`

    .. math:: L = \frac1M \sum_k \mathrm{CE}(f_k) + \lambda \sum_k \operatorname{mean}_i
              \max\Bigl(0, \max_c \mathrm{softmax}(f_{k+1,i})_c - \max_c \mathrm{softmax}(f_{k,i})_c\Bigr)

    where a sample counts 0 in the penalty if :math:`f_{k+1}` is right and :math:`f_k` is wrong. A sample that has
    none of :math:`S_k` leaves the chain there. With ``lam=0`` and ``subset_loss=False`` this is joint training, bit
    for bit.

    Args:
        lam: :math:`\lambda`, weight of the mean penalty, at least 0.
        subset_loss: the first term over the whole chain; False for the cross-entropy of all modalities alone.
        hold_wrong: hold the larger set's confidence constant where both sets are wrong.

    Source: Ma et al., Calibrating Multimodal Learning, ICML 2023, https://proceedings.mlr.press/v202/ma23i.html
    """

    info = Info(
        family="objective",
        summary="Penalises confidence that rises when modalities are taken away, and trains their subsets too.",
        paper="Ma et al., Calibrating Multimodal Learning, ICML 2023",
        url="https://proceedings.mlr.press/v202/ma23i.html",
        forward="1 (and the fusion M times)",
        backward="1 (and the fusion M times)",
    )
    whole_batch = "its loss has means over samples that have several modalities"
    tasks = (SingleLabel,)

    def __init__(self, lam: float = 3.2, subset_loss: bool = True, hold_wrong: bool = False):
        super().__init__()
        self.lam = number("lam", lam, low=0)
        self.subset_loss = subset_loss
        self.hold_wrong = hold_wrong

    def forward(self, step: Step) -> Output:
        return step.forward(unimodal=False)

    def loss(self, output: Output, step: Step) -> Tensor:
        loss = super().loss(output, step)
        if self.lam == 0 and not self.subset_loss:
            return loss
        logits, there = self._chain(output, step)
        if self.subset_loss:
            smaller = [step.criterion(f, present=rows) for f, rows in zip(logits[1:], there, strict=True)]
            loss = torch.stack([loss, *smaller]).mean()
        rises = [confidence_rise(more, less, step.batch.target, self.hold_wrong) for more, less in pairwise(logits)]
        penalties = [step.average(h, rows) for h, rows in zip(rises, there, strict=True)]
        return loss + self.lam * torch.stack(penalties).sum()

    def _chain(self, output: Output, step: Step) -> tuple[list[Tensor], list[Tensor]]:
        """Fused logits of shrinking sets, the whole first; and for the smaller ones, who has anything of them."""
        names, has_it = list(output.features), has(step)
        order = torch.randperm(len(names), generator=step.generator).tolist()
        logits, there = [output.logits], []
        with frozen_statistics(step.model.fusion):
            for gone in range(1, len(names)):
                left = sorted(order[gone:])
                smaller = {names[i]: output.features[names[i]] for i in left}
                logits.append(step.fuse(smaller, unimodal=False).logits)
                there.append(torch.stack([has_it[:, i] for i in left]).any(0))
        return logits, there
