"""Drawing with equally frequent classes: exact counts, whole rounds, and nothing but the seed decides."""

import torch

from counterpoise.data.sampling import balanced

TARGET = torch.tensor([0] * 50 + [3] * 7 + [1] * 2 + [0] * 4)  # nobody has class 2


def test_classes_are_equally_frequent_and_samples_of_a_class_too():
    rows = balanced(TARGET, seed=3)
    assert len(rows) == len(TARGET)
    counts = torch.bincount(TARGET[rows])
    assert counts.tolist() == [21, 21, 0, 21]
    of_sample = torch.bincount(rows, minlength=len(TARGET))
    assert of_sample[TARGET == 0].max() == 1  # of a frequent class some are drawn, none twice
    assert of_sample[TARGET == 3].tolist() == [3] * 7
    assert sorted(of_sample[TARGET == 1].tolist()) == [10, 11]


def test_what_does_not_divide_goes_to_classes_in_turn():
    target = torch.tensor([0, 0, 1, 1, 2])
    more = [int(torch.bincount(target[balanced(target, seed)]).argmin()) for seed in range(40)]
    assert all(sorted(torch.bincount(target[balanced(target, seed)]).tolist()) == [1, 2, 2] for seed in range(40))
    assert set(more) == {0, 1, 2}


def test_every_epoch_draws_others_and_the_same_seed_the_same():
    assert torch.equal(balanced(TARGET, 1), balanced(TARGET, 1))
    first, second = (set(balanced(TARGET, seed).tolist()) for seed in (1, 2))
    assert first != second
    assert set().union(*(balanced(TARGET, seed).tolist() for seed in range(40))) == set(range(len(TARGET)))
