"""OPM: hide the feature of the modality that is ahead, from a share of the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise.functional.dropping import keep_mask, sample_uniform
from counterpoise.functional.modulation import opm_rates, opm_ratios
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores, probe_loss, require_unimodal_logits
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class OPM(Method):
    r"""On-the-fly prediction modulation: dropout of whole modalities, at a rate that depends on who leads.

    .. math::
        s_m = \sum_i \mathrm{softmax}(u_{m,i})_{y_i}, \quad
        r_m = \frac{s_m}{\operatorname{mean}_{j \ne m} s_j}, \quad
        q_m = \begin{cases} \mathrm{clip}\bigl(q_{base}(1 + \lambda \tanh(r_m - 1)), 0, 1\bigr) & r_m > 1 \\
                            0 & \text{else} \end{cases}

    and in a batch, with probability p, the head is given
    :math:`z'_{i,m} = k_{i,m} z_{i,m} / (1 - \theta)` with :math:`k_{i,m} \sim \mathrm{Bernoulli}(1 - q_m)` and
    :math:`\theta = \sum_m D_m q_m / \sum_m D_m` over the feature widths :math:`D_m`. The weakest modality has
    :math:`q = 0`, so no sample loses everything; one that has nothing else keeps what it has. Evaluation drops
    nothing.

    Args:
        q_base: rate for a modality just ahead, in [0, 1].
        strength: :math:`\lambda`, at least 0.
        p: how often a batch is treated, in [0, 1].
        warmup: epochs before the first treated batch.

    Source: Wei et al., On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024,
    https://arxiv.org/abs/2410.11582
    """

    info = Info(
        family="feed-forward",
        summary="Drops the leading modality's feature from random samples, more the further it leads.",
        paper="Wei et al., On-the-fly Modulation for Balanced Multimodal Learning, TPAMI 2024",
        url="https://arxiv.org/abs/2410.11582",
        forward="1 (and the fusion twice)",
        fusions="Concat, Sum, Late; any other with heads=True",
    )
    whole_batch = "what it drops depends on scores of the batch"

    def __init__(self, q_base: float = 0.5, strength: float = 0.5, p: float = 0.7, warmup: int = 6):
        super().__init__()
        self.q_base = number("q_base", q_base, low=0, high=1)
        self.strength = number("strength", strength, low=0)
        self.p = number("p", p, low=0, high=1)
        self.warmup = whole("warmup", warmup, low=0)

    def setup(self, run: Run) -> None:
        require_unimodal_logits(self, run)

    def forward(self, step: Step) -> Output:
        z = step.encode()
        if step.epoch < self.warmup or float(torch.rand((), generator=step.generator)) >= self.p:
            return step.fuse(z)
        there, target = has(step), step.batch.target
        with torch.no_grad():
            unimodal = step.fuse(z).unimodal
            s, _ = mean_scores(step, (step.task.score(u, target) for u in unimodal.values()), there.all(1))
            q = opm_rates(opm_ratios(s), self.q_base, self.strength)
            width = q.new_tensor([f.shape[1] for f in z.values()])
            theta = (width * q).sum() / width.sum()
            keep = keep_mask(sample_uniform(step.batch.index, len(z), step.generator), q, there)
            step.log(**{f"{m}/dropped": q_m for m, q_m in zip(z, q, strict=True)})
        output = step.fuse({m: f * keep[:, i : i + 1] / (1 - theta) for i, (m, f) in enumerate(z.items())})
        return output._replace(features=z)

    def loss(self, output: Output, step: Step) -> Tensor:
        return super().loss(output, step) + probe_loss(output, step)
