"""Every modality votes with a head of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from counterpoise._checks import choice
from counterpoise.fusions import rules
from counterpoise.fusions.base import Features, Fusion, Present


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

    temperature: Tensor
    weight: Tensor

    def __init__(
        self, dims: Mapping[str, int], num_classes: int, *, rule: str, hidden: Sequence[int], heads: bool = False
    ):
        super().__init__(dims, num_classes, heads=heads)
        self.rule, self.hidden = choice("rule", rule, rules.RULES), tuple(hidden)
        self.additive = rule == "sum" and not heads
        if rule == "calibrated":
            self.register_buffer("temperature", torch.ones(len(dims)))
            self.register_buffer("weight", torch.full((len(dims),), 1 / len(dims)))

    def votes(self, features: Features) -> dict[str, Tensor]:
        """Modality -> (batch, classes): what is combined."""
        raise NotImplementedError

    def combine(self, unimodal: Mapping[str, Tensor], present: Present = None) -> Tensor:
        """The rule applied to logits of any non-empty subset of the modalities, (batch, classes)."""
        logits, there = torch.stack(list(unimodal.values())), _stack(unimodal, present)
        if self.rule == "mean":
            return rules.mean(logits, there)
        if self.rule == "entropy":
            return rules.entropy(logits, there)
        if self.rule == "sum":
            return rules.total(logits, there)
        rows = self._rows(unimodal)
        return rules.calibrated(logits, there, self.temperature[rows], self.weight[rows])

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.combine(self.votes(features), present)

    def calibrate(self, unimodal: Mapping[str, Tensor], target: Tensor, present: Present = None) -> None:
        """Rule "calibrated": temperatures and weights that minimise the loss on these outputs.

        Modalities that are not in ``unimodal`` keep theirs. Other rules have nothing to fit.
        """
        if self.rule != "calibrated":
            return
        logits = torch.stack(list(unimodal.values()))
        temperature, weight = rules.fit_calibration(logits, target, _stack(unimodal, present))
        rows = self._rows(unimodal)
        with torch.no_grad():
            share = self.weight[rows].sum()
            self.temperature[rows] = temperature.to(self.temperature)
            self.weight[rows] = weight.to(self.weight) * share

    def _rows(self, unimodal: Mapping[str, Tensor]) -> list[int]:
        order = list(self.dims)
        return [order.index(m) for m in unimodal]


class Late(Vote):
    """Late fusion: a head per modality and a rule that combines what they say.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        rule: ``"mean"`` of the probabilities (as logits: its logarithm); ``"entropy"``, logits
            weighted per sample by softmax(-entropy) over the modalities (MLA); ``"sum"`` of the
            logits; ``"calibrated"``, mean of probabilities with one temperature and one weight per
            modality, fitted on the validation split after training. Each over the modalities the
            sample has.
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


def _stack(unimodal: Mapping[str, Tensor], present: Present) -> Tensor | None:
    """``present`` as (modalities, batch) bool in the order of ``unimodal``."""
    if present is None:
        return None
    everyone = torch.ones_like(next(iter(present.values()))) if present else None
    return None if everyone is None else torch.stack([present.get(m, everyone) for m in unimodal])
