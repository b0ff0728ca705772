"""LFM: align the modalities first, classify later."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.data.splitting import holdout as split_off
from counterpoise.functional.alignment import gap_weight, info_nce, look_ahead
from counterpoise.functional.gradients import flatten
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.method import Info, Method
from counterpoise.methods import _require
from counterpoise.types import Batch, Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step

SCHEDULES = ("heuristic", "learned", "constant")


class LFM(Method):
    r"""Learning the modality gap dynamically: contrastive alignment mixed with classification.

    .. math:: L = (1 - \alpha) L_{CLS} + \alpha L_{MM}, \qquad \alpha_t = 1 - e^{-1/t}

    :math:`L_{CLS}` is the cross-entropy of the fused logits and :math:`L_{MM}` the symmetric InfoNCE between
    the features of two modalities, averaged over the pairs. "learned" moves :math:`\alpha` once per
    epoch against the held-out loss one step ahead,
    :math:`\alpha \leftarrow \mathrm{clip}(\alpha + \eta_\alpha \langle g_{MM} - g_{CLS}, g_V \rangle)`, with
    :math:`g_V` the gradient on a few training samples that are kept out of training.

    Args:
        schedule: "heuristic" (the formula above, epochs ``t`` counted from 1), "learned" or "constant".
        tau: temperature of InfoNCE, > 0.
        alpha: the constant, or where "learned" starts, in [0, 1].
        alpha_lr: :math:`\eta_\alpha` of "learned", >= 0.
        low: least value of the learned weight.
        high: its largest value.
        held: training samples kept out for "learned", at least 1 (a stratified choice by seed).

    Source: Yang et al., Facilitating multimodal classification via dynamically learning modality gap,
    NeurIPS 2024,
    https://papers.nips.cc/paper_files/paper/2024/hash/71b17f00017da0d73823ccf7fbce2d4f-Abstract-Conference.html
    """

    info = Info(
        family="objective",
        summary="Mixes a contrastive alignment of the features with classification, less of it each epoch.",
        paper="Yang et al., Facilitating Multimodal Classification via Dynamically Learning Modality Gap, NeurIPS 2024",
        url="https://papers.nips.cc/paper_files/paper/2024/hash/71b17f00017da0d73823ccf7fbce2d4f-Abstract-Conference.html",
        fusions="Sum, Late(rule='sum'), Concat; features of one width",
        state="the weight, when it is learned",
    )
    whole_batch = "its loss compares the samples of a batch with each other"
    default_fusion = "Sum"
    weight: Tensor

    def __init__(
        self,
        schedule: str = "heuristic",
        tau: float = 0.07,
        alpha: float = 0.95,
        alpha_lr: float = 1e-4,
        low: float = 0.0,
        high: float = 1.0,
        held: int = 16,
    ):
        super().__init__()
        self.schedule = choice("schedule", schedule, SCHEDULES)
        self.tau = number("tau", tau, above=0)
        self.alpha = number("alpha", alpha, low=0, high=1)
        self.alpha_lr = number("alpha_lr", alpha_lr, low=0)
        self.low = number("low", low, low=0, high=1)
        self.high = number("high", high, low=self.low, high=1)
        self.held = whole("held", held, low=1)
        self._unseen: Batch | None = None

    def setup(self, run: Run) -> None:
        model = run.model
        _require.additive(self, model)
        widths = model.fusion.dims
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"LFM needs features of one width; this model has {widths}. Give the encoders a last linear "
                "layer to a common width."
            )
        self.register_buffer("weight", torch.tensor(self.alpha))
        self._unseen = None

    def must_own_loop(self) -> str | None:
        return "it keeps samples out of training to learn its weight from" if self.schedule == "learned" else None

    def on_start(self, run: Run) -> None:
        if self.schedule == "learned":
            run.resample(self._parts(run)[0])

    def on_epoch_start(self, run: Run) -> None:
        if self.schedule == "learned" and self._unseen is None:
            held = run.train_split.subset(self._parts(run)[1])
            rows = torch.arange(len(held))
            inputs = {m: held.batch(rows.tolist(), m, None) for m in run.model.modalities}
            self._unseen = run.fabric.to_device(Batch(inputs, held.target, rows, held.present, held.weight))

    def step(self, step: Step) -> Tensor:
        if self.schedule == "learned" and step.index == 0:
            self._learn(step)
        return super().step(step)

    def loss(self, output: Output, step: Step) -> Tensor:
        if self.schedule == "learned":
            return (1 - self.weight) * self._classification(output, step) + self.weight * self._alignment(output, step)
        alpha = gap_weight(step.epoch + 1) if self.schedule == "heuristic" else self.alpha
        if alpha == 0:
            return self._classification(output, step)
        if alpha == 1:
            return self._alignment(output, step)
        return (1 - alpha) * self._classification(output, step) + alpha * self._alignment(output, step)

    def _classification(self, output: Output, step: Step) -> Tensor:
        return step.criterion(output.logits, step.batch.target)

    def _alignment(self, output: Output, step: Step) -> Tensor:
        everyone = {m: step.gather(z) for m, z in output.features.items()}  # samples are told apart in the global batch
        present = {m: None if (p := step.present(m)) is None else step.gather(p) for m in everyone}
        pairs = [
            info_nce(everyone[a], everyone[b], self.tau, _both(present[a], present[b]))
            for a, b in combinations(everyone, 2)
        ]
        return torch.stack(pairs).mean()

    def _learn(self, step: Step) -> None:
        assert self._unseen is not None
        params = step.trainable()
        with frozen_statistics(step.model):
            output = step.forward()
            alignment = flatten(step.grad(self._alignment(output, step), params))
            classification = flatten(step.grad(self._classification(output, step), params, retain=False))
            unseen = step.model(self._unseen.inputs, present=self._unseen.present)
            held_loss = step.criterion(unseen.logits, self._unseen.target, weight=self._unseen.weight)
            held = flatten(step.grad(held_loss, params, retain=False))
        moved = look_ahead(self.weight, alignment, classification, held, self.alpha_lr, self.low, self.high)
        self.weight.copy_(moved)

    def _parts(self, run: Run) -> tuple[Tensor, Tensor]:
        """Positions to train on and positions kept out; the same at every call."""
        target = run.train_split.target
        if self.held >= len(target):
            raise ValueError(f"held must be less than the {len(target)} training samples; got {self.held}.")
        kept, held = split_off(run.task.strata(target), self.held / len(target), run.seed)
        return torch.from_numpy(kept), torch.from_numpy(held)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Who has both."""
    if a is None or b is None:
        return b if a is None else a
    return a & b
