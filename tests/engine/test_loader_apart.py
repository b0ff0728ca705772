"""Loaders that leave to the device what it can do for a whole batch, against those that read sample by sample."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow
from torch import Tensor, nn

import counterpoise as cp
from counterpoise.data import Audio, Image, Reader, Splits, Table, table_split
from counterpoise.data.readers import ReadError
from counterpoise.data.table_split import TableSplit
from counterpoise.engine import loader as loader_module
from counterpoise.engine.loader import Loader
from counterpoise.methods import IGM, Joint
from counterpoise.testing import assert_same, everything
from counterpoise.types import Batch

N = 20
CPU = torch.device("cpu")
NAMES = ("face", "voice")


def write(folder: Path, *, absent: bool = False, odd: bool = False) -> Path:
    """A table of pictures and recordings of different lengths; every fourth lacks its picture, one has another size."""
    random, old = np.random.default_rng(0), time.time() - 100
    lines = ["face,voice,label,split"]
    for i in range(N):
        size = (26, 20) if odd and i == 3 else (24, 20)
        noise = random.integers(0, 256, (*size, 3), np.uint8)
        Pillow.fromarray(noise).save(folder / f"{i}.png")
        soundfile.write(folder / f"{i}.wav", random.normal(0, 0.1, 2000 + 37 * i), 4000)
        for ending in ("png", "wav"):
            os.utime(folder / f"{i}.{ending}", (old, old))
        face = "" if absent and i % 4 == 1 else f"{i}.png"
        lines.append(f"{face},{i}.wav,{'ab'[i % 2]},{'val' if i >= 14 else 'train'}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def readers() -> dict[str, Reader | str]:
    return {
        "face": Image(16, interpolation="bicubic"),
        "voice": Audio(4000, 0.25, n_fft=64, hop=40, crop="random"),
    }


def splits(path: Path, cache: bool = True, **readings: Reader) -> Splits:
    return Table(path, {**readers(), **readings}, cache=path.parent / "cache" if cache else None).splits()


def batches(split: Any, *, apart: bool, workers: int = 0, seed: int | None = 3, size: int = 5) -> list[Batch]:
    reads = Loader(split, size, num_workers=workers, device=CPU if apart else None)
    return list(reads.batches(split.modalities, order_seed=1, augment_seed=seed))


def assert_close(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other) > 1
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.target, b.target)
        assert list(a.inputs) == list(b.inputs)
        assert all(torch.allclose(a.inputs[m], b.inputs[m], atol=1e-5, rtol=0) for m in a.inputs)
        assert (a.present or {}).keys() == (b.present or {}).keys()


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
def test_batches_are_those_of_one_sample_after_another(tmp_path: Path, seed: int | None, cache: bool, absent: bool):
    data = splits(write(tmp_path, absent=absent), cache)
    expected = batches(data.train, apart=False, seed=seed)
    for _ in range(2):  # decoding, and from the cache
        assert_close(batches(data.train, apart=True, seed=seed), expected)
    assert_close(batches(data.train.subset(range(13)), apart=True), batches(data.train.subset(range(13)), apart=False))


@pytest.mark.parametrize("apart", [False, True])
def test_workers_read_the_same_again_and_again(tmp_path: Path, apart: bool):
    """More batches than a worker has slabs, and batches that are kept while others arrive."""
    split = splits(write(tmp_path, absent=True)).train
    here = batches(split, apart=apart, size=2)
    reads = Loader(split, 2, num_workers=2, persistent=True, device=CPU if apart else None)
    for _ in range(3):
        abandoned = reads.batches(split.modalities, order_seed=9, augment_seed=3)
        next(abandoned)
        del abandoned
        there = list(reads.batches(split.modalities, order_seed=1, augment_seed=3))
        for a, b in zip(here, there, strict=True):
            assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in NAMES)
            assert torch.equal(a.index, b.index)


def test_an_epoch_goes_on_where_it_stopped(tmp_path: Path):
    split = splits(write(tmp_path, absent=True)).train
    how: Any = {"order_seed": 1, "augment_seed": 3}
    whole = list(Loader(split, 4, device=CPU).batches(NAMES, **how))
    for workers in (0, 1):
        rest = list(Loader(split, 4, num_workers=workers, device=CPU).batches(NAMES, skip=2, **how))
        for a, b in zip(whole[2:], rest, strict=True):
            assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in NAMES)


def test_larger_batches_than_the_first_and_other_modalities(tmp_path: Path):
    split = splits(write(tmp_path)).train
    reads = Loader(split, 4, num_workers=1, persistent=True, device=CPU)
    for names in (("voice",), NAMES, ("face",), NAMES):
        expected = Loader(split, 4, device=CPU).batches(names, augment_seed=3)
        for a, b in zip(expected, reads.batches(names, augment_seed=3), strict=True):
            assert list(a.inputs) == list(b.inputs) == list(names)
            assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in names)


@pytest.mark.parametrize("cache", [False, True])
def test_pictures_of_different_sizes_are_read_one_by_one(tmp_path: Path, cache: bool):
    data = splits(write(tmp_path, odd=True), cache)
    expected = batches(data.train, apart=False)
    for workers in (0, 1):
        found = batches(data.train, apart=True, workers=workers)
        assert_close(found, expected)
    there = [3 in batch.index.tolist() for batch in expected]
    assert any(there)
    assert not all(there)
    kinds = [data.train.parts(batch.index.tolist(), "face", 3) for batch in expected]
    assert [kind is None or kind.drawn is None for kind in kinds] == there


def test_a_damaged_file_is_named(tmp_path: Path):
    path = write(tmp_path)
    (tmp_path / "7.png").write_bytes(b"no picture")
    for cache in (False, True):
        with pytest.raises(ReadError, match=r"column 'face'.*7\.png"):
            batches(splits(path, cache).train, apart=True)


def run(data: Splits, method: Any, **options: Any) -> cp.Trainer:
    torch.manual_seed(0)
    encoders = {m: Flat(x.numel()) for m in NAMES if (x := data.train.example(m)) is not None}
    model = cp.build_model(encoders, "Late", num_classes=2)
    return cp.Trainer(model, method, epochs=2, batch_size=4, progress=False, accelerator="cpu", **options)


class Flat(nn.Module):
    """A linear encoder of whatever comes."""

    def __init__(self, size: int):
        super().__init__()
        self.dim, self.linear = 4, nn.Linear(size, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "transforms_there", lambda device: True)


@pytest.mark.usefixtures("there")
def test_workers_train_to_the_same_weights(tmp_path: Path):
    data = splits(write(tmp_path, absent=True))
    weights = [everything(run(data, Joint(), num_workers=n).fit(data.train, data.val)) for n in (0, 2)]
    assert_same(*weights)


@pytest.mark.usefixtures("there")
def test_only_what_a_phase_trains_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data, asked, original = splits(write(tmp_path)), Counter(), TableSplit.parts

    def parts(self: TableSplit, indices: Any, modality: str, seed: int | None, *rest: Any) -> Any:
        asked[modality, seed is not None] += len(indices)
        return original(self, indices, modality, seed, *rest)

    monkeypatch.setattr(TableSplit, "parts", parts)
    run(data, IGM(stages=[1, 1])).fit(data.train, data.val)
    assert asked["face", True] == asked["voice", True] == 12  # one epoch each, in whole batches, and not two


@pytest.mark.parametrize("cache", [False, True])
def test_numbers_that_are_not_finite_are_named_before_they_reach_the_device(tmp_path, monkeypatch, cache):
    path, decode = write(tmp_path), Audio.decode

    def odd(self: Audio, cell: str) -> Tensor:
        return decode(self, cell) * (float("nan") if Path(cell).name == "2.wav" else 1)

    monkeypatch.setattr(Audio, "decode", odd)
    data = splits(path, cache).train
    for _ in range(2):  # the second time, what the cache holds
        with pytest.raises(ReadError, match=r"row 3, column 'voice'.*2.wav: holds NaN"):
            list(Loader(data, 4, device=CPU).batches(("voice",)))


def test_what_the_cache_has_verified_is_not_looked_at_again(tmp_path, monkeypatch):
    loader = Loader(splits(write(tmp_path)).train, 4, device=CPU)
    count = len(list(loader.batches(("face",))))
    looked: list[Tensor] = []
    monkeypatch.setattr(table_split, "all_finite", lambda x: looked.append(x) or True)
    assert len(list(loader.batches(("face",)))) == count
    assert len(looked) == count  # the first of each batch, whose shape the others are taken to have
