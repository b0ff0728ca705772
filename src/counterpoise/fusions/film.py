"""Feature-wise linear modulation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.fusions.base import Features, Fusion, mask_of
from counterpoise.types import Present


class FiLM(Fusion):
    r"""FiLM (Perez et al., AAAI 2018), made symmetric for any number of modalities.

    Each feature, projected to a common width, is scaled and shifted by what the others say:

    .. math:: h_m = V_m z_m, \quad (\gamma_m, \beta_m) = \operatorname{mean}_{k \ne m} F_k(z_k), \quad
              u = W \operatorname{mean}_m \big((1 + \gamma_m) \odot h_m + \beta_m\big) + b

    with means over the modalities the sample has. Alone, a modality is left as it is.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        dim: the common width.
        heads: give each modality a linear head of its own (see ``Fusion``).
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, dim: int = 256, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.dim = whole("dim", dim, low=1)
        self.projections = nn.ModuleDict({m: nn.Linear(d, dim) for m, d in dims.items()})
        self.films = nn.ModuleDict({m: nn.Linear(d, 2 * dim) for m, d in dims.items()})
        self.classify = nn.Linear(dim, num_classes)

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.classify(self.embed(features, present))

    def embed(self, features: Features, present: Present) -> Tensor:
        masks = torch.stack([mask_of(m, features, present) for m in features])
        h = torch.stack([self.projections[m](z) for m, z in features.items()])
        films = masks * torch.stack([self.films[m](z) for m, z in features.items()])
        others = (masks.sum(0) - masks).clamp(min=1)
        gamma, beta = ((films.sum(0) - films) / others).chunk(2, dim=-1)
        return (masks * ((1 + gamma) * h + beta)).sum(0) / masks.sum(0).clamp(min=1)
