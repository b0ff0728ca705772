"""The fusions of several models that were trained alike, as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from counterpoise.fusions.base import Features, Fusion
from counterpoise.task import SingleLabel, Task
from counterpoise.types import Present


class Committee(Fusion):
    r"""What K models say, kind by kind: on all modalities, and on each of them alone.

    .. math:: u = \frac1K \sum_k \log \mathrm{softmax}\, u^{(k)}, \qquad
              u_m = \frac1K \sum_k \log \mathrm{softmax}\, u^{(k)}_m

    Of labels the logits, and of numbers the predictions, are averaged. A member that is not finite is left out. Its
    parts are trained already: a model with ``pool=True`` fits the pool of these experts, as many as one member has.

    Args:
        dims: modality -> width of its feature: those of the members side by side.
        num_classes: number of classes, labels or numbers.
        members: the fusions.
        starts: of each member, modality -> the column at which its own feature begins.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        members: Iterable[Fusion],
        starts: Sequence[Mapping[str, int]],
    ):
        super().__init__(dims, num_classes)
        self.members, self.starts = nn.ModuleList(members), [dict(start) for start in starts]

    @property
    def unimodal_by(self) -> str:
        return "the heads of it alone"

    def predict(self, task: Task) -> None:
        super().predict(task)
        for member in self._each():
            member.predict(task)

    def _each(self) -> list[Fusion]:
        return [member for member in self.members if isinstance(member, Fusion)]

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.both(features, present)[0]

    def both(self, features: Features, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
        fused, unimodal = [], {m: [] for m in features}
        for member, starts in zip(self._each(), self.starts, strict=True):
            own = {m: z[:, starts[m] : starts[m] + member.dims[m]] for m, z in features.items()}
            logits, alone = member(own, present)
            fused.append(logits)
            for m, u in alone.items():
                unimodal[m].append(u)
        return self._mean(fused), {m: self._mean(votes) for m, votes in unimodal.items()}

    def _mean(self, votes: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(list(votes))
        stacked = stacked.log_softmax(-1) if isinstance(self.task, SingleLabel) else stacked
        finite = stacked.isfinite().all(-1, keepdim=True)
        return stacked.masked_fill(~finite, 0).sum(0) / finite.sum(0)  # NaN where none is
