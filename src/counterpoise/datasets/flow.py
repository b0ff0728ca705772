"""Optical flow between the frames of a video."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)
_PAIRS = 8  # frames solved together: what fits into the cache of a processor is several times faster


def horn_schunck(
    frames: Tensor, *, smoothness: float = 15.0, levels: int = 3, warps: int = 3, iterations: int = 20, skip: int = 1
) -> Tensor:
    r"""Dense flow (Horn and Schunck, 1981) from each frame to the next, coarse to fine.

    Minimises, with :math:`I` in 0 to 255 and :math:`\alpha` the smoothness,

    .. math:: \iint (I_x u + I_y v + I_t)^2 + \alpha^2 (|\nabla u|^2 + |\nabla v|^2) \,dx\,dy

    by Jacobi steps :math:`u \leftarrow \bar u - I_x (I_x \bar u + I_y \bar v + I_t) / (\alpha^2 + I_x^2 + I_y^2)`,
    linearised ``warps`` times on each level of a pyramid of halved pictures, each level starting
    from the flow of the one above. Displacements up to about ``2 ** (levels + skip)`` pixels are found.

    Args:
        frames: (T, H, W) grey values in 0 to 255.
        smoothness: :math:`\alpha`; larger gives smoother flow.
        levels: pictures in the pyramid.
        warps: linearisations on each level.
        iterations: Jacobi steps for each.
        skip: finest levels that are not solved, but interpolated from the one above.

    Returns:
        (T - 1, 2, H, W): displacement to the right and down, in pixels of the input.
    """
    if len(frames) < 2:
        raise ValueError(f"frames must be at least two pictures; got shape {tuple(frames.shape)}.")
    parts = range(0, len(frames) - 1, _PAIRS)
    return torch.cat([_flow(frames[i : i + _PAIRS + 1], smoothness, levels, warps, iterations, skip) for i in parts])


def _flow(frames: Tensor, smoothness: float, levels: int, warps: int, iterations: int, skip: int) -> Tensor:
    pictures = [_blurred(frames.float()[:, None])]
    for _ in range(levels + skip - 1):
        if min(pictures[-1].shape[-2:]) < 32:
            break
        pictures.append(_blurred(pictures[-1])[..., ::2, ::2])
    pyramid = pictures[min(skip, len(pictures) - 1) :]
    flow = pyramid[-1].new_zeros(len(frames) - 1, 2, *pyramid[-1].shape[-2:])
    for picture in reversed(pyramid):
        flow = _enlarged(flow, picture.shape[-2:])
        for _ in range(warps):
            flow = _solved(picture[:-1], picture[1:], flow, smoothness, iterations)
    return _enlarged(flow, frames.shape[-2:])


def _solved(first: Tensor, second: Tensor, flow: Tensor, smoothness: float, iterations: int) -> Tensor:
    """The flow that solves the equations linearised around ``flow``."""
    warped = _warped(second, flow)
    padded = F.pad((warped + first) / 2, (1, 1, 1, 1), mode="replicate")
    gradient = torch.cat(
        [padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]], 1
    )
    gradient = gradient / 2
    constant = warped - first - (gradient * flow).sum(1, keepdim=True)
    step = gradient / (smoothness**2 + gradient.square().sum(1, keepdim=True))
    for _ in range(iterations):
        mean = _mean(flow)
        residual = (gradient * mean).sum(1, keepdim=True).add_(constant)
        flow = mean.sub_(step * residual)
    return flow


def _mean(flow: Tensor) -> Tensor:
    """The mean of the neighbours: 1/6 for each of the four at the sides, 1/12 at the corners."""
    padded = F.pad(flow, (1, 1, 1, 1), mode="replicate")
    rows = padded[..., 1:-1].mul(2).add_(padded[..., :-2]).add_(padded[..., 2:])
    both = rows[..., 1:-1, :].mul(2).add_(rows[..., :-2, :]).add_(rows[..., 2:, :])
    return both.sub_(flow, alpha=4).div_(12)


def _warped(picture: Tensor, flow: Tensor) -> Tensor:
    """The picture seen through the flow: at x its value at x + flow(x)."""
    height, width = picture.shape[-2:]
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (2 * (right + flow[:, 0]) + 1) / width - 1
    y = (2 * (down + flow[:, 1]) + 1) / height - 1
    return F.grid_sample(picture, torch.stack([x, y], -1), padding_mode="border", align_corners=False)


def _blurred(picture: Tensor) -> Tensor:
    kernel = picture.new_tensor(_BLUR) / sum(_BLUR)
    padded = F.pad(picture, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def _enlarged(flow: Tensor, size: torch.Size) -> Tensor:
    """A flow at another resolution; displacements grow with the picture."""
    if flow.shape[-2:] == size:
        return flow
    factor = flow.new_tensor([size[1] / flow.shape[-1], size[0] / flow.shape[-2]])
    return F.interpolate(flow, size=size, mode="bilinear", align_corners=False) * factor[:, None, None]
