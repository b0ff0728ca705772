"""What is done to whole batches is what is done to each sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from counterpoise.data import Array, Audio, Clip, Frames, Image, Reader, Video, Waveform
from counterpoise.data.readers.resampling import resized

NATIVE = torch.backends.cpu.get_cpu_capability() in (
    "AVX2",
    "AVX512",
)  # where torchvision resizes 8-bit pictures as such


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def generators(count: int, train: bool) -> list[torch.Generator | None]:
    return [torch.Generator().manual_seed(i) if train else None for i in range(count)]


def both(reader: Reader, decoded: list[Tensor], train: bool) -> tuple[Tensor, Tensor]:
    """Samples transformed one by one, and together."""
    count = len(decoded)
    each = [reader.transform(x, draw) for x, draw in zip(decoded, generators(count, train), strict=True)]
    cuts = [reader.cut(x, draw) for x, draw in zip(decoded, generators(count, train), strict=True)]
    drawn = torch.tensor([numbers for _, numbers in cuts], dtype=torch.float64)
    parts = torch.stack([part for part, _ in cuts])
    before = parts.clone()
    together = reader.transform_batch(parts, drawn)
    assert torch.equal(parts, before)
    return torch.stack(each), together


PICTURES: list[tuple[Reader, tuple[int, ...]]] = [
    (Image(24), (3, 37, 53)),
    (Image(24, interpolation="bicubic", normalize="clip"), (3, 40, 31)),
    (Image(64, channels=1, normalize="none"), (1, 20, 90)),  # enlarged, and no part of the usual aspect ratio
    (Image(16, augment=False), (3, 16, 16)),
    (Image(24, randaugment=(3, 7)), (3, 30, 40)),
    (Image(24, channels=1, randaugment=(2, 10)), (1, 30, 40)),
    (Frames(3, size=24), (3, 3, 40, 50)),
    (Frames(2, pick="random", size=24, crops="frame"), (5, 3, 40, 50)),
    (Video(2, "window", size=24), (6, 3, 40, 50)),
]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(("reader", "shape"), PICTURES, ids=lambda value: type(value).__name__)
def test_pictures(reader: Reader, shape: tuple[int, ...], train: bool):
    one_by_one, together = both(reader, [pixels(*shape, seed=i) for i in range(24)], train)
    assert together.is_contiguous()
    assert together.shape == one_by_one.shape
    levels = (one_by_one - together).abs().max() * 255 * 0.23  # in units that are at least one of 255 levels
    assert levels == 0 if NATIVE else levels <= 1


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_no_precision_of_products_changes_a_picture(precision: str):
    draw = torch.Generator().manual_seed(0)
    pictures, before = pixels(4, 1, 3, 50, 60), torch.get_float32_matmul_precision()
    parts = torch.tensor([Image(24)._drawn(clip, draw) for clip in pictures], dtype=torch.float64)
    expected = resized(pictures, parts, 24, "bilinear")
    torch.set_float32_matmul_precision(precision)
    try:
        assert torch.equal(resized(pictures, parts, 24, "bilinear"), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_picture_that_shrinks_to_a_tenth_differs_by_one_level_at_most():
    one_by_one, together = both(Image(20, normalize="none"), [pixels(3, 230, 310, seed=i) for i in range(8)], True)
    assert (one_by_one - together).abs().max() < 1.01 / 255
    assert ((one_by_one - together).abs() > 1e-6).float().mean() < 0.01


def test_large_batches_are_resized_in_pieces(monkeypatch: pytest.MonkeyPatch):
    decoded = [pixels(3, 30, 40, seed=i) for i in range(7)]
    _, whole = both(Image(24), decoded, True)
    monkeypatch.setattr("counterpoise.data.readers.resampling._AT_ONCE", 2 * 3 * 30 * 40)
    assert torch.equal(both(Image(24), decoded, True)[1], whole)


@pytest.mark.parametrize("train", [True, False])
def test_clips(train: bool):
    reader = Clip(4, 6, resize=20, size=16, flip=0.5)
    one_by_one, together = both(reader, [pixels(9, 3, 20, 20, seed=i) for i in range(8)], train)
    assert torch.equal(one_by_one, together)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_spectrograms(train: bool, padding: Any):
    reader = Audio(8000, 0.5, n_fft=128, hop=50, crop="random", padding=padding)
    waves = [torch.from_numpy(np.random.default_rng(i).normal(0, 0.1, 4000 + 300 * i)).float() for i in range(6)]
    waves[1][1000:] = 0  # near silence the logarithm shows every rounding
    one_by_one, together = both(reader, waves, train)
    assert together.shape == (6, *reader.shape)
    assert torch.allclose(one_by_one, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize("crop", ["start", "random"])
def test_waveforms_and_finished_spectrograms(crop: Any):
    waves = [torch.randn(900, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    assert torch.equal(*both(Waveform(100, 8.0, crop=crop), [w[:800] if crop == "start" else w for w in waves], True))
    reader = Audio(100, 8.0, n_fft=16, hop=5)
    assert torch.equal(*both(reader, [reader.spectrogram(w[:800]) for w in waves], True))


class Darker(Image):
    """Somebody's own, which knows nothing of batches."""

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return super().transform(decoded, generator) / 2


def test_a_class_that_changes_transform_alone_is_read_one_by_one():
    assert Image().batched
    assert not Darker().batched
    assert not Array().batched
