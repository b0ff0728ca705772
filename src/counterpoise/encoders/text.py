"""Encoders for token numbers, where 0 is padding."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.encoders._pooling import masked_mean


class _Text(nn.Module):
    def __init__(self, vocab_size: int, dim: int):
        super().__init__()
        self.vocab_size, self.dim = whole("vocab_size", vocab_size, low=2), whole("dim", dim, low=1)
        self.embedding = nn.Embedding(vocab_size, dim, padding_idx=0)


class TextBag(_Text):
    """The mean of word embeddings through a linear layer and ReLU: (batch, T) ids -> (batch, dim).

    Args:
        vocab_size: number of token numbers, the padding 0 included.
        dim: width of embeddings and feature.
    """

    def __init__(self, vocab_size: int, dim: int = 128):
        super().__init__(vocab_size, dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(masked_mean(self.embedding(x), x != 0)).relu()


class TextGRU(_Text):
    """A GRU over word embeddings, its states averaged over the words: (batch, T) ids -> (batch, dim).

    Args:
        vocab_size: number of token numbers, the padding 0 included.
        dim: width of embeddings and feature.
    """

    def __init__(self, vocab_size: int, dim: int = 128):
        super().__init__(vocab_size, dim)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return masked_mean(self.gru(self.embedding(x))[0], x != 0)
