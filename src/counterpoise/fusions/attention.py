"""Self-attention over the modalities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.fusions.base import Features, Fusion, mask_of
from counterpoise.types import Present


class Attention(Fusion):
    r"""A pre-norm transformer block over one token per modality and a class token that is read out.

    Tokens are :math:`V_m z_m + e_m` with a learned embedding :math:`e_m` of the modality; those of
    absent modalities are masked out of the attention. No dropout.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        dim: width of a token, a multiple of 4 (the number of attention heads).
        heads: give each modality a linear head of its own (see ``Fusion``).
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, dim: int = 256, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.dim = whole("dim", dim, low=4)
        if dim % 4:
            raise ValueError(f"dim must be a multiple of 4, the number of attention heads; got {dim}.")
        # The bias of a projection is the modality's embedding.
        self.projections = nn.ModuleDict({m: nn.Linear(d, dim) for m, d in dims.items()})
        self.token = nn.Parameter(torch.randn(dim) * 0.02)
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.classify = nn.Linear(dim, num_classes)

    def fuse(self, features: Features, present: Present) -> Tensor:
        return self.classify(self.embed(features, present))

    def embed(self, features: Features, present: Present) -> Tensor:
        tokens = [self.projections[m](z) for m, z in features.items()]
        first = self.token.to(tokens[0].dtype).expand_as(tokens[0])
        masks = torch.cat([mask_of(m, features, present) for m in features], dim=1)
        there = torch.cat([torch.ones_like(masks[:, :1]), masks], dim=1).bool()
        x = torch.stack([first, *tokens], dim=1)
        x = first + self.out(self._attend(self.norms[0](x), there))
        x = x + self.feed(self.norms[1](x))
        return self.norms[2](x)

    def _attend(self, x: Tensor, there: Tensor) -> Tensor:
        """What the class token, the only one read out, collects: (batch, dim).

        Written out, because the fused kernels cannot be differentiated twice.
        """
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 4, dim // 4).unbind(2)
        scores = torch.einsum("bhd,bthd->bht", q[:, 0], k) / (dim // 4) ** 0.5
        weights = scores.masked_fill(~there.unsqueeze(1), -torch.inf).softmax(dim=-1)
        return torch.einsum("bht,bthd->bhd", weights.to(v.dtype), v).reshape(batch, dim)
