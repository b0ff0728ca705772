"""AUG: the modality that lags behind gets another classifier, which learns what its others leave over."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.pooling import presence
from counterpoise.functional.residual import RESIDUALS, left_behind, residual_losses
from counterpoise.fusions import Boosted
from counterpoise.method import Info, Method
from counterpoise.methods._turns import named_modalities
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class AUG(Method):
    r"""Sustained boosting: one step per modality and batch, and more classifiers for the one that lags behind.

    Modality m has :math:`t = n_m` classifiers with logits :math:`u_j` and :math:`U_k = \sum_{j \le k} u_j`. It
    minimises :math:`\mathrm{CE}(u_1)` while it has one, then

    .. math:: -\operatorname{mean}_i (1 - \lambda q_{i,y}) \log \mathrm{softmax}(u_t)_{i,y} + \mathrm{CE}(U_t)
              + \mathrm{CE}(U_{t-1}), \qquad q = \mathrm{softmax}(\mathrm{sg}\, U_{t-1})

    After the first epoch and every so many, with :math:`s_m` the mean :math:`\mathrm{softmax}(U_m)_y` over the samples
    of that epoch as they were trained on, the weakest gets a classifier where
    :math:`\max_m s_m - \sigma \min_m s_m > \tau`. The prediction is the weighted mean of the :math:`U_m`.

    Args:
        lam: :math:`\lambda`, in [0, 1]: how much what is known already counts.
        sigma: :math:`\sigma`, factor of the weakest's score, > 0.
        tau: :math:`\tau`, at least 0.
        every: epochs between two comparisons, at least 1; None for a tenth of the run. After the last epoch there is
            none.
        residual: "ensemble" for the q above; "sum" for the sum of the classifiers' softmaxes, as the paper's formula
            has it, with the weight held at 0 where it would be negative.
        weights: modality -> its weight in the prediction, > 0; None for equal ones.
        mode: "paper" for the rule above. "released" for what the authors' code does: added classifiers are never
            trained, and scores are compared by :math:`\max_m s_m / \min_m s_m > \sigma + \tau`.

    Attributes:
        totals: (2, modalities) sum of the scores in this epoch, and how many.

    Source: Jiang et al., Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability
    Disproportion, NeurIPS 2025, https://arxiv.org/abs/2502.20120
    """

    info = Info(
        family="alternating",
        summary="One step per modality and batch; the modality that lags behind gets more classifiers.",
        paper="Jiang et al., Rethinking Multimodal Learning from the Perspective of Mitigating Classification Ability "
        "Disproportion, NeurIPS 2025",
        url="https://arxiv.org/abs/2502.20120",
        fusions="Boosted",
        state="scores of the epoch; which classifiers take part, in the fusion",
    )
    whole_batch = "it updates several times per batch"
    tasks = (SingleLabel,)
    default_fusion = "Boosted"
    totals: Tensor

    def __init__(
        self,
        lam: float = 0.5,
        sigma: float = 1.0,
        tau: float = 0.01,
        every: int | None = None,
        residual: str = "ensemble",
        weights: Mapping[str, float] | None = None,
        mode: str = "paper",
    ):
        super().__init__()
        self.lam = number("lam", lam, low=0, high=1)
        self.sigma = number("sigma", sigma, above=0)
        self.tau = number("tau", tau, low=0)
        self.every = None if every is None else whole("every", every, low=1)
        self.residual = choice("residual", residual, RESIDUALS)
        self.weights = weights
        for weight in (weights or {}).values():
            number("weights", weight, above=0)
        self.mode = choice("mode", mode, ("paper", "released"))

    def must_own_loop(self) -> str | None:
        return "it updates once per modality and batch"

    def setup(self, run: Run) -> None:
        fusion, names = run.model.fusion, run.model.modalities
        if not isinstance(fusion, Boosted) or fusion.has_own_heads:
            kind = "Boosted with heads" if isinstance(fusion, Boosted) else type(fusion).__name__
            raise ValueError(f"AUG adds classifiers to a modality; this model has fusion={kind}. Use fusion=Boosted.")
        if self.weights is not None:
            named_modalities("weights", self.weights, names, everyone=True)
        self.register_buffer("totals", torch.zeros(2, len(names), device=run.device))

    def step(self, step: Step) -> Tensor:
        losses = []
        for place, m in enumerate(step.model.modalities):
            with step.ascent(partial(self._turn, m)):
                loss, U = self._learn(m, step)
                step.backward(loss)
            if self.mode == "released":
                for layer in list(_boosted(step.model).layers[m].children())[1:]:
                    layer.zero_grad(set_to_none=True)
            step.update()
            self._count(place, m, U.detach(), step)
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _turn(self, modality: str, step: Step) -> Tensor:
        return self._learn(modality, step)[0]

    def _learn(self, modality: str, step: Step) -> tuple[Tensor, Tensor]:
        """The loss of a modality, and the logits of all its classifiers together."""
        fusion, present = _boosted(step.model), step.present(modality)
        u = fusion.stages(modality, step.encode((modality,))[modality])
        U = u.sum(0)
        loss = step.criterion(U, present=present)
        if len(u) == 1:
            return loss, U
        left = residual_losses(u[-1], u[:-1], step.batch.target, self.lam, self.residual)
        return step.average(left, present) + loss + step.criterion(u[:-1].sum(0), present=present), U

    def _count(self, place: int, modality: str, logits: Tensor, step: Step) -> None:
        score, present = step.task.score(logits, step.batch.target), step.present(modality)
        there = torch.ones_like(score) if present is None else present.to(score.dtype)
        self.totals[:, place] += step.sum(torch.stack([(score * there).sum(), there.sum()]))
        step.log(**{f"{modality}/classifiers": _boosted(step.model).active[modality]})

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        done, names = run.epoch + 1, run.model.modalities
        s = (self.totals[0] / self.totals[1]).tolist()  # NaN where nobody had the modality
        self.totals.zero_()
        due = done == 1 or done % (self.every or max(1, run.epochs // 10)) == 0
        if not due or done >= run.epochs:
            return
        weak = left_behind(s, self.sigma, self.tau, ratio=self.mode == "released")
        if weak is not None and not _boosted(run.model).grow(names[weak]):
            most = _boosted(run.model).most
            warnings.warn(f"{names[weak]} has all of its {most} classifiers. Raise most of Boosted.", stacklevel=2)

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        unimodal = torch.stack(list(output.unimodal.values()))
        weights = unimodal.new_tensor([1.0 if self.weights is None else self.weights[m] for m in output.unimodal])
        share = weights.unsqueeze(1) * presence(unimodal, output.there())
        return torch.einsum("mb,mbc->bc", share / share.sum(0), unimodal)


def _boosted(model: MultimodalModel) -> Boosted:
    """The fusion, which ``setup`` has checked."""
    assert isinstance(model.fusion, Boosted)
    return model.fusion
