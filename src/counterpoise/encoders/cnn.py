"""A small convolutional encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from counterpoise._checks import choice, whole
from counterpoise.encoders._frames import over_frames
from counterpoise.encoders._norm import BatchNorm2d


class CNN(nn.Module):
    """Three 3x3 convolutions with pooling, averaged over the map: (batch, channels, H, W) -> (batch, dim).

    For small images and spectrograms, of any size. (batch, H, W) is one channel; the features of
    the frames of (batch, channels, T, H, W) are averaged.

    Args:
        channels: channels of the input.
        dim: width of the feature, a multiple of 4; the layers have dim/4, dim/2 and dim channels.
        norm: ``"batch"`` or ``"group"`` normalisation after each convolution (the latter has no
            statistics and suits batches of a few samples).
    """

    def __init__(self, channels: int = 1, dim: int = 128, *, norm: str = "batch"):
        super().__init__()
        self.channels, self.dim = whole("channels", channels, low=1), whole("dim", dim, low=4)
        self.norm = choice("norm", norm, ("batch", "group"))
        if dim % 4:
            raise ValueError(f"dim must be a multiple of 4; got {dim}.")
        layers: list[nn.Module] = []
        n_in = channels
        for n_out in (dim // 4, dim // 2, dim):
            layers += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                BatchNorm2d(n_out) if norm == "batch" else nn.GroupNorm(_groups(n_out), n_out),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),  # rounded up, so that a map of one pixel stays one
            ]
            n_in = n_out
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.layers.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return over_frames(self.layers, x)


def _groups(channels: int) -> int:
    """At most 8 groups of equal size."""
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)
