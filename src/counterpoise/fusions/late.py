"""Every modality votes with a head of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from counterpoise._checks import choice
from counterpoise.functional import rules
from counterpoise.fusions.base import Features, Fusion
from counterpoise.fusions.pool import ExpertPool
from counterpoise.task import Task
from counterpoise.types import Present, stack_present


def head(dim: int, hidden: Sequence[int], num_classes: int) -> nn.Module:
    """Linear layers dim -> hidden... -> classes with ReLU between.

    None comes before the last layer when there are several hidden ones, so that (256, 64) is the
    FC-ReLU-FC-FC of the IGM paper. ``hidden=()`` is one linear layer.
    """
    widths = [dim, *hidden]
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(n_in, n_out))
        if i + 1 < len(hidden) or len(hidden) == 1:
            layers.append(nn.ReLU())
    last = nn.Linear(widths[-1], num_classes)
    return nn.Sequential(*layers, last) if layers else last


class Vote(Fusion):
    """What ``Late`` and ``Shared`` have in common: logits per modality, combined by a rule."""

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, rule: str, hidden: Sequence[int], heads: bool = False
    ):
        super().__init__(dims, num_classes, heads=heads)
        if rule == "calibrated":
            raise ValueError("rule='calibrated' is no more: rule='pool' takes its place and is fitted as it was.")
        self.rule, self.hidden = choice("rule", rule, rules.RULES), tuple(hidden)
        self.additive = rule == "sum" and not heads
        self.pool: ExpertPool | None = None
        self.predict(self.task)

    def predict(self, task: Task) -> None:
        super().predict(task)
        if self.rule == "pool":
            self.pool = ExpertPool(tuple(self.dims), task)

    def votes(self, features: Features) -> dict[str, Tensor]:
        """Modality -> (batch, classes): what is combined."""
        raise NotImplementedError

    def combine(self, unimodal: Mapping[str, Tensor], present: Present = None) -> Tensor:
        """The rule applied to logits of any non-empty subset of the modalities, (batch, classes)."""
        if self.pool is not None:
            return self.pool(unimodal, present)
        logits, there = torch.stack(list(unimodal.values())), stack_present(unimodal, present)
        if self.rule == "mean":
            return self.task.mean(logits, there)
        if self.rule == "entropy":
            return rules.by_certainty(logits, self.task.certainty(logits), there)
        return rules.total(logits, there)

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.combine(self.votes(features), present)

    def calibrate(self, unimodal: Mapping[str, Tensor], target: Tensor, present: Present = None) -> bool:
        if self.pool is None:
            return False
        self.pool.fit(unimodal, target, present)
        return True


class Late(Vote):
    """Late fusion: a head per modality and a rule that combines what they say.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        rule: ``"mean"`` of the probabilities (as logits: its logarithm) or numbers; ``"entropy"``, logits
            weighted per sample by softmax(-entropy) over the modalities (MLA; of numbers, whose predicted
            distributions are all equally wide, the mean); ``"sum"`` of the logits or numbers; ``"pool"``,
            weighted product of the tempered probabilities with a fallback on the best modality
            (``functional.pooling``), fitted on validation when training is over; until then the mean
            of the log-probabilities. Each over the modalities the sample has.
        hidden: widths of the head's hidden layers; the default is FC-ReLU-FC-FC of the IGM paper,
            () one linear layer.
        heads: without effect; accepted so that all fusions are built alike.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        rule: str = "mean",
        hidden: Sequence[int] = (256, 64),
        heads: bool = False,
    ):
        super().__init__(dims, num_classes, rule=rule, hidden=hidden)
        self.heads = heads
        self.own_heads = nn.ModuleDict({m: head(d, self.hidden, num_classes) for m, d in dims.items()})

    def votes(self, features: Features) -> dict[str, Tensor]:
        return {m: self.own_heads[m](z) for m, z in features.items()}

    def both(self, features: Features, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
        unimodal = self.votes(features)
        return self.combine(unimodal, present), unimodal
