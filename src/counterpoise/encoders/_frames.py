"""Images, spectrograms and stacks of frames as what a 2-D network takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def over_frames(net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Features (batch, dim) of images, or the mean of those of their frames.

    Args:
        net: maps (batch, channels, H, W) to (batch, dim).
        x: (batch, H, W), taken as one channel; (batch, channels, H, W); or (batch, channels, T, H, W).
    """
    if not x.is_floating_point():
        x = x.float()
    if x.ndim == 3:
        x = x.unsqueeze(1)
    if x.ndim == 4:
        return net(x)
    if x.ndim != 5:
        raise ValueError(
            "Expected a batch of (H, W), (channels, H, W) or (channels, T, H, W); "
            f"got samples of shape {tuple(x.shape[1:])}."
        )
    frames = x.transpose(1, 2)
    return net(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).mean(1)
