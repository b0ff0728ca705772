"""Gated multimodal units."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.fusions.base import Features, Fusion
from counterpoise.types import Present


class Gated(Fusion):
    r"""Gated multimodal unit (Arevalo et al., 2017) for any number of modalities.

    .. math:: h_m = \tanh(V_m z_m), \quad g_m = \sigma\Big(\sum_k G_{mk} z_k\Big), \quad
              u = W \sum_m g_m \odot h_m + b

    Without biases before the last layer, an absent modality (:math:`z_m = 0`) adds to no gate and
    nothing to the sum.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        dim: width of the gated space.
        heads: give each modality a linear head of its own (see ``Fusion``).
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, dim: int = 256, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.dim = whole("dim", dim, low=1)
        self.values = nn.ModuleDict({m: nn.Linear(d, dim, bias=False) for m, d in dims.items()})
        self.gates = nn.ModuleDict({m: nn.Linear(d, len(dims) * dim, bias=False) for m, d in dims.items()})
        self.classify = nn.Linear(dim, num_classes)

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.classify(self.embed(features, present))

    def embed(self, features: Features, present: Present) -> Tensor:
        scores = torch.stack([self.gates[m](z) for m, z in features.items()]).sum(0)
        gates = dict(zip(self.dims, scores.sigmoid().split(self.dim, dim=1), strict=True))
        return torch.stack([gates[m] * self.values[m](z).tanh() for m, z in features.items()]).sum(0)
