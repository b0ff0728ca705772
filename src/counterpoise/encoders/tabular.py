"""Encoders for rows of a table: numbers, and categories that are one-hot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from counterpoise._checks import number, whole
from counterpoise.encoders.mlp import MLP


class _Row(nn.Module):
    """What both have in common: how a row is divided into numbers and categories.

    Categories are read as weights of their levels, so that mixtures of samples are mixtures of embeddings, and a
    category of no known level, all zeros, adds nothing.
    """

    def __init__(self, numbers: int, levels: Sequence[int]):
        super().__init__()
        self.numbers = whole("numbers", numbers, low=0)
        self.levels = tuple(whole(f"levels[{i}]", n, low=1) for i, n in enumerate(levels))
        if not self.numbers + len(self.levels):
            raise ValueError("numbers and levels: a row needs at least one number or category; got none.")

    def parts(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Numbers (batch, numbers), and of each category (batch, levels)."""
        width = self.numbers + sum(self.levels)
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(
                f"{type(self).__name__}(numbers={self.numbers}, levels={list(self.levels)}) takes (batch, {width}); "
                f"got {tuple(x.shape)}."
            )
        numbers, *categories = x.float().split([self.numbers, *self.levels], dim=1)
        return numbers, tuple(categories)


class TabularMLP(_Row):
    """Categories embedded and put beside the numbers, then linear layers with ReLU: (batch, width) -> (batch, dim).

    A category of n levels gets an embedding of 1.6 n^0.56 numbers, 32 at most.

    Args:
        numbers: how many numbers a row begins with.
        levels: how many levels each category after them has.
        hidden: widths of the hidden layers.
        dim: width of the feature.
    """

    def __init__(self, numbers: int, levels: Sequence[int] = (), hidden: Sequence[int] = (128,), dim: int = 128):
        super().__init__(numbers, levels)
        widths = [min(32, math.ceil(1.6 * n**0.56)) for n in self.levels]
        self.embeddings = nn.ModuleList(_embedding(n, d) for n, d in zip(self.levels, widths, strict=True))
        self.mlp = MLP(self.numbers + sum(widths), hidden, dim, norm=False)
        self.hidden, self.dim = self.mlp.hidden, self.mlp.dim

    def forward(self, x: Tensor) -> Tensor:
        numbers, categories = self.parts(x)
        embedded = [layer(c) for layer, c in zip(self.embeddings, categories, strict=True)]
        return self.mlp(torch.cat([numbers, *embedded], 1))


class FTTransformer(_Row):
    """The FT-Transformer of Gorishniy et al., 2021 ("Revisiting Deep Learning Models for Tabular Data").

    Every number and every category becomes a token, a transformer lets them see each other, and the feature is what
    it makes of one further token: (batch, width) -> (batch, dim). Its layers are pre-norm, but for the first, which
    has no norm before its attention; the feed-forward part is ReGLU of 4/3 the width.

    Args:
        numbers: how many numbers a row begins with.
        levels: how many levels each category after them has.
        dim: width of a token and of the feature, a multiple of ``heads``.
        layers: number of blocks.
        heads: of the attention.
        attention_dropout: share of the attention that training leaves out.
        dropout: share of the hidden numbers of the feed-forward part that training leaves out.
    """

    def __init__(
        self,
        numbers: int,
        levels: Sequence[int] = (),
        dim: int = 192,
        layers: int = 3,
        heads: int = 8,
        attention_dropout: float = 0.2,
        dropout: float = 0.1,
    ):
        super().__init__(numbers, levels)
        self.dim, self.layers, self.heads = (
            whole(name, value, low=1) for name, value in (("dim", dim), ("layers", layers), ("heads", heads))
        )
        if dim % heads:
            raise ValueError(f"dim must be a multiple of heads, {heads}; got {dim}.")
        self.attention_dropout = number("attention_dropout", attention_dropout, low=0, below=1)
        self.dropout = number("dropout", dropout, low=0, below=1)
        bound = dim**-0.5
        tokens = self.numbers + len(self.levels)
        self.scale = nn.Parameter(torch.empty(self.numbers, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(tokens, dim).uniform_(-bound, bound))
        self.embeddings = nn.ModuleList(_embedding(n, dim) for n in self.levels)
        self.summary = nn.Parameter(torch.empty(1, dim).uniform_(-bound, bound))
        self.blocks = nn.ModuleList(
            _Block(dim, heads, attention_dropout, dropout, norm=i > 0) for i in range(self.layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        numbers, categories = self.parts(x)
        embedded = [layer(c).unsqueeze(1) for layer, c in zip(self.embeddings, categories, strict=True)]
        tokens = torch.cat([numbers.unsqueeze(2) * self.scale, *embedded], 1) + self.bias
        tokens = torch.cat([self.summary.expand(len(x), 1, -1), tokens], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return F.relu(self.norm(tokens[:, 0]))


class _Block(nn.Module):
    """Attention, then ReGLU, each added to what came in."""

    def __init__(self, dim: int, heads: int, attention_dropout: float, dropout: float, *, norm: bool):
        super().__init__()
        hidden = dim * 4 // 3
        self.first = nn.LayerNorm(dim) if norm else nn.Identity()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=attention_dropout, batch_first=True)
        self.second = nn.LayerNorm(dim)
        self.widen, self.narrow = nn.Linear(dim, 2 * hidden), nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.first(x)
        x = x + self.attention(seen, seen, seen, need_weights=False)[0]
        value, gate = self.widen(self.second(x)).chunk(2, dim=-1)
        return x + self.narrow(self.dropout(value * F.relu(gate)))


def _embedding(levels: int, dim: int) -> nn.Linear:
    """Of weights of levels; each level is drawn as the other tokens are."""
    layer = nn.Linear(levels, dim, bias=False)
    nn.init.uniform_(layer.weight, -(dim**-0.5), dim**-0.5)
    return layer
