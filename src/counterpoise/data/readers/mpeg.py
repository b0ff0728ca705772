"""MPEG audio (layers I, II and III, MP3 that is) frame by frame, since only the frames say how long it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from counterpoise.data.readers.base import ReadError

if TYPE_CHECKING:
    import numpy as np

_V1_III = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBPS = {  # (whether MPEG-1, layer) -> bit rates
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): _V1_III,
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _V2,
    (False, 3): _V2,
}
_CODECS = {1: "mp1float", 2: "mp2float", 3: "mp3float"}
_DECODER_DELAY = 529  # samples by which every decoder of layer III lags behind


@dataclass(frozen=True)
class _Frame:
    """What the four bytes at the start of a frame say; ``info`` is where a length may be stored instead of sound."""

    layer: int
    rate: int
    channels: int
    samples: int
    size: int
    info: int


def _frame(head: bytes) -> _Frame | None:
    """The frame that starts so; None when none does."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)  # version: 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5
    index, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or index in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = (44100, 48000, 32000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits, padding = _KBPS[first, layer][index - 1] * 1000, head[2] >> 1 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    mono = head[3] >> 6 == 3
    info = 4 + ((17 if mono else 32) if first else (9 if mono else 17))
    return _Frame(layer, hertz, 2 - mono, samples, size, info)


def is_mpeg(head: bytes) -> bool:
    """Whether a file that starts so, after tags, is MPEG audio."""
    return _frame(head) is not None


def decoded(file: BinaryIO, end: int, path: str) -> Iterator[tuple[int, np.ndarray]]:
    """(rate, (samples, channels) float32) of each frame between the position of the file and ``end``.

    Raises:
        ReadError: a frame is cut off or damaged, there are bytes that are neither sound nor tag, or there are
            fewer frames than a header (Xing, Info, VBRI) announces.
    """
    import av
    from av.error import FFmpegError

    decoder: Any = None
    part = _Part(0)
    kind: tuple[int, int, int] | None = None
    for at, frame, content in _frames(file, end, path):
        announced = _announced(frame, content)
        if announced is not None or (frame.layer, frame.rate, frame.channels) != kind:  # another file starts here
            part.finish(path, at)
            kind = (frame.layer, frame.rate, frame.channels)
            decoder, part = av.CodecContext.create(_CODECS[frame.layer], "r"), announced or _Part(0)
            if announced is not None:
                continue
        try:
            blocks = [sound.to_ndarray().T for sound in decoder.decode(av.Packet(content))]
        except FFmpegError as error:
            raise ReadError(path, f"damaged at byte {at}: {error.strerror}") from error
        if sum(map(len, blocks)) != frame.samples:
            raise ReadError(path, f"damaged at byte {at}: a frame without its {frame.samples} samples")
        for block in blocks:
            yield frame.rate, part.trimmed(block)
    part.finish(path, end)


class _Part:
    """What a header says about the frames that follow it, and how many came already."""

    def __init__(self, frames: int, samples: int = 0, skip: int = 0, keep: int | None = None):
        self.frames, self.samples, self.skip, self.keep = frames, samples, skip, keep
        self.seen = 0

    def trimmed(self, block: np.ndarray) -> np.ndarray:
        """The block without what the encoder put before the sound and after it."""
        at = self.seen
        self.seen += len(block)
        if self.keep is None or at >= self.frames * self.samples:  # no header, or all that it speaks of has come
            return block
        return block[max(0, self.skip - at) : max(0, self.skip + self.keep - at)]

    def finish(self, path: str, at: int) -> None:
        if self.seen < self.frames * self.samples:
            there = self.seen // self.samples
            raise ReadError(
                path, f"truncated: the header announces {self.frames} frames, {there} are there (byte {at})"
            )


def _announced(frame: _Frame, content: bytes) -> _Part | None:
    """The header that a frame holds instead of sound; None when it holds sound."""
    if frame.layer != 3:
        return None
    at = frame.info
    if content[36:40] == b"VBRI":
        return _Part(int.from_bytes(content[50:54], "big"), frame.samples)
    if content[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(content[at + 4 : at + 8], "big")
    count = int.from_bytes(content[at + 8 : at + 12], "big") if flags & 1 else 0
    lame = at + 8 + 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    end = lame + 34
    stored = int.from_bytes(content[end : end + 2], "big")
    padded = (content[:end] + bytes(2) + content[end + 2 :]).ljust(190, b"\0")[:190]
    # LAME sums what comes before, FFmpeg always 190 bytes. Nothing is cut off on the word of bytes that may be damaged.
    if not count or stored not in (_check_sum(content[:end]), _check_sum(padded)):
        return _Part(count, frame.samples)
    delay, padding = divmod(int.from_bytes(content[lame + 21 : lame + 24], "big"), 4096)
    skip = delay + _DECODER_DELAY
    return _Part(count, frame.samples, skip, count * frame.samples - delay - max(padding, _DECODER_DELAY))


def _check_sum(content: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, lowest bit first, of the header that LAME and others write."""
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def _frames(file: BinaryIO, end: int, path: str) -> Iterator[tuple[int, _Frame, bytes]]:
    """(position, frame, its bytes) of all frames, in order; tags between them are passed over."""
    at, gap = file.tell(), None  # gap: where zeros follow a frame
    first = True
    while at < end:
        file.seek(at)
        head = file.read(min(32, end - at))
        frame = _frame(head)
        if frame is not None and gap is None:
            if at + frame.size > end:
                raise ReadError(path, f"truncated: it ends within a frame of {frame.size} bytes, at {end - at} of them")
            yield at, frame, head[: frame.size] + file.read(max(0, frame.size - len(head)))
            at, first = at + frame.size, False
        elif frame is None and (length := tag_length(head) or _later_tag(file, at, end)):
            gap = None if head[0] or first else at if gap is None else gap
            at += length
        else:
            raise ReadError(
                path,
                f"the bytes from {at if gap is None else gap} on are neither sound nor a tag: damaged, or cut out of "
                "something longer; `ffmpeg -i OLD -c copy NEW.mp3` keeps what is sound",
            )


def tag_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that starts so; 0 when none does."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    length = 0
    for byte in head[6:10]:  # seven bits each
        length = length << 7 | byte & 127
    return 10 + length + (10 if head[5] & 16 else 0)


def _later_tag(file: BinaryIO, at: int, end: int) -> int:
    """Bytes of another tag, or of zeros (which no frame may follow), that start here; 0 when there is neither."""
    file.seek(at)
    head = file.read(min(4096, end - at))
    if head[:3] == b"TAG":
        return 227 if head[3:4] == b"+" else 128
    if head[:8] == b"APETAGEX":
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:11] == b"LYRICSBEGIN":
        closing = [head.find(word) + 9 for word in (b"LYRICSEND", b"LYRICS200") if word in head]
        return min(closing, default=0)
    return len(head) - len(head.lstrip(b"\0"))
