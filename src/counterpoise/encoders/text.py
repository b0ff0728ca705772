"""Encoders for token numbers, one of which is padding."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.encoders._pooling import masked_mean


class _Text(nn.Module):
    def __init__(self, vocab_size: int, dim: int, padding: int):
        super().__init__()
        self.vocab_size, self.dim = whole("vocab_size", vocab_size, low=2), whole("dim", dim, low=1)
        self.padding = whole("padding", padding, low=0)
        if padding >= vocab_size:
            raise ValueError(f"padding must be one of the {vocab_size} token numbers; got {padding}.")
        self.embedding = nn.Embedding(vocab_size, dim, padding_idx=padding)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (batch, T, dim) of whole numbers (batch, T) of any type, and where they are no padding."""
        if x.is_floating_point():
            raise ValueError(f"token numbers must be whole; got {x.dtype}. Pass x.astype(int).")
        try:
            return self.embedding(x.long()), x != self.padding
        except IndexError as error:
            raise ValueError(
                f"token numbers must be in 0..{self.vocab_size - 1}; found {int(x.min())}..{int(x.max())}. Give "
                "vocab_size the number of tokens of the tokeniser, len(tokenizer)."
            ) from error


class TextBag(_Text):
    """The mean of word embeddings through a linear layer and ReLU: (batch, T) ids -> (batch, dim).

    Args:
        vocab_size: number of token numbers, the padding included.
        dim: width of embeddings and feature.
        padding: the token number that fills short texts; 1 for RoBERTa.
    """

    def __init__(self, vocab_size: int, dim: int = 128, padding: int = 0):
        super().__init__(vocab_size, dim, padding)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(masked_mean(*self.embed(x))).relu()


class TextGRU(_Text):
    """A GRU over word embeddings, its states averaged over the words: (batch, T) ids -> (batch, dim).

    Args:
        vocab_size: number of token numbers, the padding included.
        dim: width of embeddings and feature.
        padding: the token number that fills short texts; 1 for RoBERTa.
    """

    def __init__(self, vocab_size: int, dim: int = 128, padding: int = 0):
        super().__init__(vocab_size, dim, padding)
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        words, there = self.embed(x)
        return masked_mean(self.gru(words)[0], there)
