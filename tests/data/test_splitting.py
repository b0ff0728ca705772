"""Holding out a share: proportions, groups, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise.data.splitting import holdout


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.floats(0.05, 0.9), st.integers(0, 10**12))
def test_every_class_is_on_both_sides_in_proportion(counts, share, seed):
    target = np.repeat(np.arange(len(counts)), counts)
    kept, held = holdout(target, share, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(target)))
    held_counts = np.bincount(target[held], minlength=len(counts))
    assert (held_counts >= 1).all()
    assert (held_counts < counts).all()
    assert (abs(held_counts - np.array(counts) * share) <= 1).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5), st.integers(6, 25))
def test_no_group_is_on_both_sides_and_classes_are_when_they_can(seed, classes, groups):
    rng = np.random.default_rng(seed)
    target = rng.integers(0, classes, groups * 6)
    target[: 2 * classes] = np.tile(np.arange(classes), 2)
    group = rng.integers(0, groups, len(target))
    group[:classes], group[classes : 2 * classes] = 0, 1
    kept, held = holdout(target, 0.3, seed, group)
    assert not set(group[kept]) & set(group[held])
    assert len(kept) + len(held) == len(target)
    assert set(target[kept]) == set(range(classes)), "training sees every class"


def test_groups_come_near_the_share():
    target = np.tile(np.arange(4), 100)
    group = np.repeat(np.arange(100), 4)
    _, held = holdout(target, 0.25, 3, group)
    assert len(held) == 100
    assert np.bincount(target[held]).tolist() == [25] * 4


def test_a_class_confined_to_few_groups_is_still_divided():
    target = np.array([0] * 40 + [1] * 4)
    group = np.array([*np.repeat(np.arange(8), 5), 8, 8, 9, 9])
    kept, held = holdout(target, 0.2, 0, group)
    assert set(target[kept]) == set(target[held]) == {0, 1}


def test_same_arguments_same_split_and_the_seed_matters():
    target = np.arange(200) % 5
    a, b, c = (holdout(target, 0.2, s)[1] for s in (7, 7, 8))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    # Frozen: a library update must not move samples between the parts of anyone's data set.
    assert holdout(np.arange(20) % 2, 0.3, 0)[1].tolist() == FROZEN


FROZEN = [1, 2, 4, 5, 6, 15]


def test_single_sample_class_stays_in_train_with_a_warning():
    with pytest.warns(UserWarning, match="1 of 3 classes cannot be divided.*class numbers 2"):
        kept, _ = holdout([0] * 5 + [1] * 5 + [2], 0.2, 0)
    assert 10 in kept


def test_class_in_one_group_stays_in_train_with_a_warning():
    target = [0, 0, 0, 0, 1, 1]
    with pytest.warns(UserWarning, match="cannot be divided"):
        kept, held = holdout(target, 0.3, 0, ["a", "b", "c", "d", "e", "e"])
    assert {4, 5} <= set(kept.tolist())
    assert len(held)


@pytest.mark.parametrize(
    ("target", "share", "group", "message"),
    [
        ([0, 1, 2], 0.3, None, "every class has only one sample"),
        ([0], 0.3, None, "at least 2 samples"),
        ([0, 0, 1, 1], 0.5, ["a"] * 4, "1 distinct value"),
        ([0, 0, 1, 1], 0.5, ["a", "a", "b", "b"], "every class has only one group"),
        ([0, 0, 1, 1], 0.5, ["a"], "4 samples, 1 groups"),
        ([0, 0, 1, 1], 0.0, None, "share must be .* > 0"),
        ([0, 0, 1, 1], 1.0, None, "share must be .* < 1"),
    ],
)
def test_impossible_splits_are_explained(target, share, group, message):
    with pytest.raises(ValueError, match=message):
        holdout(target, share, 0, group)
