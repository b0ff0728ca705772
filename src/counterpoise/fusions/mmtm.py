"""Multimodal transfer: what all modalities say sets how much of each feature is let through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from counterpoise._checks import number
from counterpoise.fusions.base import Features, Fusion, mask_of
from counterpoise.fusions.concat import applied, blocks
from counterpoise.types import Present


class MMTM(Fusion):
    r"""The last block of a multimodal transfer module (Joze et al., 2020), on pooled features, and a head per modality.

    .. math:: e = \mathrm{ReLU}\Bigl(\sum_m S_m z_m + b\Bigr), \quad g_m = \sigma(E_m e + c_m), \quad
              u_m = h_m(g_m \odot z_m), \quad f = \tfrac1M \sum_m u_m

    A gate per channel commutes with global average pooling, so after the last stage of an encoder this is the block
    itself; blocks after earlier stages would need encoders that run in step. The mean is over the modalities that a
    sample has. What a modality says alone is its :math:`u_m` with every other left out of the squeeze.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        ratio: e is 2 / ``ratio`` times as wide as all features together, > 0.
        heads: also give each modality a linear head of its own on its raw feature (see ``Fusion``).

    Source: Joze et al., MMTM: Multimodal Transfer Module for CNN Fusion, CVPR 2020, https://arxiv.org/abs/1911.08670
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, ratio: float = 4.0, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.ratio = number("ratio", ratio, above=0)
        width = max(1, int(2 * sum(dims.values()) / ratio))
        self.squeeze, self.bias = blocks(dims, width)
        self.excite = nn.ModuleDict({m: nn.Linear(width, d) for m, d in dims.items()})
        self.classify = nn.ModuleDict({m: nn.Linear(d, num_classes) for m, d in dims.items()})
        self._held: Mapping[str, Tensor] = {}

    @contextmanager
    def hold(self, gates: Mapping[str, Tensor]) -> Iterator[None]:
        """Inside, these modalities are gated by these (dim,) numbers and not by what the others say."""
        before, self._held = self._held, gates
        try:
            yield
        finally:
            self._held = before

    def gates(self, features: Features) -> dict[str, Tensor]:
        """Modality -> (batch, dim) in (0, 1): how much of each entry is let through."""
        e = applied(self.squeeze, self.bias, features).relu()
        live = {m: self.excite[m](e).sigmoid() for m in features if m not in self._held}
        return {m: live[m] if m in live else self._held[m].expand_as(z) for m, z in features.items()}

    def votes(self, features: Features) -> dict[str, Tensor]:
        """Modality -> (batch, classes): logits of its gated feature."""
        gates = self.gates(features)
        return {m: self.classify[m](gates[m] * z) for m, z in features.items()}

    def fuse(self, features: Features, present: Present) -> Tensor:
        there = torch.stack([mask_of(m, features, present) for m in features])
        total = (there * torch.stack(list(self.votes(features).values()))).sum(0)
        return total / there.sum(0).clamp(min=1)

    def embed(self, features: Features, present: Present) -> Tensor:
        gates = self.gates(features)
        return torch.cat([gates[m] * z for m, z in features.items()], dim=1)

    def parts(self, modality: str) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of its own path (its head), and of the way that the others reach it by (the gate)."""
        shared = [*self.squeeze.parameters(), self.bias]
        return list(self.classify[modality].parameters()), [*self.excite[modality].parameters(), *shared]
