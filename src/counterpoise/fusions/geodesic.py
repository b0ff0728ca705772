"""Features mixed on the unit sphere, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from counterpoise.functional.cosines import unit_rows
from counterpoise.functional.geodesic import geodesic
from counterpoise.fusions.base import Features, Fusion, one_width
from counterpoise.types import Present, who_has


class Geodesic(Fusion):
    r"""A linear layer on the point between two features on the unit sphere, for each pair of modalities.

    .. math:: z_{ab} = \frac{\sin \lambda\theta}{\sin\theta}\, \bar z_a
              + \frac{\sin (1-\lambda)\theta}{\sin\theta}\, \bar z_b, \qquad
              \bar z = z / \lVert z\rVert, \quad \theta = \arccos\langle \bar z_a, \bar z_b\rangle

    The fused logits are the mean of what the pairs say that a sample has both modalities of. A sample with one
    modality is read by the layers of all its pairs, at that modality's end of the way.

    Args:
        dims: modality -> width of its feature; all equal.
        num_classes: number of classes.
        single: one linear layer for all pairs.
        heads: also give each modality a linear head of its own (see ``Fusion``).

    Attributes:
        pairs: the pairs of modalities, in the order of their names; of one modality, that alone.
        lam: (pairs,) share of the first modality of each pair, 1/2 until a method sets it.

    Raises:
        ValueError: when the widths differ.

    Source: Yang et al., Towards Equilibrium: An Instantaneous Probe-and-Rebalance Multimodal Learning Approach,
    IJCAI 2025, https://www.ijcai.org/proceedings/2025/0395.pdf
    """

    lam: Tensor

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, single: bool = False, heads: bool = False):
        width = one_width(type(self).__name__, dims)
        super().__init__(dims, num_classes, heads=heads)
        self.single = single
        self.pairs = tuple(combinations(sorted(dims), min(2, len(dims))))
        layers = 1 if single else len(self.pairs)
        self.mixers = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(layers))
        self.register_buffer("lam", torch.full((len(self.pairs),), 0.5))
        self._held: Tensor | None = None

    @contextmanager
    def hold(self, lam: Tensor) -> Iterator[None]:
        """Inside, fuse with these (pairs,) shares instead of ``lam``."""
        before, self._held = self._held, lam
        try:
            yield
        finally:
            self._held = before

    def fuse(self, features: Features, present: Present) -> Tensor:
        there = self._there(features, present)
        votes, weights = [], []
        for i in self._asked(features, present):
            votes.append(self.mixers[0 if self.single else i](self._point(i, features, there)))
            weights.append(torch.stack([there[m] for m in self.pairs[i] if m in features]).sum(0))
        vote, has = torch.stack(votes), torch.stack(weights)
        counted = (has == has.amax(0)).to(vote.dtype)  # whole pairs; else those that the sample has one of
        return torch.einsum("pb,pbc->bc", counted / counted.sum(0), vote)

    def embed(self, features: Features, present: Present) -> Tensor:
        there = self._there(features, present)
        return torch.cat([self._point(i, features, there) for i in self._asked(features, present)], dim=1)

    def _there(self, features: Features, present: Present) -> dict[str, Tensor]:
        """Modality -> (batch,) bool: who has it."""
        return {m: who_has(m, present, z.shape[0], z.device) for m, z in features.items()}

    def _asked(self, features: Features, present: Present) -> list[int]:
        """Which pairs some sample may be read by: whole ones where all samples have one."""
        some = [i for i, pair in enumerate(self.pairs) if any(m in features for m in pair)]
        whole = [i for i in some if all(m in features for m in self.pairs[i])]
        return some if not whole or (present and any(m in present for m in features)) else whole

    def _point(self, index: int, features: Features, there: Mapping[str, Tensor]) -> Tensor:
        """(batch, dim): where the samples are on the way between the modalities of a pair."""
        pair = [m for m in self.pairs[index] if m in features]
        if len(pair) == 1:
            return unit_rows(features[pair[0]])
        a, b = (features[m] for m in pair)
        lam = (self.lam if self._held is None else self._held)[index]
        both = (there[pair[0]] & there[pair[1]]).unsqueeze(1)
        return torch.where(both, geodesic(a, b, lam), unit_rows(a) + unit_rows(b))  # one of them is zero
