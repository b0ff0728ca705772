"""IPRM: a first look says how to mix the features of a batch, and the batch is learned so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import number
from counterpoise.functional import rules
from counterpoise.functional.alignment import distillation_losses
from counterpoise.functional.geodesic import agreement_share
from counterpoise.functional.pooling import presence
from counterpoise.fusions import Geodesic
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class IPRM(Method):
    r"""Instantaneous probe-and-rebalance: features are mixed on the sphere, in shares that each batch is probed for.

    .. math:: \text{probe at } \lambda: \; K_m = \operatorname{mean}_i \mathrm{KL}(p_m \| p_f), \quad
              \omega_a = \frac{K_b}{K_a + K_b}; \qquad
              \text{learn at } \omega: \; L = \mathrm{CE}(f) + \sum_m \mathrm{CE}(u_m)

    .. math:: \lambda \leftarrow \alpha \lambda + (1 - \alpha)\, \omega

    with f the logits of fusion ``Geodesic`` and :math:`u_m` those of own heads. More than two modalities have a share,
    a probe and a cross-entropy for each pair; where all pairs have one layer (``Geodesic(single=True)``), one of them
    is drawn per batch. Samples that lack a modality of a pair do not count for it. The prediction is
    :math:`f + \sum_m u_m`, of a sample with one modality :math:`u_m`.

    Args:
        alpha: share of the old :math:`\lambda`, in [0, 1]; 1 leaves it at 1/2.

    Source: Yang et al., Towards Equilibrium: An Instantaneous Probe-and-Rebalance Multimodal Learning Approach,
    IJCAI 2025, https://www.ijcai.org/proceedings/2025/0395.pdf
    """

    info = Info(
        family="feed-forward",
        summary="Mixes features on the sphere, more of the one that agrees with the fused prediction of the batch.",
        paper="Yang et al., Towards Equilibrium: An Instantaneous Probe-and-Rebalance Multimodal Learning Approach, "
        "IJCAI 2025",
        url="https://www.ijcai.org/proceedings/2025/0395.pdf",
        forward="1 (and the fusion twice)",
        fusions="Geodesic",
        state="the share of each pair, in the fusion",
    )
    whole_batch = "its loss mixes features in shares that it probes the batch for"
    tasks = (SingleLabel,)
    own_heads = True
    default_fusion = "Geodesic"

    def __init__(self, alpha: float = 0.8):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0, high=1)

    def setup(self, run: Run) -> None:
        if not isinstance(run.model.fusion, Geodesic):
            raise ValueError(
                f"IPRM mixes features on the sphere; this model has fusion={type(run.model.fusion).__name__}. "
                "Use fusion=Geodesic (heads=True)."
            )

    def objective(self, step: Step) -> Tensor:
        return self._learn(step)[0]

    def step(self, step: Step) -> Tensor:
        with step.ascent(self.objective):
            loss, omega = self._learn(step)
            step.backward(loss)
        step.update()
        _geodesic(step.model).lam.lerp_(omega, 1 - self.alpha)
        return loss.detach()

    def _learn(self, step: Step) -> tuple[Tensor, Tensor]:
        """The loss, and the (pairs,) shares it was taken at: those of the fusion for pairs that were not drawn."""
        fusion, z, there = _geodesic(step.model), step.encode(), has(step)
        names = step.model.modalities
        both = {pair: there[:, [names.index(m) for m in pair]].all(1) for pair in fusion.pairs}
        drawn = range(len(fusion.pairs))
        if fusion.single:
            drawn = torch.randint(len(fusion.pairs), (1,), generator=step.generator).tolist()
        omega = fusion.lam.clone()
        for i in drawn:
            omega[i] = self._probe({m: z[m] for m in fusion.pairs[i]}, both[fusion.pairs[i]], omega[i], step)
        with fusion.hold(omega):
            mixed = [(step.fuse({m: z[m] for m in fusion.pairs[i]}), both[fusion.pairs[i]]) for i in drawn]
        step.log(**{f"{'+'.join(pair)}/share": share for pair, share in zip(fusion.pairs, omega, strict=True)})
        losses = [step.criterion(pair.logits, present=rows) for pair, rows in mixed]
        losses += [step.criterion(fusion.head_of(m)(z[m]), present=step.present(m)) for m in names]
        return torch.stack(losses).sum(), omega

    @torch.no_grad()
    def _probe(self, pair: dict[str, Tensor], both: Tensor, lam: Tensor, step: Step) -> Tensor:
        """Share of the first of two modalities; the share of before where no sample has both."""
        output = step.fuse(pair)
        K, count = mean_scores(step, (distillation_losses(output.logits, u) for u in output.unimodal.values()), both)
        return torch.where(count > 0, agreement_share(K[0], K[1]), lam)

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        unimodal, there = torch.stack(list(output.unimodal.values())), output.there()
        several = presence(unimodal, there).sum(0) > 1
        return torch.where(several.unsqueeze(1), output.logits, 0.0) + rules.total(unimodal, there)


def _geodesic(model: MultimodalModel) -> Geodesic:
    """The fusion, which ``setup`` has checked."""
    assert isinstance(model.fusion, Geodesic)
    return model.fusion
