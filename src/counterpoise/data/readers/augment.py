"""RandAugment on 8-bit pictures, with randomness from a generator alone."""

from __future__ import annotations

import torch
from torch import Tensor

_GREY = 128.0  # what is seen beyond the edges of a moved picture


def rand_augment(frames: Tensor, count: int, strength: float, generator: torch.Generator) -> Tensor:
    """Change pictures by ``count`` operations drawn with repetition, each applied with probability 1/2.

    The operations and ranges are those of the image-text models that IGM's released code follows
    (Cubuk et al., RandAugment, 2020, without the operations that change colours beyond recognition):
    identity, autocontrast, equalize, brightness and sharpness by the factor ``0.1 + 0.18 strength``,
    shear by ``0.03 strength``, translation by ``strength`` pixels and rotation by ``3 strength``
    degrees, these to either side.

    Args:
        frames: (..., C, H, W) uint8; all are changed alike.
        count: operations.
        strength: 0 to 10.
        generator: what everything is drawn from.

    Returns:
        Pictures of the same shape and type.
    """
    for _ in range(count):
        which, applied, side = torch.rand(3, generator=generator).tolist()
        if applied < 0.5:
            frames = _operation(frames, int(which * 10), strength, -1 if side < 0.5 else 1)
    return frames


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
