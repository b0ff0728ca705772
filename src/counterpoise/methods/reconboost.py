"""ReconBoost: the modalities take turns at fitting what the others leave over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, number, whole
from counterpoise.functional.boosting import Stage, boost_loss, boosting_stages, consolidation_loss
from counterpoise.method import Info, Method
from counterpoise.task import SingleLabel
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class ReconBoost(Method):
    r"""Boosting over modalities: one learner at a time against the ensemble of the others.

    The prediction is :math:`\rho \sum_m \varphi_m`, with the logits :math:`\varphi_m` of each modality and
    a learnt rate :math:`\rho`. Stage after stage, round the modalities, modality m trains alone on

    .. math:: -\tfrac1C (w_1 - w_2 q_y) \log p_y + \alpha\,\tfrac1C \lVert p - p_{m-1} \rVert^2,
        \qquad p = \mathrm{softmax}(\varphi_m), \quad q = \mathrm{softmax}\Bigl(\rho \sum_{n \ne m} \varphi_n\Bigr)

    with everything but p constant (the last term, memory consolidation, from the second stage on); then
    all of them train together on the cross-entropy of the prediction (global rectification).

    Args:
        w1: weight of the label, at least 0; at least ``w2``, or the loss has no lower bound.
        w2: weight of what the others already say, at least 0.
        alpha: weight of memory consolidation, at least 0.
        boost_epochs: epochs of each turn, at least 1.
        rectify_epochs: epochs of global rectification after each turn, at least 0.
        stages: how many turns, at least 1. None fits them into the run's ``epochs``
            (see ``counterpoise.functional.boosting.boosting_stages``); a number makes the run
            ``stages * (boost_epochs + rectify_epochs)`` epochs long, whatever the run's are.
        form: "target" keeps the label's entry of the residual (the released loss); "residual" keeps all
            of them, as the equations of the paper do, with log p held above -10 off the label.
        consolidation: "working" holds only the previous learner constant; "released" holds both, so
            that the term has no gradient, as in the authors' code.
        initial_rate: the rate at the start, above 0.

    Attributes:
        boost_rate: the learnt rate, a scalar parameter; trains in rectification.

    Source: Hua et al., ReconBoost: Boosting Can Achieve Modality Reconcilement, ICML 2024,
    https://arxiv.org/abs/2405.09321
    """

    info = Info(
        family="alternating",
        summary="Modalities take turns at fitting what the ensemble of the others leaves over; joint epochs between.",
        paper="Hua et al., ReconBoost: Boosting Can Achieve Modality Reconcilement, ICML 2024",
        url="https://arxiv.org/abs/2405.09321",
        forward="1",
        backward="1/M in a turn, 1 in rectification",
        fusions="Sum, Shared and Late with rule sum, Concat",
        state="the boost rate",
    )
    whole_batch = "its loss has means over samples that have several modalities"
    tasks = (SingleLabel,)
    default_fusion = "Sum"

    def __init__(
        self,
        w1: float = 5.0,
        w2: float = 1.0,
        alpha: float = 0.5,
        boost_epochs: int = 4,
        rectify_epochs: int = 4,
        stages: int | None = None,
        form: str = "target",
        consolidation: str = "working",
        initial_rate: float = 1.0,
    ):
        super().__init__()
        self.w2 = number("w2", w2, low=0)
        self.w1 = number("w1", w1, low=max(self.w2, 0))
        self.alpha = number("alpha", alpha, low=0)
        self.boost_epochs = whole("boost_epochs", boost_epochs, low=1)
        self.rectify_epochs = whole("rectify_epochs", rectify_epochs, low=0)
        self.stages = None if stages is None else whole("stages", stages, low=1)
        self.form = choice("form", form, ("target", "residual"))
        self.consolidation = choice("consolidation", consolidation, ("working", "released"))
        self.initial_rate = number("initial_rate", initial_rate, above=0)
        self.boost_rate = nn.Parameter(torch.tensor(float(initial_rate)))

    def setup(self, run: Run) -> None:
        if not run.model.fusion.additive:
            raise ValueError(
                "ReconBoost needs fused logits that are the sum of what each modality says; those of this model's "
                f"{type(run.model.fusion).__name__} fusion are not. Use fusion Sum, or as in the paper "
                "Shared(rule='sum', hidden=(256,))."
            )

    def on_start(self, run: Run) -> None:
        with torch.no_grad():
            self.boost_rate.fill_(self.initial_rate)

    def must_finish(self) -> str | None:
        return "it trains modalities in turns, and scores rise and fall with them"

    def selectable(self, run: Run) -> bool:
        phases = self._phases(run)
        begun, all_turns = ({p.train for p in some if p.train} for some in (phases[: run.phase_index + 1], phases))
        return super().selectable(run) and begun == all_turns

    def phase(self, index: int, run: Run) -> Phase | None:
        phases = self._phases(run)
        return phases[index] if index < len(phases) else None

    def length(self, run: Run) -> int:
        return sum(phase.epochs for phase in self._phases(run))

    def _phases(self, run: Run) -> list[Phase]:
        names = run.model.modalities
        if self.stages is None:
            stages = boosting_stages(run.epochs, len(names), self.boost_epochs, self.rectify_epochs)
        else:
            stages = [Stage(self.boost_epochs, self.rectify_epochs)] * self.stages
        phases: list[Phase] = []
        for turn, stage in enumerate(stages):
            m = names[turn % len(names)]
            # q needs what the others say, so all modalities are read
            phases.append(Phase(stage.boost, train=(m,), read=names, fresh_optimizer=True, name=f"boost {m}"))
            if stage.rectify:
                phases.append(Phase(stage.rectify, fresh_optimizer=True, name="rectify"))
        return phases

    def loss(self, output: Output, step: Step) -> Tensor:
        target = step.batch.target
        if step.phase.train is None:
            return step.criterion(self.predict(output, step.model), target)
        (m,) = step.phase.train
        phi, present = output.unimodal[m], step.present(m)
        # what the ensemble without m predicts: the fusion is additive, and absent modalities are in neither
        others = self.boost_rate * (output.logits - phi)
        loss = step.average(boost_loss(phi, others, target, w1=self.w1, w2=self.w2, form=self.form), present)
        if step.phase_index == 0:
            return loss
        names = step.model.modalities
        previous = names[names.index(m) - 1]
        masks = [mask for mask in (present, step.present(previous)) if mask is not None]
        both = torch.stack(masks).all(0) if masks else None
        learner = phi if self.consolidation == "working" else phi.detach()
        return loss + self.alpha * step.average(consolidation_loss(learner, output.unimodal[previous]), both)

    def modulate(self, output: Output, step: Step) -> None:
        step.log(boost_rate=self.boost_rate.detach())

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        return self.boost_rate * output.logits
