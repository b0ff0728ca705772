"""MBSD: in every sample the modality that knows better teaches the other."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.self_distillation import distilled
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, require_unimodal_logits
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class MBSD(Method):
    r"""Modality-based self-distillation in multi-task training.

    .. math:: L = \mathrm{CE}(f) + \sum_m \mathrm{CE}(u_m)
              + \operatorname{mean}_{(a,b)} \operatorname{mean}_i w_i \Bigl[
              \lambda_{rs} \tfrac1C \lVert u_a - u_b \rVert^2
              + \lambda_{kd}\, \mathrm{KL}\bigl(\mathrm{sg}\, p_{strong} \,\|\, p_{weak}\bigr) \Bigr]

    over the pairs of modalities, with :math:`w_i = |p_a[y_i] - p_b[y_i]|` where one of the two predicts
    :math:`y_i`, else 0; the stronger has the larger :math:`p[y_i]`. A pair counts the samples that have both. With
    ``rs=0`` and ``kd=0`` this is multi-task training, bit for bit.

    Args:
        rs: :math:`\lambda_{rs}`, weight of the squared difference of logits, at least 0.
        kd: :math:`\lambda_{kd}`, weight of the divergence, at least 0.

    Source: Liu et al., Multimodal Pre-Training with Self-Distillation for Product Understanding in E-Commerce, WSDM
    2023, https://doi.org/10.1145/3539597.3570423
    """

    info = Info(
        family="objective",
        summary="Pulls the modalities' predictions together where they differ, the weaker's towards the stronger's.",
        paper="Liu et al., Multimodal Pre-Training with Self-Distillation for Product Understanding in E-Commerce, "
        "WSDM 2023",
        url="https://doi.org/10.1145/3539597.3570423",
        fusions="Concat, Sum, Late; any other with heads=True",
    )
    whole_batch = "its loss has means over samples that have several modalities"
    tasks = (SingleLabel,)

    def __init__(self, rs: float = 1.0, kd: float = 1.0):
        super().__init__()
        self.rs = number("rs", rs, low=0)
        self.kd = number("kd", kd, low=0)

    def setup(self, run: Run) -> None:
        require_unimodal_logits(self, run)

    def loss(self, output: Output, step: Step) -> Tensor:
        loss = super().loss(output, step) + sum(step.unimodal_loss(output, m) for m in output.unimodal)
        if self.rs == self.kd == 0:
            return loss
        logits, there = list(output.unimodal.values()), has(step)
        pairs = []
        for a, b in combinations(range(len(logits)), 2):
            told = distilled(logits[a], logits[b], step.batch.target)
            extra = told.weight * (self.rs * told.squared + self.kd * told.divergence)
            pairs.append(step.average(extra, there[:, a] & there[:, b]))
        return loss + torch.stack(pairs).mean()
