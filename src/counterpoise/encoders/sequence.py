"""Encoders for sequences of feature vectors, where a step of zeros is padding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.encoders._norm import BatchNorm1d
from counterpoise.encoders._pooling import masked_mean


class _Sequence(nn.Module):
    """What both have in common: widths, the padding mask, standardised steps."""

    def __init__(self, in_dim: int, dim: int, *, norm: bool):
        super().__init__()
        self.in_dim, self.dim = whole("in_dim", in_dim, low=1), whole("dim", dim, low=1)
        self.norm = norm
        self.standardise = BatchNorm1d(in_dim, eps=1e-8, affine=False) if norm else nn.Identity()

    def prepare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps (batch, T, in_dim), zero where padded, and where they are not padded (batch, T)."""
        if x.ndim != 3 or x.shape[2] != self.in_dim:
            raise ValueError(
                f"{type(self).__name__}(in_dim={self.in_dim}) takes (batch, T, {self.in_dim}); got {tuple(x.shape)}."
            )
        if not x.is_floating_point():
            x = x.float()
        there = (x != 0).any(-1)
        x = self.standardise(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x * there.unsqueeze(-1), there


class SequenceGRU(_Sequence):
    """A GRU, its states averaged over the steps that are not padding: (batch, T, in_dim) -> (batch, dim).

    Args:
        in_dim: numbers per step.
        dim: width of the feature.
        norm: standardise the numbers over batch and time first, so that raw scales do not matter.
    """

    def __init__(self, in_dim: int, dim: int = 128, *, norm: bool = True):
        super().__init__(in_dim, dim, norm=norm)
        self.gru = nn.GRU(in_dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, there = self.prepare(x)
        return masked_mean(self.gru(x)[0], there)


class SequenceTransformer(_Sequence):
    """A pre-norm transformer with sinusoidal positions, averaged over the steps that are not padding.

    (batch, T, in_dim) -> (batch, dim), no dropout.

    Args:
        in_dim: numbers per step.
        dim: width of the feature, a multiple of 4 (the number of attention heads).
        layers: number of blocks.
        norm: standardise the numbers over batch and time first, so that raw scales do not matter.
    """

    def __init__(self, in_dim: int, dim: int = 128, layers: int = 2, *, norm: bool = True):
        super().__init__(in_dim, dim, norm=norm)
        if dim % 4:
            raise ValueError(f"dim must be a multiple of 4, the number of attention heads; got {dim}.")
        self.layers = whole("layers", layers, low=1)
        self.project = nn.Linear(in_dim, dim)
        block = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(dim), enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        x, there = self.prepare(x)
        x = self.project(x)
        # A sample that is all padding attends to itself: over nothing, softmax would give NaN.
        padding = ~(there | ~there.any(1, keepdim=True))
        x = self.blocks(x + _positions(x), src_key_padding_mask=padding)
        return masked_mean(x, there)


def _positions(x: Tensor) -> Tensor:
    """Sines and cosines of T steps (T, dim), as in Vaswani et al., 2017."""
    _, length, dim = x.shape
    step = torch.arange(length, device=x.device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, dim, 2, device=x.device, dtype=torch.float32) * (-math.log(1e4) / dim))
    return torch.stack([(step * rate).sin(), (step * rate).cos()], dim=-1).flatten(1).to(x.dtype)
