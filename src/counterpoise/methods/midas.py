"""MIDAS: train on modalities of different samples too, labelled by how sure each modality is of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from counterpoise._checks import number, whole
from counterpoise.functional.means import masked_mean
from counterpoise.functional.misalignment import (
    confidence_shares,
    misaligned_losses,
    under_predicted,
    weak_modality_weights,
)
from counterpoise.functional.modulation import true_probability
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class Told(NamedTuple):
    """Of the misaligned samples of a batch: how many; confidences and ``under_predicted``, (modalities,) means."""

    samples: Tensor
    confidence: Tensor
    signal: Tensor


class MIDAS(Method):
    r"""Misalignment-based data augmentation: multi-task training, and features of different samples put together.

    Two samples i and j of different classes give :math:`(z_{1,i}, z_{2,j})` and :math:`(z_{1,j}, z_{2,i})`. With
    :math:`\tilde c_m \propto p_m[y]` by the head of m and the class of the sample that m was taken from,
    :math:`\tilde s` the cosine of the feature that was swapped in and the one that it replaces, and
    :math:`\tilde p` the fused prediction,

    .. math:: L = \mathrm{CE}(f) + \sum_m \mathrm{CE}(u_m) + \lambda \operatorname{mean}
              \Bigl(1 + \frac{\tilde s + 1}{2}\Bigr) \sum_m \alpha_m \tilde c_m \bigl(-\log \tilde p_{y_m}\bigr)

    After each batch the weight of the least confident modality moves by how much the fused prediction thinks less of it
    than its label, :math:`\alpha_m \leftarrow \max\bigl(1, \alpha_m + \eta \operatorname{mean}(\tilde c_m - \tilde
    p_{y_m} / \sum_j \tilde p_{y_j})\bigr)`, and that of the others is 1. A warm-up trains encoders and heads alone, by
    :math:`\sum_m \mathrm{CE}(u_m)`. With ``lam=0`` and ``warmup=0`` this is multi-task training, bit for bit.

    Args:
        lam: :math:`\lambda`, at least 0.
        eta: :math:`\eta`, at least 0.
        warmup: epochs of encoders and heads alone, at least 0; None for a tenth of the run.

    Source: Hwang et al., MIDAS: Misalignment-based Data Augmentation Strategy for Imbalanced Multimodal Learning,
    NeurIPS 2025, https://arxiv.org/abs/2509.25831
    """

    info = Info(
        family="objective",
        summary="Trains on features of different samples put together, labelled by how sure each modality is.",
        paper="Hwang et al., MIDAS: Misalignment-based Data Augmentation Strategy for Imbalanced Multimodal Learning, "
        "NeurIPS 2025",
        url="https://arxiv.org/abs/2509.25831",
        forward="1 (and the fusion M + 1 times)",
        backward="1 (and the fusion M + 1 times)",
        fusions="any with heads=True",
        state="a weight per modality",
    )
    whole_batch = "its loss compares the samples of a batch with each other"
    tasks = (SingleLabel,)
    own_heads = True
    alpha: Tensor

    def __init__(self, lam: float = 1.0, eta: float = 0.05, warmup: int | None = None):
        super().__init__()
        self.lam = number("lam", lam, low=0)
        self.eta = number("eta", eta, low=0)
        self.warmup = None if warmup is None else whole("warmup", warmup, low=0)
        self._told: Told | None = None

    def setup(self, run: Run) -> None:
        if self._warm(run.epochs - 1, run.epochs):
            raise ValueError(
                f"warmup={self.warmup} leaves none of the {run.epochs} epochs for the fused prediction. Lower warmup "
                "or raise epochs."
            )
        self.register_buffer("alpha", torch.ones(len(run.model.modalities)))

    def selectable(self, run: Run) -> bool:
        return super().selectable(run) and not self._warm(run.epoch, run.epochs)

    def must_finish(self) -> str | None:
        return None if self.warmup == 0 else "its fused prediction is trained after a warm-up only"

    def loss(self, output: Output, step: Step) -> Tensor:
        own = sum(step.unimodal_loss(output, m) for m in output.unimodal)
        if self._warm(step.epoch, step.phase.epochs):
            return torch.as_tensor(own)
        loss = super().loss(output, step) + own
        return loss if self.lam == 0 else loss + self.lam * self._misaligned(output, step)

    @torch.no_grad()
    def modulate(self, output: Output, step: Step) -> None:
        if self._told is None:
            return
        told = self._told
        moved = weak_modality_weights(self.alpha, told.confidence.argmin(), told.signal, self.eta)
        self.alpha.copy_(torch.where(told.samples > 0, moved, self.alpha))
        for m, alpha in zip(step.model.modalities, self.alpha, strict=True):
            step.log(**{f"{m}/alpha": alpha})
        self._told = None

    def _warm(self, epoch: int, epochs: int) -> bool:
        return epoch < (epochs // 10 if self.warmup is None else self.warmup)

    def _misaligned(self, output: Output, step: Step) -> Tensor:
        """Mean loss of the misaligned samples of the global batch; keeps what the weights need of them."""
        names, order = step.model.modalities, step.gather(step.batch.index).argsort(stable=True)
        z = {m: step.gather(output.features[m])[order] for m in names}  # in one order on any number of replicas
        y, complete = step.gather(step.batch.target)[order], step.gather(has(step))[order].all(1)
        sure = torch.stack([true_probability(output.unimodal[m].detach(), step.batch.target) for m in names], dim=1)
        others = [torch.randperm(len(order), generator=step.generator) for _ in names[1:]]
        sources = torch.stack([torch.arange(len(order)), *others])
        turns = [sources.roll(turn, 0) for turn in range(len(names))]  # every modality is once the one that stays
        of = torch.cat(turns, dim=1).to(order.device, non_blocking=True)  # modality m is that of sample of[m]
        confidence = step.gather(sure)[order].T.gather(1, of)
        swapped = y[of] != y.repeat(len(names))
        counts = (complete[of].all(0) & swapped.any(0)).to(confidence.dtype)
        with frozen_statistics(step.model.fusion):
            logits = step.fuse({m: f[rows] for (m, f), rows in zip(z.items(), of, strict=True)}, present={}).logits
        with torch.no_grad():
            replaced = {m: f.repeat(len(names), 1) for m, f in z.items()}
            cosines = [F.cosine_similarity(replaced[m], f[rows]) for (m, f), rows in zip(z.items(), of, strict=True)]
            similarity = (torch.stack(cosines) * swapped).sum(0) / swapped.sum(0).clamp(min=1)
            shares, total = confidence_shares(confidence), counts.sum()
            signal = under_predicted(logits, y[of], shares)
            means = [(values * counts).sum(1) / total.clamp(min=1) for values in (confidence, signal)]
        self._told = Told(total, *means)
        return masked_mean(misaligned_losses(logits, y[of], shares, self.alpha, similarity), counts)
