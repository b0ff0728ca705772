"""What the cache keeps of pictures, folders of them and texts."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from counterpoise.data.cache import DecodeCache
from counterpoise.data.readers import Frames, Image, Text


@pytest.mark.parametrize("count", [0, 1, 3], ids=["picture", "one frame", "frames"])
def test_the_order_of_memory_comes_back(tmp_path, count):
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(3):
        array = np.random.default_rng(i).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Pillow.fromarray(array).save(folder / f"{i}.png")
    reader, cell = (Frames(count), str(folder)) if count else (Image(), str(folder / "0.png"))
    plain, cached = reader.decode(cell), DecodeCache(tmp_path / "cache", reader)
    assert plain.movedim(-3, -1).is_contiguous()
    for again in (cached.decode(cell), cached.decode(cell), DecodeCache(tmp_path / "cache", reader).decode(cell)):
        assert torch.equal(again, plain)
        assert again.movedim(-3, -1).is_contiguous()


def test_folders_and_texts(tmp_path, monkeypatch):
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(4):
        Pillow.new("RGB", (8, 8), (i, i, i)).save(folder / f"{i}.png")
    cached = DecodeCache(tmp_path / "cache", Frames(count=4, pick="random"))
    first = cached.decode(str(folder)).clone()
    Pillow.new("RGB", (8, 8), (99, 99, 99)).save(folder / "2.png")
    second = cached.decode(str(folder)).clone()
    assert first[2].max() == 2
    assert second[2].max() == 99
    texts = DecodeCache(tmp_path / "cache", Text(length=4))
    assert torch.equal(texts.decode("one two"), texts.decode("one two"))
    assert not torch.equal(texts.decode("one two"), texts.decode("two one"))


def test_pictures_are_read_with_their_colours_last(tmp_path):
    path, old = str(tmp_path / "a.png"), time.time() - 100
    Pillow.effect_noise((20, 10), 90).convert("RGB").save(path)
    os.utime(path, (old, old))
    cache = DecodeCache(tmp_path / "cache", Image())
    pixels = cache.decode(path)
    out = torch.zeros(2, 10, 20, 3, dtype=torch.uint8).movedim(-1, -3)
    assert cache.fill([path, path], out) == []
    assert torch.equal(out, pixels.expand(2, -1, -1, -1))
    assert cache.fill([path], torch.zeros(1, 3, 10, 20, dtype=torch.uint8)) == [0]  # the other order


def test_a_folder_that_gains_or_changes_a_picture_is_another_content(tmp_path):
    folder, old = tmp_path / "clip", time.time() - 100
    folder.mkdir()

    def write(name: str, colour: int) -> None:
        Pillow.new("L", (4, 4), colour).save(folder / name)
        os.utime(folder / name, (old - colour, old - colour))
        os.utime(folder, (old - colour, old - colour))

    write("1.png", 10)
    write("3.png", 30)
    cache = DecodeCache(tmp_path / "cache", Frames(count=2, pick="first", channels=1))
    levels = [cache.decode(str(folder))[:, 0, 0, 0].tolist() for _ in range(2)]
    write("2.png", 20)
    levels.append(cache.decode(str(folder))[:, 0, 0, 0].tolist())
    write("1.png", 11)
    levels.append(cache.decode(str(folder))[:, 0, 0, 0].tolist())
    assert levels == [[10, 30], [10, 30], [10, 20], [11, 20]]
