"""Folds: every sample is tested once, groups stay whole, and each fold learns by itself."""

from __future__ import annotations

import csv
import warnings

import numpy as np
import pytest
import torch
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, StratifiedKFold

from counterpoise.data import Table, Tabular, from_arrays
from counterpoise.data.arrays import ArraySplit
from counterpoise.data.folds import divided, folds_of, is_column, parts_of
from counterpoise.data.source import Arrays
from counterpoise.task import MultiLabel, Regression, SingleLabel

Y = np.arange(60) % 3
GROUP = np.array([f"g{i}" for i in np.arange(60) // 6])


def assert_tested_once(pairs, count=60) -> None:
    assert np.sort(np.concatenate([test for _, test in pairs])).tolist() == list(range(count))
    for train, test in pairs:
        assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(count))


def test_equal_folds_have_the_classes_in_proportion() -> None:
    pairs = folds_of(5, Y)
    assert_tested_once(pairs)
    assert [np.bincount(Y[test]).tolist() for _, test in pairs] == [[4, 4, 4]] * 5
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(pairs, folds_of(5, Y, seed=1), strict=True))
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(pairs, folds_of("5", Y), strict=True))


def test_equal_folds_of_labels_and_quantiles() -> None:
    labels = np.stack([Y == 0, np.arange(60) % 4 == 0], 1)
    pairs = folds_of(3, labels)
    assert_tested_once(pairs)
    assert all(4 <= labels[test, 1].sum() <= 6 for _, test in pairs)


@pytest.mark.parametrize(
    ("folds", "count"), [(4, 4), ("group", 10), ("GroupKFold:5", 5), ("LeaveOneGroupOut", 10), (GroupKFold(3), 3)]
)
def test_groups_stay_whole(folds, count) -> None:
    pairs = folds_of(folds, Y, GROUP)
    assert len(pairs) == count
    assert_tested_once(pairs)
    for train, test in pairs:
        assert not set(GROUP[train]) & set(GROUP[test])
        parts = parts_of((train, test), SingleLabel(3), torch.from_numpy(Y), GROUP, 0.2, 0)
        assert not set(GROUP[parts["train"]]) & set(GROUP[parts["val"]])
        assert sorted([*parts["train"], *parts["val"]]) == sorted(train)


