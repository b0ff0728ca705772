"""Sound files block by block to their real end, and what their containers say about where that is."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

from counterpoise.data.readers import mpeg
from counterpoise.data.readers.base import ReadError, regular

if TYPE_CHECKING:
    import numpy as np

    Blocks = Iterator[tuple[int, np.ndarray]]

BLOCK = 1 << 16  # samples that are decoded at a time, of all channels together


def blocks(path: str) -> Blocks:
    """(rate in Hz, (samples, channels) float32) of a file, one block after another to the end of its sound.

    Joined files (MP3, chained Ogg) are read to the end of the last one, so the rate may change on the way.
    Nothing is decoded before it is asked for, except that the end of a FLAC file is looked up first.

    Raises:
        ReadError: it ends before its container says so, or is damaged.
        soundfile.LibsndfileError: it holds no sound that can be read.
    """
    size = regular(path)
    with open(path, "rb") as file:
        start = mpeg.tag_length(file.read(10))
        file.seek(start)
        head = file.read(64)
        if head[:4] == b"OggS":
            yield from _ogg(file, start, path)
        elif head[:4] == b"fLaC":
            yield from _flac(path, int.from_bytes(head[21:26], "big") & 0xFFFFFFFFF)
        elif mpeg.is_mpeg(head):
            file.seek(0)
            yield from mpeg.decoded(file, size, path)
        else:
            chunk = sound_chunk(file, size, path)
            if chunk is not None and chunk.mpeg:
                file.seek(chunk.start)
                yield from mpeg.decoded(file, chunk.start + min(chunk.length, size - chunk.start), path)
            else:
                yield from _libsndfile(path, path)


def _libsndfile(source: str | BinaryIO, path: str) -> Blocks:
    """What libsndfile reads, whose count of samples is exact for all that comes here."""
    import soundfile

    with soundfile.SoundFile(source) as file:
        if file.format == "MP3":  # something that is no frame comes before the first one
            with open(path, "rb") as frames:
                yield from mpeg.decoded(frames, regular(path), path)
            return
        size, total = max(1, BLOCK // file.channels), 0
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            total += len(block)
            yield file.samplerate, block
        if total < file.frames < 1 << 62:  # the largest number stands for an unknown one
            raise ReadError(path, f"truncated or damaged: {total} of {file.frames} samples can be decoded")


def _flac(path: str, announced: int) -> Blocks:
    """FLAC, every frame of which has a check sum and a number; ``announced`` samples, 0 when written to a pipe.

    libsndfile reads neither a FLAC of unknown length nor more than is announced, but it finds the end at once.
    """
    import av
    import soundfile
    from av.error import FFmpegError

    total = 0
    try:
        if announced:
            with soundfile.SoundFile(path) as file:
                file.seek(announced - 1)  # fails when the end is missing, without reading what is before
        with av.open(path) as container:
            stream = container.streams.audio[0]
            stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            as_float = av.AudioResampler(format="flt")
            for frame in container.decode(stream):
                if frame.time is not None and round(frame.time * stream.rate) != total:
                    raise ReadError(path, f"damaged: frames are missing after sample {total}")
                total += frame.samples
                for part in as_float.resample(frame):
                    yield stream.rate, part.to_ndarray().reshape(part.samples, -1)
    except soundfile.LibsndfileError as error:
        raise ReadError(path, f"truncated or damaged: the last of its {announced} samples cannot be decoded") from error
    except FFmpegError as error:
        raise ReadError(path, f"truncated or damaged: {error.strerror}") from error
    if announced and total != announced:
        raise ReadError(path, f"truncated or damaged: {total} samples, and {announced} in the header")


def _ogg(file: BinaryIO, start: int, path: str) -> Blocks:
    """The links of an Ogg file, one after another; libsndfile knows only the first."""
    links = list(_links(file, start, path))
    for begin, end in links:
        if len(links) == 1:
            yield from _libsndfile(path, path)
        else:
            file.seek(begin)
            yield from _libsndfile(io.BytesIO(file.read(end - begin)), path)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _check_sum(page: bytes) -> int:
    """The check sum of an Ogg page: that of zlib with the bits of each byte, and of the result, in the other order."""
    mirrored = (page[:22] + bytes(4) + page[26:]).translate(_MIRRORED)
    crc = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _links(file: BinaryIO, start: int, path: str) -> Iterator[tuple[int, int]]:
    """(begin, end) of each link: from pages that begin streams to the pages that end them all."""
    at, begin = start, start
    unfinished: dict[int, int] = {}  # stream -> number of its next page
    file.seek(start)
    while head := file.read(27):
        lengths = file.read(head[26] if len(head) == 27 else 0)
        page = head + lengths + file.read(sum(lengths))
        if len(head) < 27 or len(page) < 27 + head[26] + sum(lengths):
            raise ReadError(path, f"truncated: it ends within the Ogg page at byte {at}")
        if head[:4] != b"OggS" or int.from_bytes(head[22:26], "little") != _check_sum(page):
            raise ReadError(path, f"damaged: the Ogg page at byte {at} is not as it was written")
        flags, stream, number = head[5], int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
        if flags & 2:
            unfinished[stream] = number
        if unfinished.get(stream, -1) != number:
            raise ReadError(path, f"damaged: pages are missing before byte {at}")
        unfinished[stream] += 1
        at += len(page)
        if flags & 4:
            del unfinished[stream]
            if not unfinished:
                yield begin, at
                begin = at
    if unfinished:
        raise ReadError(path, "truncated: the Ogg stream has no end")


@dataclass(frozen=True)
class _Container:
    """How a container writes its chunks: from ``start`` on a name, a length and the content, each so many bytes."""

    title: str
    start: int
    name: int
    length: int
    order: Literal["little", "big"]
    align: int = 2
    sound: bytes = b"data"
    whole: bool = False  # whether the length counts name and length too


_CONTAINERS = {  # (first four bytes, those from the ninth on)
    (b"RIFF", b"WAVE"): _Container("WAV", 12, 4, 4, "little"),
    (b"RIFX", b"WAVE"): _Container("WAV", 12, 4, 4, "big"),
    (b"RF64", b"WAVE"): _Container("RF64", 12, 4, 4, "little"),
    (b"BW64", b"WAVE"): _Container("BW64", 12, 4, 4, "little"),
    (b"FORM", b"AIFF"): _Container("AIFF", 12, 4, 4, "big", sound=b"SSND"),
    (b"FORM", b"AIFC"): _Container("AIFF", 12, 4, 4, "big", sound=b"SSND"),
    (b"riff", b"\xa5\xd6\x28\xdb"): _Container("W64", 40, 16, 8, "little", align=8, whole=True),
    (b"caff", b"desc"): _Container("CAF", 8, 4, 8, "big", align=1),
}


@dataclass(frozen=True)
class Chunk:
    """Where the sound of a file is, and whether it is MPEG audio."""

    start: int
    length: int
    mpeg: bool


def sound_chunk(file: BinaryIO, size: int, path: str) -> Chunk | None:
    """The chunk of sound in a file of ``size`` bytes; None when it has no chunks that are known here.

    Raises:
        ReadError: the file ends before the chunk does, which libsndfile takes for a regular end.
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b".snd", b"dns."):
        order = "big" if head[:4] == b".snd" else "little"
        return _checked(
            Chunk(int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order), False), 4, size, path
        )
    kind = _CONTAINERS.get((head[:4], head[8:12]))
    if kind is None:
        return None
    at, tag, long = kind.start, 0, 0
    header = kind.name + kind.length
    while at + header <= size:
        file.seek(at)
        start = file.read(header + 26)
        name, length = start[:4], int.from_bytes(start[kind.name : header], kind.order)
        length -= header if kind.whole else 0
        if name == b"ds64":  # the lengths of RF64, which do not fit into 32 bits
            long = int.from_bytes(start[header + 8 : header + 16], "little")
        elif name == b"fmt ":
            tag = int.from_bytes(start[header : header + 2], kind.order)
            if tag == 0xFFFE:  # extensible: the true one comes later
                tag = int.from_bytes(start[header + 24 : header + 26], kind.order)
        elif name == kind.sound:
            wide = length == 0xFFFFFFFF and long > 0
            chunk = Chunk(at + header, long if wide else length, tag in (0x50, 0x55))
            return _checked(chunk, 8 if wide else kind.length, size, path)
        at += header + max(0, length)
        at += -at % kind.align
    raise ReadError(path, f"truncated: a {kind.title} header without sound")


def _checked(chunk: Chunk, width: int, size: int, path: str) -> Chunk:
    """The chunk, unless the file is too short for a length that a field of ``width`` bytes gives."""
    # A writer that streamed into a pipe could not know the length and left the largest number.
    streamed = chunk.length >= (1 << 8 * width - 1) - 4096
    if chunk.start + chunk.length > size and not streamed:
        there = max(0, size - chunk.start)
        raise ReadError(path, f"truncated: the header announces {chunk.length} bytes of sound, the file holds {there}")
    return chunk
