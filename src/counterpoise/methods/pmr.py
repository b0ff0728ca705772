"""PMR: pull the weaker modality's features towards class prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.means import masked_mean
from counterpoise.functional.modulation import true_probability
from counterpoise.functional.prototypes import (
    class_sums,
    entropy,
    merge_prototypes,
    pmr_coefficients,
    prototype_logits,
    stratified,
)
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, mean_scores
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class PMR(Method):
    r"""Prototypical modal rebalance: a loss on each encoder's own features, through no classifier and no fusion.

    Before every epoch :math:`c_{m,k} \leftarrow \epsilon c_{m,k} + (1 - \epsilon)\,\mathrm{mean}(z_m \mid y = k)`
    over a part of the training data. In every batch

    .. math::
        q_m = \mathrm{softmax}_k(-\lVert z_m - c_{m,k} \rVert_2), \quad
        s_m = \sum_i q_{m,i}[y_i], \quad
        \beta_m = \mathrm{clip}(s_{max}/s_m - 1, 0, 1), \quad
        \gamma_m = \mathrm{clip}(s_m/s_{min} - 1, 0, 1), \\
        L = CE(u, y) + \alpha \sum_m \beta_m \operatorname{mean}_i(-\log q_{m,i}[y_i])
            - \mu \sum_m \gamma_m H(q_m)

    the entropies H in the first epochs only. Prototypes and coefficients are constants of the loss. At M = 2
    these are the paper's eq. 10 to 13. A class without samples keeps its prototype.

    Args:
        alpha: weight of the prototype losses, at least 0. The paper's 1 or 2, by data set.
        mu: weight of the entropies, at least 0. The paper's 0.01 or 0.001, by data set.
        entropy_epochs: how many epochs have the entropies; the paper says the first few.
        momentum: :math:`\epsilon` in [0, 1].
        fraction: share of the training data that gives the prototypes, of each class, in (0, 1].
        rule: ``"clip"`` is the paper's; ``"switch"`` is the released code's: :math:`\beta = 1` for modalities
            behind the best, and no entropies.

    Attributes:
        prototypes_<modality>: (classes, dim).
        seen_<modality>: (classes,) bool, which classes have a prototype.

    Source: Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023,
    https://arxiv.org/abs/2211.07089
    """

    info = Info(
        family="objective",
        summary="Adds a prototype loss to the weaker modalities, and early on an entropy bonus to the stronger ones.",
        paper="Fan et al., PMR: Prototypical Modal Rebalance for Multimodal Learning, CVPR 2023",
        url="https://arxiv.org/abs/2211.07089",
        forward="1 (and a tenth of the data once more)",
        state="class prototypes per modality",
    )
    whole_batch = "its loss has coefficients that compare the modalities over the batch"
    tasks = (SingleLabel,)

    def __init__(
        self,
        alpha: float = 1.0,
        mu: float = 0.01,
        entropy_epochs: int = 5,
        momentum: float = 0.2,
        fraction: float = 0.1,
        rule: str = "clip",
    ):
        super().__init__()
        self.alpha = number("alpha", alpha, low=0)
        self.mu = number("mu", mu, low=0)
        self.entropy_epochs = whole("entropy_epochs", entropy_epochs, low=0)
        self.momentum = number("momentum", momentum, low=0, high=1)
        self.fraction = number("fraction", fraction, above=0, high=1)
        self.rule = choice("rule", rule, ("clip", "switch"))

    def setup(self, run: Run) -> None:
        model, data = run.model, run.train_split
        for m in model.modalities:
            self.register_buffer(f"prototypes_{m}", torch.zeros(model.num_classes, model.fusion.dims[m]))
            self.register_buffer(f"seen_{m}", torch.zeros(model.num_classes, dtype=torch.bool))
        self._rows = stratified(data.target, self.fraction, torch.Generator().manual_seed(run.seed))

    def on_epoch_start(self, run: Run) -> None:
        totals: dict[str, tuple[Tensor, Tensor]] = {}
        for m in run.model.modalities:
            prototypes, seen = self._prototypes(m)
            totals[m] = torch.zeros_like(prototypes), torch.zeros_like(seen, dtype=prototypes.dtype)
        for batch, output in run.outputs(run.train_split.subset(self._rows), shard=True):
            for m, z in output.features.items():
                rows = None if batch.present is None else batch.present.get(m)
                sums, counts = class_sums(z, batch.target, run.model.num_classes, rows)
                totals[m] = totals[m][0] + sums, totals[m][1] + counts
        for m, (sums, counts) in totals.items():
            prototypes, seen = self._prototypes(m)
            merged, known = merge_prototypes(prototypes, seen, run.sum(sums), run.sum(counts), self.momentum)
            prototypes.copy_(merged)
            seen.copy_(known)

    def loss(self, output: Output, step: Step) -> Tensor:
        loss, target, there = super().loss(output, step), step.batch.target, has(step)
        logits, rows = {}, {}
        for i, (m, z) in enumerate(output.features.items()):
            prototypes, seen = self._prototypes(m)
            logits[m], rows[m] = prototype_logits(z, prototypes, seen), there[:, i] & seen[target]
        compared = torch.stack(list(rows.values())).all(0)
        s, _ = mean_scores(step, (true_probability(q, target) for q in logits.values()), compared)
        beta, gamma = pmr_coefficients(s, self.rule)
        early = step.epoch < self.entropy_epochs
        for m, beta_m, gamma_m in zip(logits, beta, gamma, strict=True):
            own = F.cross_entropy(logits[m], target, reduction="none")
            loss = loss + self.alpha * beta_m * step.average(own, rows[m])
            if early:
                loss = loss - self.mu * gamma_m * masked_mean(entropy(logits[m]), rows[m], step.mean)
        return loss

    def _prototypes(self, modality: str) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"prototypes_{modality}"), self.get_buffer(f"seen_{modality}")
