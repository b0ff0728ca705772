"""AMCo: hide more and more of the feature that the model depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.dependence import dependence, hidden_share, hide
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores, require_unimodal_logits
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class AMCo(Method):
    r"""Adaptive mask co-optimisation: multi-task training with masks on features that the model depends on.

    .. math::
        \mathrm{dep}_m = \operatorname{mean}_i \sum_c
        \mathrm{softmax}\bigl([u_{1,i} | \dots | u_{M,i}]\bigr)_{(m,c)}, \qquad
        p = \min\Bigl(\mathrm{cap}, \sin\bigl(\tfrac\pi2 \min(1, l / \epsilon)\bigr)\Bigr), \\
        L = \mathrm{CE}(f) + \sum_m \mathrm{CE}(u_m)

    with l the share of the run that is over. Where :math:`\mathrm{dep}_m > \sigma` in a batch,
    :math:`\lfloor p D_m \rfloor` random entries of modality m's feature are 0 in the next batch, the same in every
    sample. Evaluation hides nothing. With ``sigma`` at least 1 this is multi-task training, bit for bit.

    Args:
        sigma: :math:`\sigma` > 0, the dependence from which on a modality is masked; None for 1 / M.
        eps: :math:`\epsilon` in (0, 1], the share of the run over which masks grow to their full size.
        cap: largest share of a feature that is hidden, in [0, 1].

    Source: Zhou et al., Adaptive Mask Co-Optimization for Modal Dependence in Multimodal Learning, ICASSP 2023,
    https://doi.org/10.1109/ICASSP49357.2023.10096641
    """

    info = Info(
        family="feed-forward",
        summary="Hides random entries of the feature that the model depends on, more as training goes on.",
        paper="Zhou et al., Adaptive Mask Co-Optimization for Modal Dependence in Multimodal Learning, ICASSP 2023",
        url="https://doi.org/10.1109/ICASSP49357.2023.10096641",
        fusions="Concat, Sum, Late; any other with heads=True",
        state="who is depended on",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    dependent: Tensor

    def __init__(self, sigma: float | None = None, eps: float = 0.3, cap: float = 1.0):
        super().__init__()
        self.sigma = None if sigma is None else number("sigma", sigma, above=0)
        self.eps = number("eps", eps, above=0, high=1)
        self.cap = number("cap", cap, low=0, high=1)

    def setup(self, run: Run) -> None:
        require_unimodal_logits(self, run)
        self.register_buffer("dependent", torch.zeros(len(run.model.modalities), dtype=torch.bool))

    def forward(self, step: Step) -> Output:
        over = (step.epoch + step.index / step.num_batches) / step.phase.epochs
        share = min(self.cap, hidden_share(over, self.eps))
        masked = {}
        for masks, (m, z) in zip(self.dependent, step.encode().items(), strict=True):
            kept = hide(z.shape[1], share, step.generator).to(z.device, non_blocking=True)
            masked[m] = z * (kept | ~masks)
        return step.fuse(masked)

    def loss(self, output: Output, step: Step) -> Tensor:
        return super().loss(output, step) + sum(step.unimodal_loss(output, m) for m in output.unimodal)

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        shares = dependence(torch.stack(list(output.unimodal.values())))
        means, complete = mean_scores(step, shares, has(step).all(1))
        sigma = 1 / len(means) if self.sigma is None else self.sigma
        self.dependent.copy_(torch.where(complete > 0, means > sigma, self.dependent))
        step.log(**{f"{m}/dependence": mean for m, mean in zip(output.unimodal, means, strict=True)})
