"""Gestures and other actions as clips: colour, depth and optical flow of one scene, cropped alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise.data.readers.array import Array
from counterpoise.data.readers.base import ReadError
from counterpoise.data.readers.video import Video


class Clip(Video):
    """Consecutive frames of a video as (channels, frames, size, size), for networks that see motion.

    Frames are resized to ``resize`` x ``resize``, whatever their aspect ratio, and kept so in the cache.
    Training cuts a random square of ``size`` pixels out of ``count`` consecutive frames at a random place;
    evaluation takes the square and the ``test_count`` frames in the middle. All columns of a table that
    `Clip` and `Flow` read with the same ``resize`` and ``size`` are cut at the same place in a row.
    The defaults are those of the released code of IGM for NVGesture, for RGB; depth has ``channels=1,
    normalize="none"``.

    Args:
        count: frames per sample in training.
        test_count: frames per sample in evaluation; a clip with fewer is an error.
        resize: edge of the decoded square, in pixels.
        size: edge of the square the encoder sees, in pixels.
        channels: 3 (RGB) or 1 (grey, depth).
        augment: False trains on the middle, of ``count`` frames.
        flip: probability of the mirror image in training; 0 for gestures with a direction.
        normalize: mean and deviation of ``imagenet``, of ``clip``, ``i3d`` (values in [-1, 1], which I3D was
            trained on), or ``none`` (values in [0, 1]).
    """

    decoded_by = ("channels", "resize")
    stream = "clip"
    _scaling = "BILINEAR"

    def __init__(
        self,
        count: int = 64,
        test_count: int = 80,
        resize: int = 256,
        size: int = 224,
        channels: int = 3,
        augment: bool = True,
        flip: float = 0.0,
        normalize: Literal["imagenet", "clip", "i3d", "none"] = "imagenet",
    ):
        super().__init__(count, "window", size, channels, augment, flip=flip, normalize=normalize, bound=None)
        self.test_count = whole("test_count", test_count, low=1)
        self.resize = whole("resize", resize, low=size)

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        part, (mirrored,) = self.cut(decoded, generator)
        return self._normalized(part.flip(-1) if mirrored else part).movedim(0, 1).contiguous()

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        draw = generator if self.augment else None
        part, mirrored = square(decoded, self.size, self.flip, draw)
        return stretch(part, self.test_count if generator is None else self.count, draw), (float(mirrored),)

    def transform_batch(self, parts: Tensor, drawn: Tensor) -> Tensor:
        mirrored = drawn.bool()[:, :, None, None, None].to(parts.device, non_blocking=True)
        return self._normalized(torch.where(mirrored, parts.flip(-1), parts)).movedim(1, 2).contiguous()

    def _positions(self, cell: str, total: int) -> range:
        positions = super()._positions(cell, total)
        if len(positions) < self.test_count:
            raise ReadError(cell, f"holds {len(positions)} frames, test_count={self.test_count} are asked for")
        return range(min(positions), max(positions) + 1)

    def _decoded_size(self, width: int, height: int) -> tuple[int, int]:
        return self.resize, self.resize


class Flow(Array):
    """Optical flow stored as an array (height, width, 2, frames), as (2, frames, size, size).

    Cut out like the frames of `Clip`, at the same place. The mirror image of a flow has its horizontal
    component negated.

    Args:
        count: frames per sample in training; None takes all, as the released code of IGM does.
        test_count: frames per sample in evaluation; None takes all.
        size: edge of the square the encoder sees, in pixels.
        augment: False trains on the middle.
        flip: probability of the mirror image in training.
        limit: flow is cut to [-limit, limit] and divided by limit, which I3D was trained on with 20;
            None leaves it as it is stored.
        key: name of the array in an ``.npz``; not needed when it holds only one.
    """

    stream = "clip"

    def __init__(
        self,
        count: int | None = None,
        test_count: int | None = None,
        size: int = 224,
        augment: bool = True,
        flip: float = 0.0,
        limit: float | None = None,
        key: str | None = None,
    ):
        super().__init__(key)
        self.kind = "frames"
        self.count = None if count is None else whole("count", count, low=1)
        self.test_count = None if test_count is None else whole("test_count", test_count, low=1)
        self.size = whole("size", size, low=1)
        self.augment = augment
        self.flip = float(_checks.number("flip", flip, low=0, high=1))
        self.limit = None if limit is None else float(_checks.number("limit", limit, above=0))
        self._frames: int | None = None

    @property
    def shape(self) -> tuple[int, ...] | None:
        frames = self.count if self.count is not None else self._frames
        return None if frames is None else (2, frames, self.size, self.size)

    def bind(self, cell: str) -> None:
        self._frames = int(self.decode(cell).shape[0])

    def learnt(self) -> dict[str, Any]:
        return {"frames": self._frames}

    def learn(self, learnt: Mapping[str, Any]) -> None:
        self._frames = learnt["frames"]

    def load(self, cell: str) -> Tensor:
        flow = super().load(cell)
        if flow.ndim != 4 or flow.shape[2] != 2:
            raise ReadError(cell, f"has shape {tuple(flow.shape)}; flow is stored as (height, width, 2, frames)")
        flow = flow.permute(3, 2, 0, 1).contiguous()
        longest = max(self.count or 1, self.test_count or 1)
        if len(flow) < longest:
            raise ReadError(cell, f"holds {len(flow)} frames of flow, {longest} are asked for")
        if min(flow.shape[2:]) < self.size:
            raise ReadError(cell, f"is {flow.shape[3]} x {flow.shape[2]} pixels, size={self.size} is asked for")
        return flow

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        draw = generator if self.augment else None
        part, mirrored = square(decoded, self.size, self.flip, draw)
        part = stretch(part, (self.test_count if generator is None else self.count) or len(part), draw)
        if mirrored:
            part = part.flip(-1) * part.new_tensor([-1.0, 1.0])[:, None, None]
        if self.limit is not None:
            part = part.clamp(-self.limit, self.limit) / self.limit
        return part.movedim(0, 1).clone(memory_format=torch.contiguous_format)


def square(frames: Tensor, size: int, flip: float, generator: torch.Generator | None) -> tuple[Tensor, bool]:
    """A square of ``size`` pixels out of (T, C, H, W), and whether it is to be mirrored; the middle without generator.

    Fractions are drawn, not positions, so that views of slightly different sizes agree.
    """
    down, right, side = (0.5, 0.5, 1.0) if generator is None else torch.rand(3, generator=generator).tolist()
    top, left = (int(u * (edge - size + 1)) for u, edge in ((down, frames.shape[-2]), (right, frames.shape[-1])))
    return frames[..., top : top + size, left : left + size], side < flip


def stretch(frames: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` consecutive frames of (T, C, H, W); those in the middle without generator."""
    share = 0.5 if generator is None else float(torch.rand((), generator=generator))
    start = int(share * (len(frames) - count + 1))
    return frames[start : start + count]
