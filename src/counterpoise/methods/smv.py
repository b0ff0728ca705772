"""SMV: find the modality that contributes little to a sample, and show the sample again with only that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import choice, number, whole
from counterpoise.functional.shapley import coalitions, sampled_orders
from counterpoise.functional.valuation import smv_copies, smv_draws, smv_gaps, smv_values, training_list
from counterpoise.method import Info, Method
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.data.split import Split
    from counterpoise.engine import Run, Step


class SMV(Method):
    r"""Re-sample the training data by what each modality contributes to each sample.

    The contribution :math:`\phi_m` of a modality to a sample is its Shapley value in the game

    .. math:: v(S) = |S| \cdot [\text{the prediction from the modalities } S \text{ is right}]

    After warm-up, before each epoch and always starting from the original data:

    * by sample, each sample is shown 1, 2 or 3 more times with only m visible, for
      :math:`\phi_m` in [0.4, 1), [-0.1, 0.4), and below;
    * by modality, :math:`\phi_m` is averaged over a random part of the data and
      :math:`\lfloor \tfrac43 \alpha N \max(0, \overline\phi - \overline{\phi_m}) \rfloor` random samples are shown
      again with only m visible. For two modalities that is 2/3 of the difference of their averages.

    The loss is the cross-entropy of the fused logits throughout.

    Args:
        granularity: "sample" or "modality".
        warmup: epochs of plain training before the first valuation, at least 1.
        part: share of the training data that is valued, drawn with replacement, in (0, 1];
            by modality only.
        alpha: strength of the re-sampling, at least 0; by modality only.

    Source: Wei et al., Enhancing Multimodal Cooperation via Sample-level Modality Valuation, CVPR 2024,
    https://arxiv.org/abs/2309.06255
    """

    info = Info(
        family="data",
        summary="Shows samples again with only the modality visible that contributed less than its share to them.",
        paper="Wei et al., Enhancing Multimodal Cooperation via Sample-level Modality Valuation, CVPR 2024",
        url="https://arxiv.org/abs/2309.06255",
        forward="1, over up to 5 times the batches (M = 2); + 1 evaluation of the training data per epoch",
        backward="1, over the same batches",
        state="the training list",
    )
    whole_batch = None

    def __init__(self, granularity: str = "sample", warmup: int = 5, part: float = 0.2, alpha: float = 1.0):
        super().__init__()
        self.granularity = choice("granularity", granularity, ("sample", "modality"))
        self.warmup = whole("warmup", warmup, low=1)
        self.part = number("part", part, above=0, high=1)
        self.alpha = number("alpha", alpha, low=0)

    def forward(self, step: Step) -> Output:
        return step.forward(unimodal=False)

    def must_own_loop(self) -> str | None:
        return "it chooses the samples of every epoch"

    def on_epoch_end(self, run: Run, scores: Mapping[str, float]) -> None:
        if not self.warmup <= run.epoch + 1 < run.epochs:
            return
        copies = self._by_sample(run) if self.granularity == "sample" else self._by_modality(run)
        if copies.any():
            run.resample(*training_list(copies, run.model.modalities, run.train_split.present))
        else:
            run.resample(None)

    def _by_sample(self, run: Run) -> Tensor:
        """(samples, modalities): how many copies of each."""
        split = run.train_split
        copies = smv_copies(self.value(run, split))
        for i, m in enumerate(run.model.modalities):
            if split.present is not None and m in split.present:
                copies[:, i] *= split.present[m]  # nothing to show
        return copies

    def _by_modality(self, run: Run) -> Tensor:
        """(samples, modalities): how many copies of each."""
        split, names = run.train_split, run.model.modalities
        count = max(1, int(self.part * len(split)))
        part = split.subset(torch.randint(len(split), (count,), generator=run.generator))
        draws = smv_draws(smv_gaps(self.value(run, part), names, part.present), len(split), self.alpha)
        copies = torch.zeros(len(split), len(names), dtype=torch.int64)
        for i, (m, wanted) in enumerate(zip(names, draws.tolist(), strict=True)):
            if wanted == 0:
                continue
            pool = torch.arange(len(split))
            if split.present is not None and m in split.present:
                pool = pool[split.present[m]]
            chosen = pool[torch.randint(len(pool), (wanted,), generator=run.generator)]
            copies[:, i] = chosen.bincount(minlength=len(split))
        return copies

    def value(self, run: Run, split: Split) -> Tensor:
        """(samples, modalities) contributions, from one pass of the encoders and one fusion per subset."""
        names = run.model.modalities
        orders = sampled_orders(names, generator=run.generator)
        subsets = coalitions(names, orders)
        predictions = run.predict_subsets(split, subsets)
        right = {
            s: run.task.hits(predicted.fused, predicted.target)
            for s, predicted in zip(subsets, predictions, strict=True)
        }
        return smv_values(right, names, split.present, orders)
