"""Sound files of kinds that soundfile does not write, for the tests."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile


def chirps(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise in the first third, then a rising tone: (samples, channels)."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(seed).standard_normal((len(t), channels)) * 0.2
    wave = 0.5 * np.sin(2 * np.pi * (300 + 100 * t) * t)
    return np.where(t[:, None] < seconds / 3, noise, wave[:, None] * np.ones(channels)).astype(np.float32)


def encoded(
    path: Path, codec: str, wave: np.ndarray, rate: int, options: dict[str, str] | None = None, **muxer: str
) -> Path:
    """``wave`` (samples, channels) through a codec of FFmpeg; the ending of the path names the container."""
    layout = "mono" if wave.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", options=muxer) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {}, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T), "fltp", layout)
        frame.sample_rate = rate
        coder = stream.codec_context
        fitted = av.AudioResampler(coder.format, layout, rate, coder.frame_size or None).resample(frame)
        for part in [*fitted, None]:
            container.mux(stream.encode(part))
    return path


VARIABLE = {"flags": "+qscale", "global_quality": "236"}


def bare_mp3(path: Path, wave: np.ndarray, rate: int, options: dict[str, str] | None = None) -> Path:
    """An MP3 without a header that says how long it is, as encoders write into a pipe."""
    return encoded(path, "libmp3lame", wave, rate, options, write_xing="0", id3v2_version="0")


def piped_flac(path: Path, wave: np.ndarray, rate: int, subtype: str = "PCM_16") -> Path:
    """A FLAC whose header says neither length nor MD5, as encoders write into a pipe."""
    soundfile.write(path, wave, rate, subtype)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0
    content[22:42] = bytes(20)
    path.write_bytes(content)
    return path


def rf64(path: Path, wave: np.ndarray, rate: int, name: bytes = b"RF64") -> Path:
    """16-bit WAV with lengths of 64 bits, as programs write long recordings."""
    data = (wave * 32767).astype("<i2").tobytes()
    channels = wave.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    sizes = struct.pack("<QQQI", 72 + len(data), len(data), len(wave), 0)
    chunks = b"ds64" + struct.pack("<I", len(sizes)) + sizes + b"fmt " + struct.pack("<I", len(form)) + form
    path.write_bytes(name + b"\xff" * 4 + b"WAVE" + chunks + b"data" + b"\xff" * 4 + data)
    return path
