"""Pictures that would be misread: damaged chunks, values of other depths, axes in an unknown order; their order."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise.data.readers.base import ReadError


def check_chunks(content: bytes, path: str) -> None:
    """ReadError when a chunk of a PNG is damaged; decoders check few of them."""
    at = 8 if content.startswith(b"\x89PNG\r\n\x1a\n") else len(content)
    while at + 12 <= len(content):
        end = at + 8 + int.from_bytes(content[at : at + 4], "big")
        stored = content[end : end + 4]
        if len(stored) == 4 and zlib.crc32(content[at + 4 : end]) != int.from_bytes(stored, "big"):
            raise ReadError(path, f"damaged: the PNG chunk at byte {at} is not as it was written")
        if content[at + 4 : at + 8] == b"IEND":
            return
        at = end + 4


def check_depth(largest: int, bits: int, path: str) -> None:
    """ReadError when values of 16 bits, of which the upper 8 are kept, need no more than 12: all would be dark.

    Args:
        largest: value in the picture.
        bits: in which it would fit, if the picture has 12 bits per value.
        path: of the picture.
    """
    if 0 < largest < 1 << bits:
        raise ReadError(
            path,
            "has 16 bits per value and uses 12 of them at most, so it would be nearly black; store it with 8 bits, or "
            "with its values times 16, or as .npy and read it with `array`",
        )


def colours_last(values: Any) -> np.ndarray:
    """A picture (H, W), (H, W, C) or (C, H, W), uint8, as PIL takes it."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.dtype != np.uint8:
        raise ReadError(
            "the picture",
            f"is {array.dtype}; pictures are uint8, 0 to 255. Numbers that are ready for the encoder need no reader",
        )
    last = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    first = array.ndim == 3 and array.shape[0] in (1, 3)
    if array.ndim != 2 and last == first:
        which = "may have its colours first or last" if last else "is no picture (H, W), (H, W, C) or (C, H, W)"
        raise ReadError("the picture", f"has shape {array.shape} and {which}")
    array = np.moveaxis(array, 0, -1) if first else array
    return np.ascontiguousarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def stacked(frames: Sequence[Tensor]) -> Tensor:
    """Pictures (C, H, W) as (T, C, H, W), their colours last in memory."""
    if len(frames) == 1:
        return frames[0][None]
    return torch.stack([frame.movedim(0, -1) for frame in frames]).movedim(-1, 1)


def uniform(count: int, available: int) -> list[int]:
    """The middles of ``count`` equal stretches of ``available`` positions."""
    return [int((i + 0.5) * available / count) for i in range(count)]


def by_number(path: Path) -> tuple[list[tuple[int, str]], str]:
    """The key of an order in which ``frame2`` comes before ``frame10``."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
