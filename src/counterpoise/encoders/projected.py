"""A linear layer behind an encoder, for features of another width."""

from __future__ import annotations

from torch import Tensor, nn

from counterpoise._checks import whole


class Projected(nn.Module):
    """An encoder and a linear layer, without activation: (batch, ...) -> (batch, dim).

    Gives encoders of different widths the one width that `Shared` asks for. The layer trains as the
    rest of the encoder does; around a frozen encoder it is what remains to train.

    Args:
        encoder: maps (batch, ...) to a feature whose width it says in ``dim``.
        dim: width of the feature, at least 1.

    Raises:
        ValueError: the encoder does not say how wide its feature is; ``dim`` out of range.
    """

    def __init__(self, encoder: nn.Module, *, dim: int):
        super().__init__()
        width = getattr(encoder, "dim", None)
        if not isinstance(width, int):
            name = type(encoder).__name__
            raise ValueError(f"Projected: set {name}.dim to the width of its feature.")
        self.encoder, self.dim = encoder, whole("dim", dim, low=1)
        self.project = nn.Linear(width, self.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.encoder(x))
