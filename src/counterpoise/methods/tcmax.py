"""TCMax: tell modalities and label of one sample from those of different samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise._checks import whole
from counterpoise.functional.statistics import frozen_statistics
from counterpoise.functional.total_correlation import log_partition, log_partition_of_sums
from counterpoise.method import Info, Method
from counterpoise.methods._scores import has
from counterpoise.task import SingleLabel
from counterpoise.types import Output

if TYPE_CHECKING:
    from counterpoise.engine import Step


class TCMax(Method):
    r"""Total correlation maximisation: the classifier is the critic of a bound on the total correlation.

    .. math:: L = \log \operatorname{mean}_{j_1, \dots, j_M, c} e^{F(z_{1,j_1}, \dots, z_{M,j_M})_c}
              - \operatorname{mean}_i F(z_{1,i}, \dots, z_{M,i})_{y_i}

    Minus L is the Donsker-Varadhan bound of the total correlation of features and label. Negatives are rows of the
    batch put together, over all classes alike, so the softmax of F is the posterior of the label and predicts as
    usual. Where the fused logits add up, all combinations are used; otherwise some are drawn. A sample that lacks a
    modality contributes its cross-entropy, and to the combinations what it has.

    Args:
        negatives: combinations drawn per batch where the fused logits do not add up, at least 1.

    Source: Yu et al., Multimodal Classification via Total Correlation Maximization, ICLR 2026,
    https://arxiv.org/abs/2602.13015
    """

    info = Info(
        family="objective",
        summary="Tells modalities and label of one sample from those of samples put together.",
        paper="Yu et al., Multimodal Classification via Total Correlation Maximization, ICLR 2026",
        url="https://arxiv.org/abs/2602.13015",
        forward="1 (and a fusion of the drawn rows, where logits do not add up)",
    )
    whole_batch = "its loss compares the samples of a batch with each other"
    tasks = (SingleLabel,)

    def __init__(self, negatives: int = 1024):
        super().__init__()
        self.negatives = whole("negatives", negatives, low=1)

    def loss(self, output: Output, step: Step) -> Tensor:
        complete = has(step).all(1)
        said = output.logits.gather(1, step.batch.target.unsqueeze(1)).squeeze(1)
        alone = torch.where(complete, 0.0, output.logits.logsumexp(1))
        # The partition is of the global batch, and so is the share that it counts with.
        share = step.mean(step.average(complete.to(said.dtype)))
        log_z = self._of_sums(output, step) if step.model.fusion.additive else self._drawn(output, step)
        return share * log_z + step.average(alone - said)

    def _of_sums(self, output: Output, step: Step) -> Tensor:
        there = None if step.batch.present is None else step.gather(has(step)).T
        return log_partition_of_sums(torch.stack([step.gather(u) for u in output.unimodal.values()]), there)

    def _drawn(self, output: Output, step: Step) -> Tensor:
        order = step.gather(step.batch.index).argsort(stable=True)  # however the replicas share the batch
        features = {}
        for m, z in output.features.items():
            present, lent = step.present(m), torch.arange(len(order))
            if present is not None:
                rows_with = step.gather(present)[order].nonzero().flatten().cpu()
                lent = rows_with if len(rows_with) else lent
            rows = lent[torch.randint(len(lent), (self.negatives,), generator=step.generator)]
            features[m] = step.gather(z)[order[rows.to(order.device, non_blocking=True)]]
        with frozen_statistics(step.model.fusion):
            return log_partition(step.fuse(features, present={}, unimodal=False).logits)