def test_splitters_of_scikit_learn_by_object_name_and_positions() -> None:
    by_name = folds_of("stratifiedkfold:4", Y, seed=7)
    by_object = folds_of(StratifiedKFold(4, shuffle=True, random_state=7), Y)
    by_positions = folds_of(StratifiedKFold(4, shuffle=True, random_state=7).split(Y, Y), Y)
    for other in (by_object, by_positions):
        assert all(np.array_equal(a[1], b[1]) for a, b in zip(by_name, other, strict=True))
    assert len(folds_of(LeaveOneGroupOut(), Y, GROUP)) == 10
    assert [is_column(text) for text in ("5", "group", "GroupKFold:5", "KFold", None, "actor")] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, Y), "folds must be a whole number >= 2; got 1"),
        ((11, Y, GROUP), "folds=11 needs as many groups; there are 10"),
        (("group", Y), "the data have no groups. Name their column"),
        (("group", Y, np.zeros(60)), "needs at least 2 groups; all 60 samples are of '0.0'"),
        (("GroupKFold:x", Y), "a whole number of folds follows the colon; got 'x'"),
        (("LeaveOneGroupOut:3", Y), "LeaveOneGroupOut takes no number of folds"),
        (("LeavePOut", Y), "LeavePOut needs options: .*'p'.*Pass it to cp.cross_validate"),
        (("GroupKFold:5", Y), "GroupKFold cannot divide these samples: The 'groups' parameter"),
        (("KFold:5", Y, GROUP), "KFold puts samples of the group 'g0' on both sides"),
        (([([0, 1], [1, 2])], Y), "none in both and neither empty"),
        (([([0, 1], [2]), ([-1, 0], [59])], Y), r"Fold 1: positions must be in 0\.\.59; got -1"),
        (([([0, 1], [60])], Y), r"Fold 0: positions must be in 0\.\.59; got 60"),
    ],
)
def test_what_divides_nothing(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        folds_of(*arguments)


def test_a_class_that_a_fold_cannot_learn_is_said_with_the_cure() -> None:
    y = torch.from_numpy(np.where(np.arange(60) < 6, 2, np.arange(60) % 2))
    first, second = folds_of("group", y.numpy(), GROUP)[:2]
    with pytest.raises(ValueError, match=r"No training sample of this fold has 'c': .*fewer folds, folds that keep"):
        parts_of(first, SingleLabel([*"abc"]), y, GROUP, 0.2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert "train" in parts_of(second, SingleLabel([*"ab", "c"]), y.clamp(max=1), GROUP, 0.2, 0)
    with pytest.warns(UserWarning, match="No test sample of this fold has 'a': its scores are of the others"):
        parts_of((np.arange(30), np.arange(31, 60, 2)), SingleLabel([*"ab"]), torch.arange(60) % 2, None, 0.2, 0)
    labels = torch.stack([y == 2, y != 2], 1).float()
    with pytest.raises(ValueError, match="No training sample of this fold has 'rare'"):
        parts_of(first, MultiLabel(["rare", "usual"]), labels, GROUP, 0.2, 0)


def test_numbers_are_standardised_by_the_training_part_of_each_fold() -> None:
    target = torch.arange(60.0, dtype=torch.float64)[:, None]
    whole = ArraySplit({"a": torch.zeros(60, 2)}, target, Regression(["y"]))
    for pair in folds_of(3, whole.task.strata(target)):
        parts = parts_of(pair, whole.task, target, None, 0.2, 0)
        data = divided(whole, parts)
        rows = target[parts["train"]]
        assert isinstance(data.task, Regression)
        assert data.task.center[0] == pytest.approx(float(rows.mean()))
        assert data.task.scale[0] == pytest.approx(float(rows.std(correction=0)))
        assert data.test is not None
        assert data.test.task == data.task
        assert data.test.target.flatten().tolist() == target[parts["test"]].flatten().tolist()
    assert isinstance(whole.task, Regression)
    assert whole.task.center == (0.0,)


def test_a_scale_that_was_stated_stays_in_every_fold(tmp_path) -> None:
    stated = Regression(["x"], [100.0], [7.0])
    samples = Table(table(tmp_path), {"label": Tabular(["label"])}, label="x", task=stated).samples()
    pair = folds_of(3, stated.strata(samples.target))[0]
    assert divided(samples, parts_of(pair, stated, samples.target, None, 0.2, 0)).task is stated


def table(folder, **columns):
    path = folder / "t.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = {"label": Y, "subject": GROUP, "x": np.arange(60.0), **columns}
        writer.writerow(names)
        writer.writerows(zip(*names.values(), strict=True))
    return path


def test_a_table_learns_what_it_learns_from_each_fold_alone(tmp_path) -> None:
    path, seen = table(tmp_path), []
    for fold in range(10):
        data = Table(path, {"x": Tabular(["x"])}, folds="subject", fold=fold)
        assert (data.group, data.held) == ("subject", f"g{fold}")
        parts = data.splits()
        assert parts.test is not None
        assert GROUP[data.rows()["test"]].tolist() == [f"g{fold}"] * 6
        numbers = parts.train.batch(range(len(parts.train)), "x", None)[:, 0]
        assert float(numbers.mean()) == pytest.approx(0, abs=1e-5)
        seen.append((parts.train.fingerprint(), parts.test.fingerprint()))
    assert len(set(seen)) == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": "subjekt"}, "folds: Unknown column or splitter 'subjekt'. Did you mean 'subject'"),
        ({"folds": "subject", "group": "x"}, "leave group='x' out"),
        ({"folds": 3, "fold": 3}, "fold must be in 0..2; got 3"),
    ],
)
def test_folds_that_a_table_has_not(tmp_path, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Table(table(tmp_path), {"x": Tabular(["x"])}, **options).splits()


def test_a_file_of_arrays_has_folds_too(tmp_path) -> None:
    np.savez(tmp_path / "f.npz", a=np.random.default_rng(0).normal(size=(60, 3)), y=Y, group=GROUP)
    sources = [Arrays(str(tmp_path / "f.npz"), folds="group", fold=fold) for fold in range(10)]
    assert {source.folds for source in sources} == {10}
    assert all(len(source.splits().test or ()) == 6 for source in sources)
    assert Arrays(str(tmp_path / "f.npz")).folds == 0
    plain = from_arrays({"a": np.zeros((60, 3))}, Y)
    assert len(plain.train) == 42
