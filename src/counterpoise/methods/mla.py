"""MLA: one modality at a time through one head that must not forget the others."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number
from counterpoise.functional import batch_entropy_weights, certainty_weights, project_inputs, rls_update
from counterpoise.functional.precision import widest
from counterpoise.fusions import Shared
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class MLA(Method):
    r"""Multimodal learning with alternating unimodal adaptation.

    In every batch the modalities take turns. Modality m takes a step on its own loss, with the gradient
    of the shared linear head kept away from the mean features of all turns before,

    .. math:: W \leftarrow W - \eta\, G P, \qquad
        P \leftarrow P - \frac{P r\, r^\top P}{a + r^\top P r}, \qquad r = \tfrac1B \textstyle\sum_i h_{im}

    starting from P = I. At test time each sample weighs the modalities by how certain they are,

    .. math:: z = \sum_m \lambda_m z_m, \qquad \lambda_m = \operatorname{softmax}_m(-H_m).

    Args:
        alpha: a falls from ``alpha`` to ``alpha**2`` within each epoch, as ``alpha ** (1 + t/T)``; in (0, 1).
        mode: "paper" for the rule above. "released" for what the authors' code does: P never acts, and the
            weights at test time are one number per modality and batch, so scores depend on how the data
            are batched.

    Attributes:
        P: (dim, dim) the projection, float64.

    Source: Zhang et al., Multimodal Representation Learning by Alternating Unimodal Adaptation, CVPR 2024,
    https://arxiv.org/abs/2311.10707
    """

    info = Info(
        family="alternating",
        summary="One step per modality and batch; the shared head's gradient avoids the features of earlier steps.",
        paper="Zhang et al., Multimodal Representation Learning by Alternating Unimodal Adaptation, CVPR 2024",
        url="https://arxiv.org/abs/2311.10707",
        fusions="Shared",
        state="projection (dim × dim)",
    )
    whole_batch = "it updates several times per batch"
    default_fusion = "Shared"
    P: Tensor

    def __init__(self, alpha: float = 0.1, mode: str = "paper"):
        super().__init__()
        self.alpha = number("alpha", alpha, above=0, below=1)
        self.mode = choice("mode", mode, ("paper", "released"))

    def setup(self, run: Run) -> None:
        fusion = run.model.fusion
        if not isinstance(fusion, Shared) or fusion.has_own_heads or not isinstance(fusion.head, nn.Linear):
            given = "Shared with more than that" if isinstance(fusion, Shared) else type(fusion).__name__
            raise ValueError(
                f"MLA trains one linear head shared by all modalities; this model has fusion={given}. "
                "Use fusion=Shared (hidden=(), heads=False)."
            )
        if self.mode == "released" and not isinstance(run.task, SingleLabel):
            raise ValueError("MLA(mode='released') weighs modalities by class probabilities; use mode='paper'.")
        size = fusion.head.in_features
        self.register_buffer("P", torch.eye(size, dtype=widest(run.device), device=run.device))

    def must_own_loop(self) -> str | None:
        return "it updates once per modality and batch"

    def step(self, step: Step) -> Tensor:
        losses = []
        for m in step.model.modalities:
            with step.ascent(partial(_loss, modality=m)):
                output = step.forward(only=(m,))
                loss = step.unimodal_loss(output, m)
                step.backward(loss)
            if self.mode == "paper":
                self._project(output.features[m].detach(), step, m)
            step.update()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _project(self, h: Tensor, step: Step, m: str) -> None:
        W = step.model.head_of(m).weight
        assert isinstance(W, nn.Parameter)
        assert W.grad is not None
        W.grad = project_inputs(W.grad, self.P)  # P of the turns before; the first one meets the identity
        present = step.present(m)
        count = step.sum(h.new_full((), len(h)) if present is None else present.sum().to(h))
        r = step.sum(h.sum(0)) / count.clamp_min(1)  # absent samples have zero rows
        self.P.copy_(rls_update(self.P, r, self.alpha ** (1 + step.index / step.num_batches)))

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        logits = torch.stack(list(output.unimodal.values()))
        if self.mode == "released":
            return torch.einsum("m,mbc->bc", batch_entropy_weights(logits), logits)
        return torch.einsum("mb,mbc->bc", certainty_weights(model.task.certainty(logits), output.there()), logits)


def _loss(step: Step, modality: str) -> Tensor:
    return step.unimodal_loss(step.forward(only=(modality,)), modality)
