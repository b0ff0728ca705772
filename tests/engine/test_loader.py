import multiprocessing
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from counterpoise.data.arrays import ArraySplit
from counterpoise.data.cache import CacheError
from counterpoise.data.readers import ReadError
from counterpoise.data.split import Split
from counterpoise.engine import loader
from counterpoise.engine.loader import Loader, Loaders, Request
from counterpoise.methods import IGM, Joint, Unimodal
from counterpoise.testing import assert_same, everything, task, trainer_for

N = 23


class Counting(Split):
    """Says what is read; with a seed its values are noise that depends on seed, index and modality."""

    def __init__(self, n=N, present=None):
        self.modalities, self.classes = ("sound", "sight"), ("a", "b")
        self.ids, self.target, self.present = [str(i) for i in range(n)], torch.arange(n) % 2, present
        self.read = Counter()

    def batch(self, indices, modality, seed):
        self.read[modality] += len(indices)
        rows = []
        for i in indices:
            noise = np.random.default_rng([0 if seed is None else seed % 2**32, i, len(modality)]).normal()
            rows.append([float(i), 0.0 if seed is None else noise])
        return torch.tensor(rows, dtype=torch.float32)

    def fingerprint(self):
        return "counting"


def flat(lists):
    return list(chain.from_iterable(lists))


def indices(batches):
    return [b.index.tolist() for b in batches]


def test_order_depends_on_the_seed_and_on_nothing_else():
    loader, names = Loader(Counting(), 5), ("sound",)
    first = indices(loader.batches(names, order_seed=3))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert indices(loader.batches(names, order_seed=3)) == first
    assert torch.equal(torch.get_rng_state(), state)  # and it draws nothing
    assert indices(loader.batches(names, order_seed=4)) != first
    assert flat(first) != list(range(N))
    assert sorted(flat(first)) == list(range(N))
    assert flat(indices(loader.batches(names))) == list(range(N))


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [2, 3])
def test_replicas_partition_every_global_batch(world, drop_last):
    options = {"order_seed": 7, "drop_last": drop_last}
    whole = indices(Loader(Counting(), 6).batches(("sound",), **options))
    shares = [indices(Loader(Counting(), 6, rank=r, world=world).batches(("sound",), **options)) for r in range(world)]
    for number, batch in enumerate(whole):
        parts = [share[number] for share in shares if number < len(share)]
        assert sorted(flat(parts)) == sorted(batch)
        if len(batch) == 6:
            assert {len(part) for part in parts} == {6 // world}
    assert len(whole) == (3 if drop_last else 4)


def test_the_last_incomplete_batch_may_leave_a_replica_without_a_share():
    shares = [indices(Loader(Counting(13), 6, rank=r, world=2).batches(("sound",))) for r in range(2)]
    assert [len(s) for s in shares] == [3, 2]
    assert sorted(flat(shares[0] + shares[1])) == list(range(13))


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_skipping_gives_the_rest_of_the_same_epoch(skip):
    loader = Loader(Counting(), 5)
    whole = list(loader.batches(("sound",), order_seed=1, augment_seed=9))
    rest = list(loader.batches(("sound",), order_seed=1, augment_seed=9, skip=skip))
    assert len(rest) == len(whole) - skip
    for a, b in zip(rest, whole[skip:], strict=True):
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.inputs["sound"], b.inputs["sound"])


def test_rows_may_repeat_and_hide_a_modality():
    split = Counting()
    rows, shown = torch.tensor([4, 4, 7, 1]), {"sight": torch.tensor([True, False, True, False])}
    (batch,) = Loader(split, 4).batches(("sound", "sight"), rows=rows, visible=shown)
    assert batch.index.tolist() == [4, 4, 7, 1]
    assert batch.target.tolist() == [0, 0, 1, 1]
    assert batch.present["sight"].tolist() == [True, False, True, False]
    assert "sound" not in batch.present
    assert batch.inputs["sight"][:, 0].tolist() == [4, 0, 7, 0]
    assert split.read == {"sound": 4, "sight": 2}  # what is hidden is not read


