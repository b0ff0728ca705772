"""A sample of a data set is read once per epoch, and what it draws belongs to seed, epoch and position."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import counterpoise as cp
from counterpoise.data import from_dataset
from counterpoise.engine.loader import Loader
from counterpoise.methods import Joint, Unimodal
from counterpoise.testing import DIM, assert_same, everything, tiny_model

N = 60
PARTS = ["train"] * 36 + ["val"] * 12 + ["test"] * 12


class Noisy(Dataset):
    """Counts its reads in memory that workers share, and adds noise of every global generator."""

    def __init__(self, absent: bool = False):
        self.reads = torch.zeros(N, dtype=torch.int64).share_memory_()
        self.absent = absent

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads[index] += 1
        signal = torch.nn.functional.one_hot(torch.tensor(index % 3), DIM) * 2.0
        first = signal + torch.randn(DIM) + random.gauss(0, 0.1)
        second = signal + torch.from_numpy(np.random.normal(size=DIM))
        gone = self.absent and index % 4 == 1
        return {"first": first, "second": None if gone else second, "label": index % 3}


def splits(dataset: Noisy) -> cp.Splits:
    return from_dataset(dataset, split=PARTS)


def trainer(method: Any = Joint, **options: Any) -> cp.Trainer:
    settings = {"epochs": 3, "batch_size": 12, "progress": False, "accelerator": "cpu", **options}
    made = method()
    return cp.Trainer(tiny_model(made, ("first", "second")), made, **settings)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("absent", [False, True])
def test_a_sample_is_read_once_per_epoch(absent: bool, num_workers: int):
    dataset = Noisy(absent)
    data = splits(dataset)
    dataset.reads.zero_()
    trainer(num_workers=num_workers).fit(data.train, data.val)
    assert dataset.reads[:36].tolist() == [3] * 36  # three epochs
    each = set(dataset.reads[36:48].tolist())
    assert len(each) == 1
    assert each <= {3, 4}  # after every epoch, and once with the selected weights
    assert not dataset.reads[48:].any()


def test_samples_without_what_trains_are_not_read():
    dataset = Noisy(absent=True)
    data = splits(dataset)
    dataset.reads.zero_()
    trainer(lambda: Unimodal("second")).fit(data.train, data.val)
    assert dataset.reads[:36].tolist() == [0 if i % 4 == 1 else 3 for i in range(36)]


def test_workers_draw_the_same_noise():
    results = [trainer(num_workers=workers).fit(*parts()) for workers in (0, 2)]
    assert_same(*map(everything, results))


def parts() -> tuple[Any, Any]:
    data = splits(Noisy(absent=True))
    return data.train, data.val


def test_noise_is_of_seed_and_position_and_the_global_generators_stay():
    data = splits(Noisy())

    def read(seed: int | None, order: int | None = None) -> torch.Tensor:
        (batch,) = Loader(data.train, 36).batches(("first", "second"), augment_seed=seed, order_seed=order)
        return torch.cat(list(batch.inputs.values()), 1)[batch.index.argsort()]

    def seed_all() -> None:
        torch.manual_seed(1)
        np.random.seed(2)
        random.seed(3)

    seed_all()
    expected = torch.rand(3), np.random.rand(3), random.random()
    seed_all()
    one = read(5)
    assert torch.equal(expected[0], torch.rand(3))
    assert np.array_equal(expected[1], np.random.rand(3))
    assert expected[2] == random.random()
    assert torch.equal(one, read(5, order=9))
    assert not (one == read(6)).any()
    assert torch.equal(read(None), read(None))
    assert len(set(one[:, 0].tolist())) == 36
    other = splits(Noisy()).train.subset([7, 3]).batch([1], "first", 5)
    assert torch.equal(one[3, :DIM], other[0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(
    tmp_path: Path, num_workers: int, monkeypatch: pytest.MonkeyPatch
):
    whole = trainer(run_dir=tmp_path / "whole")
    whole.fit(*parts())

    def stop(self: Joint, run: Any) -> None:
        if run.state.epoch == 2:
            raise KeyboardInterrupt

    cut = trainer(run_dir=tmp_path / "cut")
    with monkeypatch.context() as patched:
        patched.setattr(Joint, "on_epoch_start", stop)
        with pytest.raises(KeyboardInterrupt):
            cut.fit(*parts())
    resumed = trainer(run_dir=tmp_path / "cut", num_workers=num_workers)
    resumed.fit(*parts(), resume=True)
    assert_same(everything(whole), everything(resumed))
