"""What is no file, and files that ask for far more than they hold, are refused by name, one row at a time."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from counterpoise.data import Table, check
from counterpoise.data.cache import DecodeCache
from counterpoise.data.readers import Array, Audio, Image, Reader, ReadError, Video


def table(folder: Path, cells: list[str], reader: Reader) -> Table:
    """Rows of two classes and two parts, one modality."""
    rows = [f"{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i % 4]},{cell}" for i, cell in enumerate(cells)]
    (folder / "t.csv").write_text("\n".join(["label,split,m", *rows]) + "\n")
    return Table(folder / "t.csv", {"m": reader})


@pytest.mark.parametrize("reader", [Audio(), Image(), Video(), Array()])
@pytest.mark.parametrize("cell", ["pipe", "/dev/zero", "/dev/null"])
def test_devices_and_pipes_are_no_files(tmp_path, reader, cell):
    os.mkfifo(tmp_path / "pipe")
    path = str(tmp_path / cell)
    message = "is a device, a pipe or a socket, not a file"
    assert reader.problems(path) == message
    with pytest.raises(ReadError, match=message):
        DecodeCache(tmp_path / "cache", reader).decode(path)


def test_a_check_names_devices_and_goes_on(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(9000) / 9), 8000)
    os.mkfifo(tmp_path / "pipe")
    cells = ["a.wav", "/dev/zero", "a.wav", "/dev/zero", "pipe", "none.wav", "pipe", "pipe"]
    errors = [e for e in check(table(tmp_path, cells, Audio())).errors if e.kind == "file"]
    assert [e.row for e in errors] == [2, 5, 6]
    assert [e.message.split(" (")[0] for e in errors[:2]] == ["is a device, a pipe or a socket, not a file"] * 2


class Greedy(Image):
    """Needs more memory than any machine has for every second picture."""

    def __init__(self, place: str = "load"):
        super().__init__(size=8)
        self.place = place

    def _claim(self, place: str, picture: torch.Tensor) -> None:
        if place == self.place and picture.max() > 100:
            np.empty((1 << 60,), np.uint8)

    def load(self, cell: str) -> torch.Tensor:
        picture = super().load(cell)
        self._claim("load", picture)
        return picture

    def transform(self, decoded: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        self._claim("transform", decoded)
        return super().transform(decoded, generator)


@pytest.mark.parametrize("place", ["load", "transform"])
def test_a_lack_of_memory_names_the_row_and_ends_no_check(tmp_path, place):
    for i in range(4):
        Pillow.new("L", (9, 9), 200 * (i % 2) + i).save(tmp_path / f"{i}.png")
    errors = check(table(tmp_path, [f"{i}.png" for i in range(4)], Greedy(place))).errors
    found = [(e.row, e.message.split(" (")[0]) for e in errors if e.kind == "file"]
    assert found == [(row, "needs more memory than there is") for row in (2, 4)]


@pytest.mark.parametrize("rate", [1000, 4000, 8000])
def test_a_recording_of_nothing_but_silence_is_bounded_by_its_size(tmp_path, rate, monkeypatch):
    monkeypatch.setattr("counterpoise.data.readers.waveform._SPARE", 1 << 20)
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros(3_000_000), rate)
    with pytest.raises(ReadError, match=r"a.flac: holds more than \d+ samples at 22050 Hz, too many for its size"):
        Audio(crop="random").decode(str(path))
    assert Audio().problems(str(path)) is None  # of which three seconds are read


@pytest.mark.parametrize(
    ("ending", "rate"),
    [("wav", 1), ("wav", 99), ("aiff", 2), ("au", 50), ("flac", 20), ("wav", 10_000_001), ("wav", 2_000_000_000)],
)
@pytest.mark.parametrize("crop", ["start", "random"])
def test_a_rate_that_no_sound_has_is_refused_with_the_rule_and_the_cure(tmp_path, ending, rate, crop):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.sin(np.arange(50_000) / 9), rate)
    message = Audio(crop=crop).problems(str(path))
    assert f"its header says {rate} samples a second, and sound has 100 to 10000000" in message
    assert "asetrate=16000" in message
    assert ".npy" in message


@pytest.mark.parametrize("rate", [100, 200, 2000, 500_000, 10_000_000])
def test_slow_and_fast_recorders_are_read(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(rate // 10) / 9), rate)
    assert Audio(sample_rate=16000, crop="random", seconds=0.05).decode(str(tmp_path / "a.wav")).shape == (1600,)