def test_what_is_shown_cannot_be_there_when_it_is_absent():
    split = Counting(4, present={"sight": torch.tensor([True, False, True, True])})
    (batch,) = Loader(split, 4).batches(("sight",), visible={"sight": torch.tensor([True, True, False, True])})
    assert batch.present["sight"].tolist() == [True, False, False, True]


def test_a_modality_that_nobody_in_the_batch_has_is_not_read():
    split = Counting(4, present={"sight": torch.tensor([False, False, True, True])})
    first, second = Loader(split, 2).batches(("sound", "sight"))
    assert not first.present["sight"].any()
    assert second.present is None
    assert split.read == {"sound": 4, "sight": 2}


def test_a_mask_is_there_on_every_replica_or_on_none():
    # sample 1 lacks sight: it is in the share of replica 1, and replica 0 must know that somebody does
    split = Counting(8, present={"sight": torch.tensor([True, False, *[True] * 6])})
    shares = [list(Loader(split, 4, rank=r, world=2).batches(("sight",))) for r in range(2)]
    assert [b.present is None for b in shares[0]] == [b.present is None for b in shares[1]] == [False, True]
    assert shares[0][0].present["sight"].all()


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_read_the_same(persistent):
    split = Counting(present={"sight": torch.arange(N) % 3 > 0})
    options = {"order_seed": 2, "augment_seed": 5}
    here = list(Loader(split, 5).batches(("sound", "sight"), **options))
    loader = Loader(split, 5, num_workers=2, persistent=persistent)
    for _ in range(2):
        there = list(loader.batches(("sound", "sight"), **options))
        assert len(here) == len(there)
        for a, b in zip(here, there, strict=True):
            assert torch.equal(a.index, b.index)
            assert all(torch.equal(a.inputs[m], b.inputs[m]) for m in a.inputs)
            assert (a.present is None) == (b.present is None)
            assert a.present is None or torch.equal(a.present["sight"], b.present["sight"])


def test_two_passes_over_persistent_workers_do_not_mix():
    loader = Loader(Counting(), 5, num_workers=1, persistent=True)
    expected = indices(Loader(Counting(), 5).batches(("sound",)))
    outer = loader.batches(("sound",))
    found = [next(outer).index.tolist()]
    assert indices(loader.batches(("sound",))) == expected  # while the first is on its way
    assert found + indices(outer) == expected
    abandoned = loader.batches(("sound",), order_seed=1)
    next(abandoned)
    del abandoned
    assert indices(loader.batches(("sound",))) == expected


def test_augmentation_depends_on_seed_index_and_modality():
    loader, names = Loader(Counting(), N), ("sound", "sight")

    def noise(**options):
        (batch,) = loader.batches(names, **options)
        back = batch.index.argsort()
        return {m: x[back, 1] for m, x in batch.inputs.items()}

    first, again = noise(augment_seed=1), noise(augment_seed=1, order_seed=8)
    assert all(torch.equal(first[m], again[m]) for m in names)
    assert not torch.equal(first["sound"], noise(augment_seed=2)["sound"])
    assert not noise()["sound"].any()


def test_kept_loaders_are_those_of_the_run():
    trainer, data = trainer_for(Joint)
    loaders = Loaders(6, 1, trainer.fabric)
    loaders.keep(data.train, data.val)
    assert loaders.get(data.train) is loaders.get(data.train) is loaders.get(data.train, everything=True)
    assert loaders.get(data.test) is not loaders.get(data.test)
    kept = loaders.get(data.val)
    loaders.close()
    assert loaders.get(data.val) is not kept


