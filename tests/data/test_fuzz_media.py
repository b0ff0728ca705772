"""Hundreds of damaged files: each is refused by its name, or read to what a decoder that knows nothing of us reads.

What a format protects by check sums (PNG, Ogg, frames of FLAC) must give the values of the intact file or be refused.
A WAV, JPEG, MP3 or MP4 whose damage decodes is another file, which nobody can tell from an intact one; it must give
what the format's other decoders make of the same bytes: none of it lost, none of it added.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.error import FFmpegError
from PIL import Image as Pillow
from sounds import VARIABLE, bare_mp3, chirps, encoded, piped_flac

from counterpoise.data.readers import Audio, Image, ReadError, Video
from counterpoise.data.readers.sound import blocks

COUNT = 32  # damaged files of each kind
FRAMES = 12


def make(kind: str, folder: Path) -> Path:
    """An intact file of a kind."""
    path, wave = folder / f"intact.{kind.split('-')[-1]}", chirps(1.5, 16000)
    if kind in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(path, wave, 16000)
    elif kind == "adpcm-wav":
        soundfile.write(path, wave, 16000, "IMA_ADPCM")
    elif kind == "mpeg-wav":
        encoded(path, "libmp3lame", wave, 16000)
    elif kind == "bare-mp3":
        bare_mp3(path, wave, 16000, VARIABLE)
    elif kind == "piped-flac":
        piped_flac(path, wave, 16000)
    elif kind in ("jpg", "png"):
        rng = np.random.default_rng(0)
        rough = Pillow.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        rough.resize((90, 70), Pillow.Resampling.BICUBIC).save(path)
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 2_000_000
            rng = np.random.default_rng(0)
            for _ in range(FRAMES):
                noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, "rgb24")))
            container.mux(stream.encode())
    return path


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """One of seven kinds of damage, anywhere; every third in the first 200 bytes, where headers are."""
    reach = len(whole) if rng.integers(3) else min(200, len(whole))
    at, length = int(rng.integers(reach)), int(rng.integers(1, 80))
    noise = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    content = bytearray(whole)
    kind = int(rng.integers(7))
    if kind == 0:
        content[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        content[at : at + length] = noise[: len(content) - at]
    elif kind == 2:
        content[at : at + length] = bytes(min(length, len(content) - at))
    elif kind == 3:
        del content[at : at + length]
    elif kind == 4:
        content[at:at] = noise
    elif kind == 5:
        content[at:at] = content[at : at + length]
    else:
        del content[max(at, 8) :]
    return bytes(content)


def sound(path: Path) -> np.ndarray:
    """All samples, mono, at their own rate."""
    Audio(seconds=0.5, crop="random").decode(str(path))
    return np.concatenate([block.mean(1) for _, block in blocks(str(path))])


def read(kind: str, path: Path) -> np.ndarray:
    if kind in ("jpg", "png"):
        return Image().decode(str(path)).movedim(0, -1).numpy()
    if kind == "mp4":
        return Video(count=1, pick="window", bound=None).decode(str(path)).movedim(1, -1).numpy()
    return sound(path)


def by_others(kind: str, path: Path, **options: str) -> np.ndarray:
    """The same by Pillow, libsndfile in one piece, or FFmpeg with its own demultiplexer, all errors forgiven."""
    if kind == "jpg":
        return np.asarray(Pillow.open(path).convert("RGB"))
    if kind.endswith("wav") and kind != "mpeg-wav":
        return soundfile.read(path, dtype="float32", always_2d=True)[0].mean(1)
    parts = []
    with av.open(str(path)) as container:
        stream: Any = container.streams[0]
        stream.codec_context.options = options
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    parts.append(frame.to_ndarray(format="rgb24"))
                elif isinstance(frame, av.AudioFrame):
                    parts += [part.to_ndarray().mean(0) for part in av.AudioResampler("fltp").resample(frame)]
    return np.stack(parts) if kind == "mp4" else np.concatenate(parts)


def verdict(kind: str, path: Path, intact: np.ndarray) -> str:
    """ "refused", "same" as the intact file, "alike" to what others read; or what is wrong."""
    try:
        found = read(kind, path)
    except ReadError as error:
        text = str(error)
        return "refused" if text.startswith(str(path)) and text.isprintable() else f"a bad message: {text!r}"
    if found.shape == intact.shape and np.array_equal(found, intact):
        return "same"
    if kind in ("png", "ogg", "flac", "piped-flac"):
        return f"silently changed: {found.shape} for {intact.shape}"
    for options in ({}, {"flags2": "+skip_manual"} if kind == "mp3" else {}):
        others = by_others(kind, path, **options)
        if kind == "mp3" and abs(len(found) - len(others)) == 576:
            # A damaged header keeps what the encoder added around the sound, and may itself be heard as a silent frame.
            length = min(len(found), len(others))
            found, others = found[-length:], others[-length:]
        if found.shape == others.shape and np.abs(found.astype(float) - others).max() < 1e-3:
            return "alike"
    return f"others read {others.shape}, this {found.shape}"


def verdicts(kind: str, folder: Path) -> list[str]:
    """The verdict on each damaged file of a kind; runs in a process of its own, as decoders may crash."""
    source = make(kind, folder)
    intact, whole = read(kind, source), source.read_bytes()
    rng = np.random.default_rng(sum(map(ord, kind)))
    found = []
    for i in range(COUNT):
        path = folder / f"{i}{source.suffix}"
        path.write_bytes(damaged(whole, rng))
        found.append(verdict(kind, path, intact))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["wav", "adpcm-wav", "mpeg-wav", "mp3", "bare-mp3", "flac", "piped-flac", "ogg", "jpg", "png", "mp4"],
)
def test_damaged_files_are_refused_or_read_as_others_read_them(tmp_path, kind):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(verdicts, kind, tmp_path).result(timeout=600)
    wrong = {i: text for i, text in enumerate(found) if text not in ("refused", "same", "alike")}
    assert not wrong
    assert len(found) == COUNT
    assert "refused" in found
