"""Several encoders of one modality as one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class SideBySide(nn.Module):
    """The features of several encoders of one input, side by side: (batch, ...) -> (batch, sum of their widths).

    Args:
        encoders: each maps (batch, ...) to (batch, its width).
    """

    def __init__(self, encoders: Iterable[nn.Module]):
        super().__init__()
        self.encoders = nn.ModuleList(encoders)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([encoder(x) for encoder in self.encoders], dim=1)