def test_no_worker_outlives_training():
    trainer, data = trainer_for(Joint, num_workers=1, epochs=2)
    trainer.fit(data.train, data.val)
    fork = trainer.current.fork(Joint(), 1).fit()
    trainer.evaluate(data.test)
    assert fork.history
    assert not multiprocessing.active_children()


def test_workers_train_to_the_same_weights():
    here, data = trainer_for(Joint, epochs=2, absent=0.2)
    there, _ = trainer_for(Joint, epochs=2, num_workers=2)
    assert_same(*(everything(t.fit(data.train, data.val)) for t in (here, there)))


def counting_task():
    data = task(("first", "second"))
    read = Counter()

    class Reads(ArraySplit):
        def batch(self, indices, modality, seed):
            read[modality, seed is not None] += 1
            return super().batch(indices, modality, seed)

    def wrap(split):
        rows = list(range(len(split)))
        return Reads({m: split.batch(rows, m, None) for m in split.modalities}, split.target, split.classes)

    return wrap(data.train), wrap(data.val), read


def test_only_what_a_phase_trains_is_read():
    train, val, read = counting_task()
    trainer, _ = trainer_for(lambda: Unimodal("first"), epochs=2)
    trainer.fit(train, val)
    assert set(read) == {("first", True), ("first", False)}
    read.clear()
    trainer, _ = trainer_for(lambda: IGM(stages=[1, 1]), epochs=2)
    trainer.fit(train, val)
    assert read["first", True] == read["second", True] == trainer.current.num_batches  # one epoch each, not two


def test_requests_are_made_when_they_are_needed(monkeypatch):
    made = []
    monkeypatch.setattr(loader, "Request", lambda *parts: made.append(1) or Request(*parts))
    batches = Loader(task(("first",), n=900).train, 6).batches(("first",), order_seed=0)
    next(batches)
    assert len(made) <= 2
    assert 1 + sum(1 for _ in batches) == len(made) == 90


@pytest.mark.parametrize(("n", "counts"), [(12, [3, 3]), (13, [4, 3]), (14, [4, 4])])
def test_a_replica_gets_no_batch_of_nothing(n, counts):
    """Of n samples in global batches of 4, how many batches each of two replicas gets."""
    loaders = [Loader(Counting(n), 4, rank=rank, world=2) for rank in (0, 1)]
    assert [sum(1 for _ in each.batches(("sound",))) for each in loaders] == counts
    assert [sum(1 for _ in each.batches(("sound",), skip=4)) for each in loaders] == [0, 0]


class OwnError(Exception):
    """Of somebody's own reader; it does not survive pickling."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


ERRORS = {
    "ReadError": lambda: ReadError("clips/7.wav", "the file is cut off\nat byte 9"),
    "CacheError": lambda: CacheError(28, "The cache cannot be written", "cache"),
    "MemoryError": lambda: MemoryError("8 TB for one row"),
    "ValueError": lambda: ValueError("row 7: two\nlines"),
    "OwnError": lambda: OwnError("one", "two"),
}


class Failing(Counting):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def batch(self, indices, modality, seed):
        if 7 in indices:
            raise ERRORS[self.kind]()
        return super().batch(indices, modality, seed)


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_in_a_worker_is_the_error_itself(kind, persistent):
    expected = ERRORS[kind]()
    reads = Loader(Failing(kind), 5, num_workers=1, persistent=persistent).batches(("sound",))
    assert next(reads).index.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(Exception, match=r"\w") as found:
        next(reads)
    if kind == "OwnError":
        assert str(found.value) == "OwnError: one and two"
    else:
        assert type(found.value) is type(expected)
        assert str(found.value) == str(expected)
        assert "in batch" in found.value.__notes__[0]  # where it happened
    assert "Traceback" not in str(found.value)


def test_without_workers_an_error_keeps_its_own_traceback():
    with pytest.raises(ReadError) as found:
        list(Loader(Failing("ReadError"), 5).batches(("sound",)))
    assert found.traceback[-1].name == "batch"
