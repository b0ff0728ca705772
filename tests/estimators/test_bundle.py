"""A bundle is several modalities that scikit-learn takes for one X."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import KFold, train_test_split
from sklearn.utils import _safe_indexing, resample

from counterpoise.estimators import Bundle

A = np.arange(12.0).reshape(6, 2)
WORDS = ["a", "b", None, "d", "e", "f"]


def test_rows_by_position_mask_slice_and_as_scikit_learn_asks_for_them() -> None:
    X = Bundle({"audio": A, "note": WORDS})
    for rows in ([3, 1], np.array([3, 1]), (np.array([3, 1]), ...)):
        assert X[rows]["audio"].tolist() == A[[3, 1]].tolist()
        assert X[rows]["note"].tolist() == ["d", "b"]
    assert len(X[np.array([True, False] * 3)]) == 3
    assert X[2:4]["note"].tolist() == [None, "d"]
    assert len(X[1]) == 1
    assert X.shape == (6, 2)
    assert _safe_indexing(X, [5, 0])["note"].tolist() == ["f", "a"]
    train, test = train_test_split(X, test_size=2, shuffle=False)
    assert (train["note"].tolist(), test["note"].tolist()) == (WORDS[:4], WORDS[4:])
    assert [len(X[held]) for _, held in KFold(3).split(X)] == [2, 2, 2]
    assert len(resample(X, n_samples=4, random_state=0)) == 4


def test_what_is_absent_is_none_masked_or_said() -> None:
    X = Bundle(
        {"note": WORDS, "vector": [A[0], None, *A[2:]], "masked": np.ma.masked_array(A, A < 2), "said": A},
        present={"said": np.arange(6) > 0},
    )
    assert {m: (~mask).nonzero()[0].tolist() for m, mask in X.present.items()} == {
        "note": [2],
        "vector": [1],
        "masked": [0],
        "said": [0],
    }
    assert X["vector"][1].tolist() == [0, 0]
    assert set(X[3:].present) == set()
    assert set(X[[2]].present) == {"note"}


def test_tensors_and_lists_of_numbers_are_arrays() -> None:
    X = Bundle({"t": torch.zeros(3, 2), "l": [[1, 2], [3, 4], [5, 6]], "n": [1.0, 2.0, float("nan")]})
    assert [X[m].dtype.kind for m in "tln"] == ["f", "i", "f"]
    assert X.present["n"].tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bundle({}), "takes modality -> samples, at least one"),
        (lambda: Bundle({"a": A, "b": A[:5]}), r"the same samples; their numbers are \{'a': 6, 'b': 5\}"),
        (lambda: Bundle({"a.b": A}), "cannot be called 'a.b'"),
        (lambda: Bundle({"a": "text"}), "'a' must be an array or a list with a value per sample; got 'text'"),
        (lambda: Bundle({"a": [np.zeros(2), np.zeros(3)]}), r"must be of one shape; found \(2,\) and \(3,\)"),
        (lambda: Bundle({"a": A}, present={"a": [1] * 6}), r"must be \(6,\) booleans; got int64 of shape \(6,\)"),
        (lambda: Bundle({"a": A}, present={"b": [True] * 6}), "present: Unknown modality 'b'"),
        (lambda: Bundle({"a": np.ma.masked_array(A, A == 3)}), "masked values in rows that hold others"),
    ],
)
def test_what_is_no_bundle(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_unknown_modality_is_answered_with_the_nearest() -> None:
    with pytest.raises(KeyError, match="Did you mean 'audio'"):
        Bundle({"audio": A})["audi"]
    with pytest.raises(IndexError, match="indexed by samples"):
        Bundle({"audio": A})[0, 1]
