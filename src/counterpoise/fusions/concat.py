"""Concatenation and one linear layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from counterpoise.fusions.base import Features, Fusion
from counterpoise.types import Present


def blocks(dims: Mapping[str, int], width: int) -> tuple[nn.ModuleDict, nn.Parameter]:
    """One linear layer on concatenated features as a layer without bias per modality, and its bias (width,).

    Initialised as the whole layer, with its fan-in and its random draws, then cut.
    """
    whole = nn.Linear(sum(dims.values()), width)
    like = {"device": whole.weight.device, "dtype": whole.weight.dtype}
    cut = nn.ModuleDict()
    for (m, d), columns in zip(dims.items(), whole.weight.detach().split(list(dims.values()), dim=1), strict=True):
        block = nn.utils.skip_init(nn.Linear, d, width, bias=False, **like)
        block.weight = nn.Parameter(columns.clone())
        cut[m] = block
    return cut, whole.bias


def applied(layers: nn.ModuleDict, bias: Tensor, features: Features) -> Tensor:
    """The layer of ``blocks`` on the features that are there, (batch, width)."""
    return torch.stack([layers[m](z) for m, z in features.items()]).sum(0) + bias


class Concat(Fusion):
    r"""One linear layer on the concatenated features, stored as one block of columns per modality.

    .. math:: u = W [z_1; \dots; z_M] + b = \sum_m W_m z_m + b, \qquad u_m = W_m z_m + b / M

    so the unimodal logits :math:`u_m` are exact and sum to the fused ones. Absent modalities
    contribute nothing: what remains is the same layer on features padded with zeros.

    Args:
        dims: modality -> width of its feature.
        num_classes: number of classes.
        heads: also give each modality a linear head of its own (see ``Fusion``). The unimodal
            logits are then those of the heads, and the fusion is not ``additive``.

    Attributes:
        blocks: modality -> linear layer without bias, :math:`W_m`.
        bias: (classes,), :math:`b`.
    """

    def __init__(self, dims: Mapping[str, int], num_classes: int, *, heads: bool = False):
        super().__init__(dims, num_classes, heads=heads)
        self.additive = not heads
        self.blocks, self.bias = blocks(dims, num_classes)

    @property
    def unimodal_by(self) -> str:
        return super().unimodal_by if self.has_own_heads else "its slice of the fused layer"

    def fuse(self, features: Features, present: Present) -> Tensor:
        return applied(self.blocks, self.bias, features)

    def split(self, features: Features, present: Present) -> dict[str, Tensor]:
        return {m: self.blocks[m](z) + self.bias / len(self.dims) for m, z in features.items()}

    def head_of(self, modality: str) -> nn.Module:
        """Its own head when there are heads, else its block of the fused layer (which has no bias)."""
        if modality in self.blocks and not self.has_own_heads:
            return self.blocks[modality]
        return super().head_of(modality)
