"""Readers take what is in memory as they take files of it, bit for bit."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from counterpoise.data.readers import Array, Audio, Frames, Image, ReadError, Text, Video

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (20, 14, 3), np.uint8)
GREY = RNG.integers(0, 256, (20, 14), np.uint8)


def png(tmp_path: Path, values: np.ndarray, **options: Any) -> Path:
    path = tmp_path / "picture.png"
    Pillow.fromarray(values).save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("values", [RGB, GREY], ids=["rgb", "grey"])
def test_pictures_in_memory_are_those_of_the_file(tmp_path: Path, values: np.ndarray, channels: int):
    path, reader = png(tmp_path, values), Image(size=9, channels=channels)
    expected = reader.read(str(path))
    forms = {
        "PIL": Pillow.fromarray(values),
        "PIL, not loaded": Pillow.open(path),
        "path": path,
        "bytes": path.read_bytes(),
        "of Hugging Face": {"bytes": path.read_bytes(), "path": None},
        "of Hugging Face, path": {"bytes": None, "path": str(path)},
        "array": values,
        "tensor": torch.from_numpy(values),
        "colours first": values.transpose(2, 0, 1) if values.ndim == 3 else values[None],
    }
    for name, value in forms.items():
        assert torch.equal(reader.read(value), expected), name
    draw = [reader.read(value, torch.Generator().manual_seed(3)) for value in (str(path), values)]
    assert torch.equal(*draw)


def test_pictures_are_turned_and_the_users_own_stays(tmp_path: Path):
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter turn
    path, reader = png(tmp_path, RGB, exif=exif), Image(size=9)
    mine = Pillow.open(path)
    assert torch.equal(reader.read(mine), reader.read(str(path)))
    assert mine.size == (14, 20)
    assert not torch.equal(reader.read(str(path)), reader.read(RGB))


def test_frames_in_memory(tmp_path: Path):
    clip = RNG.integers(0, 256, (5, 12, 10, 3), np.uint8)
    for i, frame in enumerate(clip):
        Pillow.fromarray(frame).save(tmp_path / f"{i}.png")
    for pick in ("uniform", "random", "first"):
        reader = Frames(count=3, size=8, pick=pick)
        expected = reader.read(str(tmp_path), torch.Generator().manual_seed(1))
        pictures = [Pillow.fromarray(frame) for frame in clip]
        for value in (clip, pictures, torch.from_numpy(clip).movedim(-1, 1)):
            assert torch.equal(reader.read(value, torch.Generator().manual_seed(1)), expected), pick


@pytest.mark.parametrize("crop", ["start", "random"])
def test_waveforms_in_memory_are_those_of_the_file(tmp_path: Path, crop: Any):
    import soundfile

    reader = Audio(sample_rate=8000, seconds=2.0, n_fft=64, hop=50, crop=crop)
    stereo = RNG.uniform(-0.9, 0.9, (50_000, 2)).astype(np.float32)
    for wave in (stereo[:, 0], stereo):
        path = tmp_path / "wave.wav"
        soundfile.write(path, wave, 16000, subtype="FLOAT")
        expected = reader.read(str(path), torch.Generator().manual_seed(2))
        forms = {
            "pair": (wave, 16000),
            "double": (wave.astype(np.float64), 16000),
            "channels first": (torch.from_numpy(wave.T.copy()), 16000),
            "of Hugging Face": {"array": wave, "sampling_rate": 16000, "path": "wave.wav"},
            "bytes": {"bytes": path.read_bytes(), "path": None},
            "decoder": Decoder(wave.T, 16000),
        }
        for name, value in forms.items():
            assert torch.equal(reader.read(value, torch.Generator().manual_seed(2)), expected), name
    whole = (stereo * 32767).astype(np.int16)
    soundfile.write(tmp_path / "whole.wav", whole, 16000)
    assert torch.equal(reader.read((whole, 16000)), reader.read(str(tmp_path / "whole.wav")))


class Decoder:
    """As torchcodec has it."""

    def __init__(self, data: np.ndarray, rate: int):
        self.data, self.sample_rate = torch.from_numpy(np.ascontiguousarray(data)), rate

    def get_all_samples(self) -> Decoder:
        return self


def test_arrays_in_memory(tmp_path: Path):
    values = RNG.normal(size=(4, 3))
    np.save(tmp_path / "x.npy", values)
    expected = Array().read(str(tmp_path / "x.npy"))
    for value in (values, values.tolist(), torch.from_numpy(values)):
        assert torch.equal(Array().read(value), expected)
    mine = torch.zeros(3)
    Array().read(mine).add_(1)
    assert not mine.any()


BAD = {
    "a text for Audio's pair": (Audio(), 3.5, "Audio takes a pair of a waveform and its rate, or the name or the by"),
    "no rate": (Audio(), np.zeros(9), "Audio takes a pair of a waveform and its rate.*got a ndarray"),
    "a rate of halves": (Audio(), (np.zeros(900), 0.5), "the sampling rate must be a whole number >= 1; got 0.5"),
    "too slow": (Audio(), (np.ones(900), 50), "says 50 samples a second"),
    "three axes": (Audio(), (np.zeros((2, 3, 4)), 8000), r"must be numbers \(samples,\) or \(channels, samples\); got"),
    "full scale": (Audio(), (np.full(900, 3e4), 8000), r"reaches 30000, and sound lies in \[-1, 1\]; divide it"),
    "NaN": (Audio(), (np.full(900, np.nan), 8000), "holds NaN or infinity"),
    "nothing": (Audio(), (np.zeros(0), 8000), "must be numbers"),
    "no sound": (Audio(), b"not a sound", "no readable sound"),
    "floats": (Image(), RGB / 255, "is float64; pictures are uint8, 0 to 255. Numbers that are ready"),
    "first or last": (Image(), np.zeros((3, 9, 3), np.uint8), r"\(3, 9, 3\) and may have its colours first or last"),
    "five colours": (Image(), np.zeros((5, 9, 5), np.uint8), r"\(5, 9, 5\) and is no picture \(H, W\)"),
    "no picture": (Image(), b"not a picture", "is no image that can be read"),
    "a number": (Image(), 3, "Image takes a picture of PIL or of uint8 values, or the name or the bytes of a file; g"),
    "few frames": (Frames(count=3), [RGB], "are 1, count=3 are asked for"),
    "two sizes": (Frames(count=2), [RGB, RGB[1:]], "must be pictures of one size"),
    "not text": (Text(), 3, "Text takes a text; got an int"),
    "bytes for text": (Text(), b"words", "Text takes a text; got a bytes"),
    "words": (Array(), ["a", "b"], "holds <U1, not real numbers"),
    "no video": (Video(), RGB, "Video takes the name or the bytes of a file; got a ndarray"),
}


@pytest.mark.parametrize("case", BAD)
def test_values_that_are_not_taken(case: str):
    reader, value, message = BAD[case]
    with pytest.raises(ReadError) as caught:
        reader.read(value)
    assert re.search(message, caught.value.reason), caught.value.reason


def test_a_damaged_png_in_memory_is_refused():
    file = io.BytesIO()
    Pillow.fromarray(RGB).save(file, "png")
    content = bytearray(file.getvalue())
    content[60] ^= 1
    with pytest.raises(ReadError, match="the PNG chunk at byte"):
        Image().read(bytes(content))
