"""One head that every modality goes through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from counterpoise._checks import did_you_mean
from counterpoise.fusions.base import Features, one_width
from counterpoise.fusions.late import Vote, head
from counterpoise.types import Present


class Shared(Vote):
    """One head for all modalities, as MLA needs; a rule combines what it says of each.

    Args:
        dims: modality -> width of its feature; all equal.
        num_classes: number of classes.
        rule: as in ``Late``.
        hidden: widths of the head's hidden layers; () is one linear layer.
        heads: also give each modality a linear head of its own (see ``Fusion``).

    Raises:
        ValueError: when the widths differ, or for rule "pool" with ``heads``.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        num_classes: int,
        *,
        rule: str = "mean",
        hidden: Sequence[int] = (),
        heads: bool = False,
    ):
        width = one_width(type(self).__name__, dims)
        super().__init__(dims, num_classes, rule=rule, hidden=hidden, heads=heads)
        if self.pool is not None and heads:
            raise ValueError(
                "Shared(rule='pool') is fitted on the unimodal predictions, and with heads=True these are not those of "
                "the shared head. Build it with heads=False, or pool the fused prediction and the heads by "
                "build_model(..., pool=True)."
            )
        self.head = head(width, self.hidden, num_classes)

    @property
    def unimodal_by(self) -> str:
        return super().unimodal_by if self.has_own_heads else "the shared head"

    def votes(self, features: Features) -> dict[str, Tensor]:
        return {m: self.head(z) for m, z in features.items()}

    def both(self, features: Features, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
        votes = self.votes(features)
        unimodal = {m: self.own_heads[m](z) for m, z in features.items()} if self.has_own_heads else votes
        return self.combine(votes, present), unimodal

    def head_of(self, modality: str) -> nn.Module:
        """The shared head, or the modality's own when there are heads."""
        if modality not in self.dims:
            raise ValueError(did_you_mean("modality", modality, self.dims))
        return super().head_of(modality) if self.has_own_heads else self.head
