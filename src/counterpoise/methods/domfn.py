"""DOMFN: fuse a sample only where its modalities agree."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number
from counterpoise.functional.divergence import CLOSED, REFERENCES, divergence, fusion_gate, gated_losses
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


PRETRAIN = "pretrain"
"""Name of the first phase."""


class DOMFN(Method):
    r"""Divergence-orientated fusion: a gate per sample decides whether the fused head takes part.

    With class scores :math:`q = \mathrm{softmax}`, a reference :math:`r` and
    :math:`d_{m,i} = \max_c (q_{m,i,c} - r_{i,c})^2`, the gate is open where all
    :math:`d_{m,i} / \tau < \gamma`:

    .. math:: L_i = \begin{cases}
              \sum_m (\tfrac12 \ell_m^2 - \eta d_m) + \sum_m \ell_m + \ell_f & \text{open} \\
              \sum_m \ell_m & \text{closed}\end{cases}

    A sample is predicted by the fused head where the gate is open, else by its most confident modality.
    A first phase trains :math:`\sum_m \ell_m` alone.

    Args:
        gamma: threshold on the scaled divergence, > 0.
        tau: scale of the divergence, > 0; only ``gamma * tau`` matters.
        eta: weight of the divergence in the loss.
        pretrain: share of the epochs for the first phase, in [0, 1).
        reference: "mean" of the unimodal scores, or "fused" scores (the two published branches differ).
        closed_gate: the loss where the gate is closed: "ce" as above, or "penalised"
            :math:`\sum_m (\tfrac12 \ell_m^2 - \eta d_m)`.
        score: "softmax", or "sigmoid" as in the released code, whose cross-entropies take the sigmoids for
            logits and so cannot fall below :math:`\log(1 + (C-1)/e)`.

    Source: Yang et al., DOMFN, ACM Multimedia 2022, https://doi.org/10.1145/3503161.3548203
    """

    info = Info(
        family="objective",
        summary="Trains and uses the fused head only for samples whose modalities agree.",
        paper="Yang et al., DOMFN: A Divergence-Orientated Multi-Modal Fusion Network for Resume Assessment, "
        "ACM Multimedia 2022",
        url="https://doi.org/10.1145/3503161.3548203",
        fusions="any with heads=True",
    )
    whole_batch = None
    tasks = (SingleLabel,)
    own_heads = True

    def __init__(
        self,
        gamma: float = 0.8,
        tau: float = 0.2,
        eta: float = 0.5,
        pretrain: float = 0.13,
        reference: str = "mean",
        closed_gate: str = "ce",
        score: str = "softmax",
    ):
        super().__init__()
        self.gamma = number("gamma", gamma, above=0)
        self.tau = number("tau", tau, above=0)
        self.eta = number("eta", eta)
        self.pretrain = number("pretrain", pretrain, low=0, below=1)
        self.reference = choice("reference", reference, REFERENCES)
        self.closed_gate = choice("closed_gate", closed_gate, CLOSED)
        self.score = choice("score", score, ("softmax", "sigmoid"))

    def setup(self, run: Run) -> None:
        count = len(run.model.modalities)
        bound = ((count - 1) / count) ** 2 if self.reference == "mean" else 1.0
        if self.gamma * self.tau >= bound:
            warnings.warn(
                f"DOMFN's gate never closes: gamma * tau = {self.gamma * self.tau:g}, and the divergence from the "
                f"{self.reference} scores of {count} modalities is below {bound:g}. Choose a smaller tau.",
                stacklevel=2,
            )

    def must_finish(self) -> str | None:
        return "it trains the modalities before what fuses them" if self.pretrain else None

    def must_own_loop(self) -> str | None:
        return self.must_finish()

    def selectable(self, run: Run) -> bool:
        return run.phase.name != PRETRAIN  # which leaves the fused head as it was made

    def phase(self, index: int, run: Run) -> Phase | None:
        first = min(round(self.pretrain * run.epochs), run.epochs - 1)
        phases = [Phase(first, name=PRETRAIN)] if first else []
        phases.append(Phase(run.epochs - first, fresh_optimizer=first > 0))
        return phases[index] if index < len(phases) else None

    def loss(self, output: Output, step: Step) -> Tensor:
        there = output.there()
        own = torch.stack([self._losses(u, step) for u in output.unimodal.values()])
        if there is not None:
            own = torch.where(there, own, 0.0)
        if step.phase.name == "pretrain":
            return step.average(own.sum(0))
        d, gate = self._gate(output, there)
        step.log(fused_share=gate.float().mean())
        return step.average(gated_losses(own, self._losses(output.logits, step), d, gate, self.eta, self.closed_gate))

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        there = output.there()
        _, gate = self._gate(output, there)
        logits = torch.stack(list(output.unimodal.values()))
        certainty = self._scores(logits).amax(-1)
        surest = (certainty if there is None else torch.where(there, certainty, -1.0)).argmax(0)
        alone = logits[surest, torch.arange(surest.shape[0], device=surest.device)]  # len() would fix it in an export
        return torch.where(gate.unsqueeze(1), output.logits, alone)

    def _scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1) if self.score == "softmax" else logits.sigmoid()

    def _losses(self, logits: Tensor, step: Step) -> Tensor:
        return step.losses(logits if self.score == "softmax" else logits.sigmoid())

    def _gate(self, output: Output, there: Tensor | None) -> tuple[Tensor, Tensor]:
        scores = torch.stack([self._scores(u) for u in output.unimodal.values()])
        d = divergence(scores, self._scores(output.logits), self.reference, there)
        return d, fusion_gate(d.detach(), self.gamma * self.tau)
