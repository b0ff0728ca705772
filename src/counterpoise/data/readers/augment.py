"""RandAugment on 8-bit pictures, with randomness from a generator alone."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = 128.0  # what is seen beyond the edges of a moved picture


def draws(count: int, generator: torch.Generator) -> tuple[float, ...]:
    """What ``count`` operations draw: for each which, whether, and to which side, in [0, 1)."""
    return tuple(u for _ in range(count) for u in torch.rand(3, generator=generator).tolist())


def augmented(pictures: Tensor, drawn: Tensor, strength: float) -> Tensor:
    """Change samples by the operations that each has drawn, those with equal ones together; each with probability 1/2.

    The operations and ranges are those of the image-text models that IGM's released code follows
    (Cubuk et al., RandAugment, 2020, without the operations that change colours beyond recognition):
    identity, autocontrast, equalize, brightness and sharpness by the factor ``0.1 + 0.18 strength``,
    shear by ``0.03 strength``, translation by ``strength`` pixels and rotation by ``3 strength``
    degrees, these to either side.

    Args:
        pictures: (n, ..., C, H, W) uint8, the pictures of a sample are changed alike; overwritten.
        drawn: (n, 3 count) on the CPU, each row from `draws`.
        strength: 0 to 10.
    """
    for first in range(0, drawn.shape[1], 3):
        rows: dict[tuple[int, int], list[int]] = {}
        for row, (which, applied, side) in enumerate(drawn[:, first : first + 3].tolist()):
            if applied < 0.5:
                rows.setdefault((int(which * 10), -1 if side < 0.5 else 1), []).append(row)
        for (which, side), chosen in rows.items():
            index = torch.tensor(chosen).to(pictures.device, non_blocking=pictures.is_cuda)
            pictures[index] = _operation(pictures[index], which, strength, side)
    return pictures


def _operation(frames: Tensor, which: int, strength: float, side: int) -> Tensor:
    import math

    from torchvision.transforms.v2 import functional as V

    factor = 0.1 + 0.18 * strength
    shear = side * math.degrees(math.atan(0.03 * strength))
    shift = int(side * strength)
    fill = [_GREY] * frames.shape[-3]

    def moved(angle: float = 0.0, right: int = 0, down: int = 0, shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        return V.affine(frames, angle, [right, down], 1.0, list(shear), fill=fill)

    operations = (
        lambda: frames,
        lambda: V.autocontrast(frames),
        lambda: V.equalize(frames),
        lambda: V.adjust_brightness(frames, factor),
        lambda: V.adjust_sharpness(frames, factor),
        lambda: moved(shear=(shear, 0.0)),
        lambda: moved(shear=(0.0, shear)),
        lambda: moved(right=shift),
        lambda: moved(down=shift),
        lambda: moved(angle=3 * strength * side),
    )
    return operations[which]()
