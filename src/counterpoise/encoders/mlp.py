"""An encoder for feature vectors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from counterpoise._checks import whole
from counterpoise.encoders._norm import BatchNorm1d


class MLP(nn.Module):
    """Linear layers with ReLU after each: (batch, ...) -> (batch, dim).

    Args:
        in_dim: numbers per sample; inputs of any shape are flattened.
        hidden: widths of the hidden layers.
        dim: width of the feature.
        norm: standardise the input over the batch first, so that raw scales do not matter.
    """

    def __init__(self, in_dim: int, hidden: Sequence[int] = (128,), dim: int = 128, *, norm: bool = True):
        super().__init__()
        self.in_dim, self.dim = whole("in_dim", in_dim, low=1), whole("dim", dim, low=1)
        self.hidden = tuple(whole("hidden", h, low=1) for h in hidden)
        self.norm = norm
        widths = [in_dim, *self.hidden, dim]
        layers: list[nn.Module] = [BatchNorm1d(in_dim, eps=1e-8, affine=False)] if norm else []
        for n_in, n_out in pairwise(widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        if x.shape[1] != self.in_dim:
            raise ValueError(f"MLP(in_dim={self.in_dim}) was given samples of {x.shape[1]} numbers.")
        return self.layers(x if x.is_floating_point() else x.float())
