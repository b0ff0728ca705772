"""AGM: scale the gradient that enters each modality's Shapley response."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional.modulation import agm_coefficients, floored
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class AGM(Method):
    r"""Adaptive gradient modulation: speed up or slow down each modality against its own history.

    With :math:`f(S)` the logits from the modalities in S and :math:`f(\emptyset) = 0`, modality m's response is
    its Shapley value, and the responses add up to the prediction:

    .. math::
        \phi_m = \sum_{S \subseteq N \setminus m} \frac{|S|!\,(M-|S|-1)!}{M!}\bigl(f(S \cup m) - f(S)\bigr), \quad
        s_m = \operatorname{mean}_i -\log \mathrm{softmax}(\phi_{m,i})_{y_i}, \\
        r_m = \exp\Bigl(\tfrac{M}{M-1}(\bar s - s_m)\Bigr), \quad
        \tau_m = \text{the same of the running means of } s, \quad
        \kappa_m = \exp\bigl(\alpha \min(\tau_m - r_m, \mathrm{cap})\bigr)

    The loss is the cross-entropy of :math:`\sum_m \phi_m = f(N)`; in its backward pass the gradient that enters
    :math:`\phi_m` is multiplied by :math:`\kappa_m`. Modalities are left out at the fusion: every encoder runs
    once. Samples that lack a modality do not count in the scores. With more than six modalities the responses are the
    gains along one random order of the modalities and its reverse, drawn for every batch, and add up all the same.

    Args:
        alpha: strength, at least 0. The paper's 1.5 (CREMA-D), 2.5 (AV-MNIST), 4.0 (UR-Funny).
        cap: largest :math:`\tau - r`; 10 (CREMA-D), 7 (UR-Funny), None (AV-MNIST). A coefficient can reach
            :math:`e^{\alpha\,\mathrm{cap}}`: train with ``clip_norm=1.0``, as the paper's runs do.

    Attributes:
        means: (M,) running means of the scores.
        steps: how many batches are in them.

    Source: Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient Modulation, ICCV 2023,
    https://arxiv.org/abs/2308.07686
    """

    info = Info(
        family="gradient",
        summary="Scales the gradient that enters each modality's Shapley response, against its own running mean.",
        paper="Li et al., Boosting Multi-modal Model Performance with Adaptive Gradient Modulation, ICCV 2023",
        url="https://arxiv.org/abs/2308.07686",
        forward="1 (and the fusion 2^M - 1 times, 2M - 1 for M > 6)",
        backward="1 (and the fusion 2^M - 1 times, 2M - 1 for M > 6)",
        state="running means of the responses' losses",
    )
    whole_batch = "its loss has coefficients that compare the modalities over the batch"
    edits_by_scale = True
    means: Tensor
    steps: Tensor

    def __init__(self, alpha: float = 1.5, cap: float | None = 10.0):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0)
        self.cap = None if cap is None else number("cap", cap, low=0)

    def setup(self, run: Run) -> None:
        self.register_buffer("means", torch.zeros(len(run.model.modalities)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, step: Step) -> Output:
        z, there = step.encode(), has(step)
        names = tuple(z)
        f = {}
        orders = sampled_orders(names, 1, step.generator)
        for subset in coalitions(names, orders):
            logits = step.fuse({m: z[m] for m in names if m in subset}, unimodal=False).logits
            if step.batch.present is not None:
                # Of a sample that has none of the subset the fusion can say nothing: that is the empty set's 0.
                some = torch.stack([there[:, i] for i, m in enumerate(names) if m in subset]).any(0)
                logits = logits * some.unsqueeze(1)
            f[subset] = logits
        return Output(f[frozenset(names)], shapley(f, names, orders), z, step.batch.present)

    def _scores(self, phi: dict[str, Tensor], step: Step) -> tuple[Tensor, Tensor]:
        """This batch's scores, and whether it has any; the running means stand in where it has not."""
        losses = (floored(step.task.losses(response.detach(), step.batch.target)) for response in phi.values())
        s, count = mean_scores(step, losses, has(step).all(1))
        return torch.where(count > 0, s, self.means), count > 0

    def loss(self, output: Output, step: Step) -> Tensor:
        phi = output.unimodal
        kappa = agm_coefficients(self._scores(phi, step)[0], self.means, self.alpha, self.cap)
        # Adds zero to the value, and (kappa - 1) times the gradient to that of each response.
        extra = [(k - 1) * (response - response.detach()) for k, response in zip(kappa, phi.values(), strict=True)]
        return step.criterion(output.logits + torch.stack(extra).sum(0), step.batch.target)

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        s, seen = self._scores(output.unimodal, step)
        kappa = agm_coefficients(s, self.means, self.alpha, self.cap)
        step.log(**{f"{m}/coefficient": k for m, k in zip(output.unimodal, kappa, strict=True)})
        self.steps += seen
        self.means += (s - self.means) / self.steps.clamp(min=1)
