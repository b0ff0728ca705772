"""DI-MML: modalities train apart, teach each other what they lack, and are fused when they are done."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from counterpoise._checks import number, whole
from counterpoise.functional.detached import class_means, effective_dimensions, lesson, vote_weights
from counterpoise.fusions.base import one_width
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has, labelled_features
from counterpoise.task import SingleLabel
from counterpoise.types import Output, Phase

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step
    from counterpoise.model import MultimodalModel


class DIMML(Method):
    r"""Detached and interactive multimodal learning (DI-MML).

    First the encoders train apart, each on its own head :math:`u_m` and on one head g that all share, and from some
    epoch on teach each other:

    .. math:: L = \sum_m \bigl[ \mathrm{CE}(u_m) + w\, \mathrm{CE}(g(z_m)) \bigr]
              + \frac{1}{M - 1} \sum_{a \ne b} \operatorname{mean}_i
              -\log \frac{\exp(z_{b,i}^S \cdot \mathrm{sg}\, z_{a,i}^S / T)}{\sum_j \exp(z_{b,i}^S \cdot \mathrm{sg}\,
              z_{a,j}^S / T)}

    with :math:`S = S_a \setminus S_b`, and :math:`S_m` the dimensions of modality m in which the nearest class mean is
    the true one for a larger share of the training samples than on average over its dimensions. Then encoders and heads
    are frozen and what fuses them trains on :math:`\mathrm{CE}(f)`. The prediction is the sum of all :math:`u_m` and f
    by :math:`\operatorname{softmax}(\max_c p_c / T')`.

    Args:
        weight: w, at least 0.
        temperature: T, > 0.
        teach_from: epoch, from 0, at which the lessons begin; None for a seventh of the first phase, and at least 1.
        fused_epochs: epochs of the second phase, at least 1; None for an eighth of the run, and at least 1.
        vote_temperature: T', > 0.

    Source: Fan et al., Detached and Interactive Multimodal Learning, ACM Multimedia 2024,
    https://arxiv.org/abs/2407.19514
    """

    info = Info(
        family="alternating",
        summary="Trains modalities apart, has them teach each other what they lack, and fuses them when frozen.",
        paper="Fan et al., Detached and Interactive Multimodal Learning, ACM Multimedia 2024",
        url="https://arxiv.org/abs/2407.19514",
        forward="1, and one evaluation of the training data",
        backward="1, then of the fusion alone",
        fusions="Concat, Gated, FiLM or Attention with heads=True; features of one width",
        state="a head that all modalities share, and which dimensions separate",
    )
    whole_batch = "its loss compares the samples of a batch with each other"
    tasks = (SingleLabel,)
    own_heads = True
    shared: nn.Linear
    effective: Tensor

    def __init__(
        self,
        weight: float = 1.0,
        temperature: float = 50.0,
        teach_from: int | None = None,
        fused_epochs: int | None = None,
        vote_temperature: float = 1.0,
    ):
        super().__init__()
        self.weight = number("weight", weight, low=0)
        self.temperature = number("temperature", temperature, above=0)
        self.teach_from = None if teach_from is None else whole("teach_from", teach_from, low=0)
        self.fused_epochs = None if fused_epochs is None else whole("fused_epochs", fused_epochs, low=1)
        self.vote_temperature = number("vote_temperature", vote_temperature, above=0)

    def setup(self, run: Run) -> None:
        width = one_width("DIMML", run.model.fusion.dims)
        if self._apart(run.epochs) < 1:
            fused = run.epochs - self._apart(run.epochs)
            raise ValueError(
                f"DIMML trains the encoders first and then what fuses, for {fused} of the epochs; {run.epochs} leave "
                "none for the encoders. Raise epochs"
                + ("." if self.fused_epochs is None else " or lower fused_epochs.")
            )
        heads = {id(p) for head in run.model.fusion.own_heads.values() for p in head.parameters()}
        if all(id(p) in heads for p in run.model.fusion.parameters()):
            raise ValueError(
                f"DIMML trains what fuses in its second phase, and fusion {type(run.model.fusion).__name__} has "
                "nothing but the heads of the modalities. Use Concat, Gated, FiLM or Attention."
            )
        self.shared = nn.Linear(width, run.model.num_classes)
        self.register_buffer("effective", torch.zeros(len(run.model.modalities), width, dtype=torch.bool))

    def phase(self, index: int, run: Run) -> Phase | None:
        apart = self._apart(run.epochs)
        phases = [Phase(apart, name="apart"), Phase(run.epochs - apart, fresh_optimizer=True, name="fused")]
        return phases[index] if index < len(phases) else None

    def selectable(self, run: Run) -> bool:
        return run.phase_index == 1

    def on_epoch_start(self, run: Run) -> None:
        if run.phase_index == 1:
            for m in run.model.modalities:
                run.freeze(m)
        elif run.epoch == self._teaches_from(run.phase.epochs):
            self._choose_dimensions(run)

    def loss(self, output: Output, step: Step) -> Tensor:
        if step.phase_index == 1:
            return super().loss(output, step)
        loss = torch.stack([step.unimodal_loss(output, m) for m in output.unimodal]).sum()
        if self.weight:
            shared = {m: self.shared(z) for m, z in output.features.items()}
            alike = [step.criterion(u, present=step.present(m)) for m, u in shared.items()]
            loss = loss + self.weight * torch.stack(alike).sum()
        return loss + self._lessons(output, step) if step.epoch >= self._teaches_from(step.phase.epochs) else loss

    def predict(self, output: Output, model: MultimodalModel) -> Tensor:
        logits, there = torch.stack([*output.unimodal.values(), output.logits]), output.there()
        if there is not None:
            there = torch.cat([there, torch.ones_like(there[:1])])
        return (vote_weights(logits, self.vote_temperature, there).unsqueeze(2) * logits).sum(0)

    def _apart(self, epochs: int) -> int:
        """Epochs of the first phase."""
        return epochs - (max(1, epochs // 8) if self.fused_epochs is None else self.fused_epochs)

    def _teaches_from(self, apart: int) -> int:
        return max(1, apart // 7) if self.teach_from is None else self.teach_from

    def _lessons(self, output: Output, step: Step) -> Tensor:
        """Every modality learns from every other, in the global batch, what the other separates better."""
        names, there = list(output.features), None if step.batch.present is None else step.gather(has(step))
        z = [step.gather(output.features[m]) for m in names]
        lessons = []
        for a, b in permutations(range(len(names)), 2):
            dims = self.effective[a] & ~self.effective[b]  # a mask of factors, so that no step waits for a count
            both = None if there is None else there[:, a] & there[:, b]
            lessons.append(lesson(z[b] * dims, z[a] * dims, self.temperature, both))
        return torch.stack(lessons).sum() / (len(names) - 1)

    def _choose_dimensions(self, run: Run) -> None:
        for i, (m, (features, labels)) in enumerate(labelled_features(run, "train").items()):
            if len(features):
                means = class_means(features, labels, run.model.num_classes)
                self.effective[i] = effective_dimensions(features, labels, means).to(self.effective.device)
            run.log({f"{m}/effective": self.effective[i].float().mean()})
