"""Modality dropout: train on samples that lose a modality at random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from counterpoise._checks import number, per_modality
from counterpoise.functional.dropping import keep_mask, sample_uniform
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Run, Step


class ModalityDropout(Method):
    r"""ModDrop: hide each modality of each sample with a fixed probability.

    .. math:: k_{i,m} \sim \mathrm{Bernoulli}(1 - p_m), \qquad
              L = CE\bigl(\mathrm{fuse}(\{z_{i,m} : k_{i,m} = 1\}), y_i\bigr)

    A hidden modality is absent to the fusion, just as one that a sample lacks, and its encoder gets no gradient
    from that sample. A sample that would lose everything it has keeps it. Evaluation hides nothing.

    Args:
        p: probability for every modality, in [0, 1), or modality -> probability (0 for those not named).

    Source: Neverova et al., ModDrop: Adaptive Multi-modal Gesture Recognition, TPAMI 2016,
    https://arxiv.org/abs/1501.00102
    """

    info = Info(
        family="feed-forward",
        summary="Hides each modality of each sample at random.",
        paper="Neverova et al., ModDrop: Adaptive Multi-modal Gesture Recognition, TPAMI 2016",
        url="https://arxiv.org/abs/1501.00102",
    )
    whole_batch = None

    def __init__(self, p: float | Mapping[str, float] = 0.2):
        super().__init__()
        if isinstance(p, Mapping):
            self.p = {m: number(f"p[{m!r}]", rate, low=0, below=1) for m, rate in p.items()}
        else:
            self.p = number("p", p, low=0, below=1)

    def setup(self, run: Run) -> None:
        if isinstance(self.p, Mapping):
            per_modality("p", self.p, run.model.modalities)

    def forward(self, step: Step) -> Output:
        z = step.encode()
        rates = [self.p.get(m, 0.0) if isinstance(self.p, Mapping) else self.p for m in z]
        if not any(rates):
            return step.fuse(z, unimodal=False)
        u, there = sample_uniform(step.batch.index, len(z), step.generator), has(step)
        shown = there & keep_mask(u, torch.tensor(rates).to(u.device, non_blocking=True), there)
        return step.fuse(z, {m: shown[:, i] for i, m in enumerate(z)}, unimodal=False)
