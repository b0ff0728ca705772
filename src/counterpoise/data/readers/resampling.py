"""Random parts of pictures, and their resizing a batch at a time, on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from counterpoise.functional.precision import widest

_AT_ONCE = 1 << 26  # values in float32 that a batch of pictures may become at a time: 256 MiB


def random_part(
    height: int, width: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """(top, left, height, width): area uniform in ``scale``, log aspect uniform in log(3/4) to log(4/3)."""
    for _ in range(10):
        u, v, y, x = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = height * width * (scale[0] + u * (scale[1] - scale[0]))
        aspect = (4 / 3) ** (2 * v - 1)
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    # No such part fits (a very long picture): the largest one in the middle.
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)


def resized(pictures: Tensor, parts: Tensor, size: int, interpolation: str) -> Tensor:
    """A part of each picture as a square, antialiased: what PyTorch makes of 8-bit pictures on a CPU, to the last bit.

    Each axis is a product with a matrix of filter weights, in which the part and the mirror are: the horizontal one,
    rounded to 8 bits, then the vertical one. PyTorch rounds the weights to 15 bits; as two integers of 8 bits, their
    products and sums are exact in float32, whatever ``torch.set_float32_matmul_precision`` says, as long as the part is
    at most about four times as large as the square. Beyond that, few values differ by one of 255 levels.

    Args:
        pictures: (n, T, C, H, W) uint8; the T pictures of a sample are cut alike.
        parts: (n, 5) float64 on the CPU: top, left, height and width of the part in pixels, and 1 to mirror it, else 0.
        size: edge of the square.
        interpolation: ``bilinear`` or ``bicubic``.

    Returns:
        (n, T, C, size, size) uint8.
    """
    at_once = max(1, _AT_ONCE // math.prod(pictures.shape[1:]))
    chunks = zip(pictures.split(at_once), parts.split(at_once), strict=True)
    done = [_resized(some, of, size, interpolation) for some, of in chunks]
    return torch.cat(done) if len(done) > 1 else done[0]


def _resized(pictures: Tensor, parts: Tensor, size: int, interpolation: str) -> Tensor:
    n, frames, channels, height, width = pictures.shape
    device = pictures.device
    top, left, h, w, mirrored = parts.to(device, widest(device), non_blocking=True).unbind(1)
    across = _weights(left, w, size, width, interpolation)
    across = torch.where(mirrored.bool()[:, None, None], across.flip(1), across)
    coarse, fine = _halves(across.mT)
    rows = pictures.permute(0, 3, 1, 2, 4).to(torch.float32, memory_format=torch.contiguous_format)
    rows = rows.view(n, -1, width)
    rows = _rounded(torch.bmm(rows, coarse).baddbmm_(rows, fine)).view(n, height, -1)
    coarse, fine = _halves(_weights(top, h, size, height, interpolation))
    square = _rounded(torch.bmm(coarse, rows).baddbmm_(fine, rows)).view(n, size, frames, channels, size)
    return square.permute(0, 2, 3, 1, 4).to(torch.uint8, memory_format=torch.contiguous_format)


def _weights(start: Tensor, length: Tensor, size: int, edge: int, interpolation: str) -> Tensor:
    """(n, size, edge): how much each of ``edge`` pixels counts in each of ``size`` that show ``length`` from ``start``.

    As in ATen's ``UpSampleKernel``: filters stretched when the picture shrinks, cut off at the ends of the part, and
    rounded to so many bits that the largest weight of a picture fits into 15.
    """
    reach, curve = (1, _triangle) if interpolation == "bilinear" else (2, _cubic)
    scale = (length / size)[:, None, None]
    stretch = scale.clamp(min=1)
    centre = scale * (torch.arange(size, device=start.device, dtype=start.dtype)[:, None] + 0.5)
    at = torch.arange(edge, device=start.device, dtype=start.dtype) - start[:, None, None]
    first = (centre - reach * stretch + 0.5).trunc().clamp(min=0)
    end = torch.minimum((centre + reach * stretch + 0.5).trunc(), length[:, None, None])
    weights = curve((at - centre + 0.5) * (1 / stretch)) * ((at >= first) & (at < end))
    weights = weights / weights.sum(2, keepdim=True)
    unit = 2 ** ((32767.5 / weights.amax((1, 2), keepdim=True)).log2().ceil() - 1).clamp(max=22)
    return (weights * unit + weights.sign() * 0.5).trunc() / unit


def _halves(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights as a sum of two that have 8 bits each, in float32."""
    unit = 2 ** (15 - 8 - weights.abs().amax((1, 2), keepdim=True).log2().ceil())
    coarse = (weights * unit).round() / unit
    return coarse.float(), (weights - coarse).float()


def _rounded(values: Tensor) -> Tensor:
    """To whole numbers in [0, 255], halves up."""
    return values.add_(0.5).floor_().clamp_(0, 255)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Of Keys with a = -1/2."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
