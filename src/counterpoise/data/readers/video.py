"""Video files, decoded with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise._extras import require
from counterpoise.data.readers.base import ReadError, regular, window_of, without_window
from counterpoise.data.readers.pictures import stacked, uniform
from counterpoise.data.readers.visual import Visual


class Video(Visual):
    """Frames of a video file as (channels, count, size, size).

    The whole stream is decoded, and every error of the decoder, every packet or frame marked as
    damaged, and a file that ends before its container says so raises. Damage that still decodes to
    valid pictures cannot be seen by anyone. Frames are turned by quarters as the file says that players
    should (phones film upright so); mirrors and other angles are not applied.

    A cell ``clip.avi#138:218`` means the frames 138 to 217 (from 0) of that file, and nothing else of it.

    Args:
        count: frames per sample; a video with fewer is an error.
        pick: ``uniform`` takes the middles of ``count`` equal stretches; ``window`` takes ``count``
            consecutive frames, at a random place in training and in the middle in evaluation (then
            all frames are cached).
        size: edge of the square the encoder sees, in pixels.
        channels: 3 (RGB) or 1 (grey).
        augment: False trains on what evaluation sees.
        scale: share of the area that a training crop has, smallest and largest.
        flip: probability of the mirror image in training.
        interpolation: ``bilinear`` or ``bicubic``.
        normalize: mean and deviation of ``imagenet``, of ``clip``, ``i3d`` (values in [-1, 1]), or ``none``
            (values in [0, 1]).
        bound: shorter side, in pixels, at which larger frames are decoded and cached; None keeps them.
    """

    kind = "frames"
    decoded_by = ("channels", "bound", "count", "pick")
    _scaling = "AREA"
    extensions = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".flv", ".mpg", ".mpeg", ".m4v", ".wmv")

    def __init__(
        self,
        count: int = 3,
        pick: Literal["uniform", "window"] = "uniform",
        size: int = 224,
        channels: int = 3,
        augment: bool = True,
        scale: Sequence[float] = (0.08, 1.0),
        flip: float = 0.5,
        interpolation: Literal["bilinear", "bicubic"] = "bilinear",
        normalize: Literal["imagenet", "clip", "i3d", "none"] = "imagenet",
        bound: int | None = 256,
    ):
        require("The reader Video", "av")
        super().__init__(size, channels, augment, scale, flip, interpolation, normalize, bound)
        self.count = whole("count", count, low=1)
        self.pick = _checks.choice("pick", pick, ("uniform", "window"))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.count, self.size, self.size)

    def part(self, cell: str) -> str:
        window = window_of(cell)
        return "" if window is None else f"{window[0]}:{window[1]}"

    def load(self, cell: str) -> Tensor:
        from av.error import FFmpegError

        path = without_window(cell)
        check_length(path)
        try:
            expected = packets(path)
            frames, total = self._decode(path, self._positions(cell, expected))
            if total != expected:  # packets without a picture, or with two
                frames, total = self._decode(path, self._positions(cell, total))
        except FFmpegError as error:
            raise ReadError(cell, f"no readable video: {error.strerror}" + self._hint(path)) from error
        return stacked(frames)

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.pixels(self._picked(decoded, generator), generator).movedim(0, 1).contiguous()

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        part = self._picked(decoded, generator)
        return part, self._numbers(part, generator)

    def _picked(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.pick == "uniform":
            return decoded
        spare = len(decoded) - self.count
        start = spare // 2 if generator is None else int(torch.randint(spare + 1, (), generator=generator))
        return decoded[start : start + self.count]

    def _positions(self, cell: str, total: int) -> Collection[int]:
        start, end = window_of(cell) or (0, total)
        if not start < end <= total:
            raise ReadError(cell, f"holds {total} frames, {start} to {end} are asked for")
        if end - start < self.count:
            raise ReadError(cell, f"holds {end - start} frames, count={self.count} are asked for")
        if self.pick == "window":
            return range(start, end)
        return {start + i for i in uniform(self.count, end - start)}

    def _decode(self, cell: str, positions: Collection[int]) -> tuple[list[Tensor], int]:
        """The frames at ``positions`` (C, H, W), and how many there are in all."""
        import av

        frames: list[Tensor] = []
        total = 0
        with av.open(cell) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": "explode"}
            to_tensor = self._converter(stream.codec_context.width, stream.codec_context.height)
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise ReadError(cell, f"truncated or damaged after frame {total}")
                for frame in packet.decode():
                    if getattr(frame, "is_corrupt", False):
                        raise ReadError(cell, f"frame {total} is damaged")
                    if total in positions:
                        frames.append(to_tensor(frame))
                    total += 1
        return frames, total

    def _decoded_size(self, width: int, height: int) -> tuple[int, int]:
        if self.bound is None or (least := min(width, height)) <= self.bound:
            return width, height
        return max(1, round(width * self.bound / least)), max(1, round(height * self.bound / least))

    def _converter(self, width: int, height: int) -> Callable[[Any], Tensor]:
        """How a decoded frame becomes (C, H, W) uint8 of the size to keep."""
        size, pixels = (width, height), "gray" if self.channels == 1 else "rgb24"

        def to_tensor(frame: Any) -> Tensor:
            quarters = round(frame.rotation / 90)  # counterclockwise
            across, down = self._decoded_size(*(size[::-1] if quarters % 2 else size))
            width, height = (down, across) if quarters % 2 else (across, down)
            array = frame.to_ndarray(format=pixels, width=width, height=height, interpolation=self._scaling)
            picture = torch.from_numpy(array).reshape(height, width, self.channels)
            return (torch.rot90(picture, quarters).contiguous() if quarters else picture).movedim(-1, 0)

        return to_tensor


def packets(cell: str) -> int:
    """How many packets the first video stream has; ReadError when there is none."""
    import av

    with av.open(cell) as container:
        if not container.streams.video:
            raise ReadError(cell, "holds no video stream")
        stream = container.streams.video[0]
        count = sum(packet.size > 0 for packet in container.demux(stream))
        if count == 0:
            raise ReadError(cell, "is a video of length zero (no frame)")
    return count


def check_length(cell: str) -> None:
    """ReadError when the file is shorter than its container says, which most demuxers take for a regular end."""
    size = regular(cell)
    with open(cell, "rb") as file:
        start = file.read(64)
        if start[:4] == b"\x1aE\xdf\xa3":
            announced = _matroska_length(start)
        elif start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            announced = _mp4_length(file, size)
        elif start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            announced = int.from_bytes(start[4:8], "little") - 8  # some writers count the header too
        else:
            return
    if announced > size:
        raise ReadError(cell, f"truncated: the header announces {announced} bytes, the file holds {size}")


_MEDIA = (b"moov", b"mdat", b"moof")


def _mp4_length(file: BinaryIO, size: int) -> int:
    """Where the last box that describes or holds media ends; what apps append after it, box or not, may be anything."""
    at = end = 0
    while at + 8 <= size:
        file.seek(at)
        box = file.read(16)
        length = int.from_bytes(box[:4], "big")
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if length < 8:  # 0: to the end of the file; the rest is no box
            break
        at += length
        if box[4:8] in _MEDIA:
            end = at
    return end


def _matroska_length(start: bytes) -> int:
    """Where the segment ends; 0 when the header leaves it open, as a live recording does."""
    header, at = _number(start, 4)
    at += header
    if start[at : at + 4] != b"\x18S\x80g":
        return 0
    segment, end = _number(start, at + 4)
    open_ended = segment == (1 << 7 * (end - at - 4)) - 1
    return 0 if open_ended else end + segment


def _number(start: bytes, at: int) -> tuple[int, int]:
    """A variable-length number of EBML, and where it ends."""
    if at >= len(start) or not start[at]:
        return 0, at
    length = 9 - start[at].bit_length()
    return int.from_bytes(start[at : at + length], "big") & ((1 << 7 * length) - 1), at + length
