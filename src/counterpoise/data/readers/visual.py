"""Images and folders of frames."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise._extras import require
from counterpoise.data.readers.augment import augmented, draws
from counterpoise.data.readers.base import Reader, ReadError, flag, read_bytes
from counterpoise.data.readers.pictures import by_number, check_chunks, check_depth, colours_last, stacked, uniform
from counterpoise.data.readers.resampling import random_part, resized

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_NORMS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "i3d": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class Visual(Reader):
    """What images, frames and videos share: decoded pixels (T, C, H, W) uint8 to what the encoder gets.

    Training cuts a random part (area ``scale`` of the picture, aspect ratio 3/4 to 4/3), resizes it to
    ``size`` x ``size`` and mirrors it with probability ``flip``; evaluation resizes the whole picture.
    Both through torchvision with antialiasing, on 8-bit pixels; then values in [0, 1] are normalised.
    """

    decoded_by = ("channels", "bound")
    recording = "pixels"

    def __init__(
        self,
        size: int,
        channels: int,
        augment: bool,
        scale: Sequence[float],
        flip: float,
        interpolation: str,
        normalize: str,
        bound: int | None,
    ):
        require(f"The reader {type(self).__name__}", "PIL", "torchvision")
        self.size = whole("size", size, low=1)
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (RGB); got {channels!r}.")
        self.channels = channels
        self.augment = flag("augment", augment)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be two shares of the area, 0 < low <= high <= 1; got {scale!r}.")
        self.scale = (float(scale[0]), float(scale[1]))
        self.flip = float(_checks.number("flip", flip, low=0, high=1))
        self.interpolation = _checks.choice("interpolation", interpolation, ("bilinear", "bicubic"))
        self.normalize = _checks.choice("normalize", normalize, _NORMS)
        self.bound = None if bound is None else whole("bound", bound, low=1)

    def altered(self, cell: Any, alter: Callable[[Any], Any]) -> Tensor:
        return self.transform(alter(self.decode(cell)), None)

    def pixels(self, frames: Tensor, generator: torch.Generator | None, alone: bool = False) -> Tensor:
        """(T, C, H, W) uint8 to (T, C, size, size) float32.

        Args:
            frames: one clip.
            generator: None for evaluation.
            alone: draw the crop and the mirror for each frame, not once for the clip.
        """
        draw = generator if self.augment else None
        groups = frames.split(1) if alone and draw is not None else (frames,)
        squares = [self._resized(group, None if draw is None else self._drawn(group, draw)) for group in groups]
        return self._normalized(torch.cat(squares) if len(squares) > 1 else squares[0])

    def _numbers(self, frames: Tensor, generator: torch.Generator | None, crops: int = 1) -> tuple[float, ...]:
        """So many crops and mirrors in training, or all of a picture, as `resized` takes them, one after another."""
        if generator is None or not self.augment:
            return 0.0, 0.0, float(frames.shape[-2]), float(frames.shape[-1]), 0.0
        return tuple(x for _ in range(crops) for x in self._drawn(frames, generator))

    def _drawn(self, frames: Tensor, generator: torch.Generator) -> tuple[float, ...]:
        """Top, left, height and width of the part that is used, 1 to mirror it, and what a subclass draws beside."""
        part = random_part(frames.shape[-2], frames.shape[-1], self.scale, generator)
        return *part, float(float(torch.rand((), generator=generator)) < self.flip)

    def _squares(self, clips: Tensor, drawn: Tensor) -> Tensor:
        """(n, T, C, H, W) to (n, T, C, size, size) uint8, of numbers as from ``_numbers``."""
        crops = drawn.shape[1] // 5  # of a clip
        groups = clips.reshape(len(clips) * crops, -1, *clips.shape[2:])
        squares = resized(groups, drawn.view(-1, 5), self.size, self.interpolation)
        return squares.view(len(clips), -1, *squares.shape[2:])

    def transform_batch(self, parts: Tensor, drawn: Tensor) -> Tensor:
        return self._normalized(self._squares(parts, drawn)).movedim(1, 2).contiguous()

    def _normalized(self, frames: Tensor) -> Tensor:
        """(..., C, H, W) uint8 to float32 with the mean and deviation that ``normalize`` names."""
        mean, deviation = _moments(self.normalize, self.channels, frames.device)
        values = frames.to(torch.float32, memory_format=torch.contiguous_format)
        return values.div_(255).sub_(mean).div_(deviation)

    def _resized(self, frames: Tensor, drawn: tuple[float, ...] | None) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional as V

        mode = InterpolationMode(self.interpolation)
        if drawn is None:
            return V.resize(frames, [self.size, self.size], mode, antialias=True)
        top, left, height, width, mirrored = map(int, drawn[:5])
        square = V.resized_crop(frames, top, left, height, width, [self.size, self.size], mode, antialias=True)
        return V.horizontal_flip(square) if mirrored else square

    def _open(self, path: str) -> Tensor:
        """One image file as (C, H, W) uint8, its colours last in memory: as decoders write and resizing reads them."""
        with self._reading(path):
            content = read_bytes(path)
            check_chunks(content, path)
            return self._decoded(content, path)

    def _decoded(self, content: bytes, path: str) -> Tensor:
        from PIL import Image as Pillow
        from PIL import ImageOps, UnidentifiedImageError

        try:
            image = Pillow.open(io.BytesIO(content))
        except UnidentifiedImageError as error:
            raise ReadError(path, "is no image that can be read" + self._hint(path)) from error
        deep = ";16" in str(image.tile)  # 16 bits per value, of which 8 are kept
        with image:
            if self.bound is not None:
                image.draft(self._mode, (self.bound, self.bound))  # lets JPEG decode at 1/2, 1/4 or 1/8 of its size
            ImageOps.exif_transpose(image, in_place=True)
        return self._pixels_of(image, deep, path)

    @property
    def _mode(self) -> str:
        return "L" if self.channels == 1 else "RGB"

    def _pixels_of(self, picture: Picture, deep: bool, path: str) -> Tensor:
        """The values of a picture that is decoded, as `_open` returns them.

        Args:
            picture: turned as it is to be seen.
            deep: whether it had 16 bits per value.
            path: how messages call it.
        """
        import numpy as np
        from PIL import Image as Pillow

        if picture.mode.startswith("I;16"):
            values = np.asarray(picture)
            check_depth(int(values.max()), 12, path)
            picture = Pillow.fromarray((values >> 8).astype("uint8"))
        elif picture.mode in ("I", "F"):
            raise ReadError(path, "has 32 bits per pixel; store it as .npy and read it with `array`")
        elif deep:
            check_depth(int(np.asarray(picture.convert("RGB")).max()), 4, path)
        if picture.has_transparency_data:  # what is drawn there shows no colour that it hides: on white, as on paper
            picture = picture.convert("RGBA")
            picture = Pillow.alpha_composite(Pillow.new("RGBA", picture.size, "white"), picture)
        if picture.mode != self._mode:
            picture = picture.convert(self._mode)
        if self.bound is not None and (least := min(picture.size)) > self.bound:
            width, height = (max(1, round(side * self.bound / least)) for side in picture.size)
            picture = picture.resize((width, height), Pillow.Resampling.BILINEAR)
        array = np.array(picture).reshape(picture.height, picture.width, self.channels)
        return torch.from_numpy(array).movedim(-1, 0)

    def _of_value(self, value: Any) -> Tensor | None:
        """As `_open`, of one picture in memory; None for anything else."""
        from PIL import Image as Pillow
        from PIL import ImageOps

        name = "the picture"
        if isinstance(value, bytes):
            check_chunks(value, name)
            return self._decoded(value, name)
        if isinstance(value, Pillow.Image):
            deep = ";16" in str(getattr(value, "tile", ""))
            return self._pixels_of(ImageOps.exif_transpose(value), deep, name)
        if isinstance(value, Tensor) or hasattr(value, "__array_interface__"):
            return self._pixels_of(Pillow.fromarray(colours_last(value)), False, name)
        return None


class Image(Visual):
    """A picture file as (channels, size, size).

    The picture is turned as its EXIF data say; transparent parts lie on white, whatever colours they hide; of 16 bits
    per value the upper 8 are kept, and a picture whose values need no more than 12 is refused. Chunks of a PNG are
    compared with their check sums.

    Args:
        size: edge of the square the encoder sees, in pixels.
        channels: 3 (RGB) or 1 (grey).
        augment: False trains on what evaluation sees.
        scale: share of the area that a training crop has, smallest and largest.
        flip: probability of the mirror image in training; 0 for writing, digits and gestures.
        interpolation: ``bilinear`` or ``bicubic``.
        normalize: mean and deviation of ``imagenet``, of ``clip``, ``i3d`` (values in [-1, 1]), or ``none``
            (values in [0, 1]).
        bound: shorter side, in pixels, at which larger pictures are decoded and cached; None keeps them.
        randaugment: number of operations and their strength (0 to 10) that RandAugment adds in training, as
            ``[2, 7]``; None for none.
    """

    kind = "image"
    takes = "a picture of PIL or of uint8 values, or the name or the bytes of a file"
    extensions = IMAGES

    def __init__(
        self,
        size: int = 224,
        channels: int = 3,
        augment: bool = True,
        scale: Sequence[float] = (0.08, 1.0),
        flip: float = 0.5,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        normalize: Literal["imagenet", "clip", "i3d", "none"] = "imagenet",
        bound: int | None = None,
        randaugment: Sequence[int] | None = None,
    ):
        super().__init__(size, channels, augment, scale, flip, interpolation, normalize, bound)
        self.randaugment = randaugment
        if randaugment is not None:
            if len(randaugment) != 2:
                raise ValueError(f"randaugment must be two numbers, operations and strength; got {randaugment!r}.")
            whole("randaugment[0]", randaugment[0], low=1)
            _checks.number("randaugment[1]", randaugment[1], low=0, high=10)

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.size, self.size)

    def load(self, cell: str) -> Tensor:
        return self._open(cell)

    def load_value(self, value: Any) -> Tensor:
        pixels = self._of_value(value)
        return super().load_value(value) if pixels is None else pixels

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.pixels(decoded[None], generator)[0]

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        return decoded, self._numbers(decoded, generator)

    def _drawn(self, frames: Tensor, generator: torch.Generator) -> tuple[float, ...]:
        crop = super()._drawn(frames, generator)
        return crop if self.randaugment is None else (*crop, *draws(self.randaugment[0], generator))

    def _resized(self, frames: Tensor, drawn: tuple[float, ...] | None) -> Tensor:
        frames = super()._resized(frames, drawn)
        if drawn is None or self.randaugment is None:
            return frames
        return augmented(frames[None], torch.tensor([drawn[5:]], dtype=torch.float64), self.randaugment[1])[0]

    def _squares(self, clips: Tensor, drawn: Tensor) -> Tensor:
        pictures = super()._squares(clips, drawn[:, :5])
        return pictures if self.randaugment is None else augmented(pictures, drawn[:, 5:], self.randaugment[1])

    def transform_batch(self, parts: Tensor, drawn: Tensor) -> Tensor:
        return super().transform_batch(parts[:, None], drawn)[:, :, 0]


class Frames(Visual):
    """A folder of pictures, in the order of their names, as (channels, count, size, size).

    Numbers in names count as numbers (``frame2`` comes before ``frame10``), so the order depends
    neither on the file system nor on leading zeros. A folder with fewer than ``count`` pictures is
    an error.

    Args:
        count: pictures per sample.
        pick: ``uniform`` takes the middles of ``count`` equal stretches, ``first`` the first ones,
            ``random`` in training any, in their order (evaluation: as ``uniform``).
        size: edge of the square the encoder sees, in pixels.
        channels: 3 (RGB) or 1 (grey).
        augment: False trains on what evaluation sees.
        scale: share of the area that a training crop has, smallest and largest.
        flip: probability of the mirror image in training.
        interpolation: ``bilinear`` or ``bicubic``.
        normalize: mean and deviation of ``imagenet``, of ``clip``, ``i3d`` (values in [-1, 1]), or ``none``
            (values in [0, 1]).
        bound: shorter side, in pixels, at which larger pictures are decoded and cached; None keeps them.
        crops: draw the training crop once per ``clip``, or for every ``frame`` as the released code
            of IGM does.
    """

    kind = "frames"
    takes = "pictures, or the name of a folder"
    decoded_by = ("channels", "bound", "count", "pick")

    def __init__(
        self,
        count: int = 3,
        pick: Literal["uniform", "random", "first"] = "uniform",
        size: int = 224,
        channels: int = 3,
        augment: bool = True,
        scale: Sequence[float] = (0.08, 1.0),
        flip: float = 0.5,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        normalize: Literal["imagenet", "clip", "i3d", "none"] = "imagenet",
        bound: int | None = None,
        crops: Literal["clip", "frame"] = "clip",
    ):
        super().__init__(size, channels, augment, scale, flip, interpolation, normalize, bound)
        self.count = whole("count", count, low=1)
        self.pick = _checks.choice("pick", pick, ("uniform", "random", "first"))
        self.crops = _checks.choice("crops", crops, ("clip", "frame"))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.count, self.size, self.size)

    def files(self, cell: str) -> list[Path]:
        folder = Path(cell)
        if not folder.is_dir():
            reason = "is a file, not a folder of frames" if folder.is_file() else "no such folder of frames"
            raise ReadError(cell, reason)
        names = [p for p in folder.iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
        if len(names) < self.count:
            raise ReadError(cell, f"holds {len(names)} frames, count={self.count} are asked for")
        return sorted(names, key=by_number)

    def load(self, cell: str) -> Tensor:
        return self._stack(cell, self.decoded_files(cell))

    def decoded_files(self, cell: str) -> list[Path]:
        files = self.files(cell)
        if self.pick == "random":
            return files  # any of them may be drawn
        return [files[i] for i in self._choose(len(files), None)]

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return self._clip(self._picked(decoded, generator), generator)

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        part = self._picked(decoded, generator)
        return part, self._numbers(part, generator, len(part) if self.crops == "frame" else 1)

    def _picked(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return decoded[self._choose(len(decoded), generator)] if self.pick == "random" else decoded

    def load_value(self, value: Any) -> Tensor:
        if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__len__"):
            return super().load_value(value)
        if len(value) < self.count:
            raise ReadError("the frames", f"are {len(value)}, count={self.count} are asked for")
        picked = range(len(value)) if self.pick == "random" else self._choose(len(value), None)
        frames = [self._of_value(value[i]) for i in picked]
        if any(frame is None or frame.shape != frames[0].shape for frame in frames if frames[0] is not None):
            raise ReadError("the frames", "must be pictures of one size")
        return stacked([frame for frame in frames if frame is not None])

    def read(self, cell: Any, generator: torch.Generator | None = None) -> Tensor:
        """As `Reader.read`, but opens only the frames that are picked."""
        if self.pick != "random" or not isinstance(cell, str):
            return super().read(cell, generator)
        files = self.files(cell)
        picked = [files[i] for i in self._choose(len(files), generator)]
        return self._clip(self._stack(cell, picked), generator)

    def _clip(self, frames: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.pixels(frames, generator, alone=self.crops == "frame").movedim(0, 1).contiguous()

    def _choose(self, available: int, generator: torch.Generator | None) -> list[int]:
        if self.pick == "first":
            return list(range(self.count))
        if self.pick == "random" and generator is not None:
            return sorted(torch.randperm(available, generator=generator)[: self.count].tolist())
        return uniform(self.count, available)

    def _stack(self, cell: str, files: Sequence[Path]) -> Tensor:
        frames = [self._open(str(path)) for path in files]
        if odd := [path for path, frame in zip(files, frames, strict=True) if frame.shape != frames[0].shape]:
            raise ReadError(cell, f"frames differ in size: {files[0].name} and {odd[0].name}")
        return stacked(frames)


@lru_cache(16)
def _moments(normalize: str, channels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(C, 1, 1) mean and deviation of so many channels."""
    mean, deviation = (torch.tensor(values) for values in _NORMS[normalize])
    if channels == 1:
        mean, deviation = mean.mean()[None], deviation.mean()[None]
    return mean[:, None, None].to(device), deviation[:, None, None].to(device)
