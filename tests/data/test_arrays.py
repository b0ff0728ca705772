"""Features in memory become splits, and every bad input is named."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from counterpoise._digests import digest
from counterpoise.data import Split, from_arrays

N = 90


def _inputs(n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"a": rng.normal(size=(n, 5)), "b": rng.normal(size=(n, 2, 3)), "c": rng.integers(0, 9, (n, 4))}


def _y(n: int = N) -> np.ndarray:
    return np.arange(n) % 3


def _rows(split: Split) -> set[int]:
    return {int(i) for i in split.ids}


def test_parts_are_disjoint_complete_and_stratified():
    data = from_arrays(_inputs(), _y(), val=0.2, test=0.2)
    assert data.test is not None
    parts = [data.train, data.val, data.test]
    assert [len(p) for p in parts] == [54, 18, 18]
    assert set.union(*map(_rows, parts)) == set(range(N))
    for part in parts:
        assert torch.bincount(part.target).tolist() == [len(part) // 3] * 3
        assert part.present is None
    assert data.modalities == ("a", "b", "c")
    assert data.classes == ("0", "1", "2")


def test_batch_gives_the_rows_of_the_samples():
    inputs = _inputs()
    data = from_arrays(inputs, _y())
    ids = [int(data.val.ids[i]) for i in (3, 0, 3)]
    for m, x in inputs.items():
        got = data.val.batch([3, 0, 3], m, seed=None)
        assert got.dtype == (torch.int64 if m == "c" else torch.float32)
        torch.testing.assert_close(got, torch.from_numpy(x[ids]).to(got.dtype))
    assert torch.equal(data.val.batch([1], "a", None), data.val.batch([1], "a", 5))


def test_no_test_part_when_the_share_is_zero():
    data = from_arrays(_inputs(), _y(), test=0)
    assert data.test is None
    assert len(data.train) + len(data.val) == N


def test_stated_split_is_used_and_val_is_split_off_train_only_when_missing():
    names = np.array(["train"] * 60 + ["val"] * 10 + ["test"] * 20)
    data = from_arrays(_inputs(), _y(), split=names)
    assert _rows(data.val) == set(range(60, 70))
    names[60:70] = "train"
    data = from_arrays(_inputs(), _y(), split=names, val=0.1)
    assert len(data.val) == 7
    assert _rows(data.val) <= set(range(70))
    assert data.test is not None
    assert _rows(data.test) == set(range(70, 90))


def test_groups_stay_whole():
    group = np.repeat([f"speaker{i}" for i in range(15)], 6)
    data = from_arrays(_inputs(), _y(), group=group)
    assert data.test is not None
    sides = [{group[i] for i in _rows(p)} for p in (data.train, data.val, data.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 15


def test_groups_stay_whole_when_only_val_is_split_off():
    group = np.repeat(np.arange(15), 6)
    data = from_arrays(_inputs(), _y(), split=["train"] * 72 + ["test"] * 18, group=group, val=0.25)
    assert len(data.val) == 18
    assert not {group[i] for i in _rows(data.train)} & {group[i] for i in _rows(data.val)}


def test_seed_decides_the_split_and_the_fingerprint_follows():
    one, two, other = (from_arrays(_inputs(), _y(), seed=s) for s in (0, 0, 1))
    assert one.train.ids == two.train.ids != other.train.ids
    assert one.train.fingerprint() == two.train.fingerprint() != other.train.fingerprint()
    assert one.train.fingerprint() != one.val.fingerprint()
    changed = _inputs()
    changed["a"][0, 0] += 1
    assert from_arrays(changed, _y()).train.fingerprint() != one.train.fingerprint()


@pytest.mark.slow  # fresh processes
def test_fingerprint_is_the_same_in_another_process():
    code = "import torch; from counterpoise._digests import digest; print(digest('x', torch.arange(5)))"
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert out.stdout.strip() == digest("x", torch.arange(5))


def test_absent_samples_are_zero_and_masked():
    inputs, mask = _inputs(), np.arange(N) % 4 != 0
    inputs["a"][~mask] = np.nan
    data = from_arrays(inputs, _y(), present={"a": mask, "b": np.ones(N, bool)})
    train = data.train
    assert train.present is not None
    assert set(train.present) == {"a"}
    assert torch.equal(train.present["a"], torch.from_numpy(mask[[int(i) for i in train.ids]]))
    got = train.batch(range(len(train)), "a", None)
    assert torch.equal((got == 0).all(1), ~train.present["a"])
    assert np.isnan(inputs["a"][0]).all(), "the caller's array is left alone"


def test_subset_keeps_order_and_normalises_the_mask():
    mask = np.arange(N) % 4 != 0
    train = from_arrays(_inputs(), _y(), present={"a": mask}).train
    has = torch.from_numpy(mask[[int(i) for i in train.ids]]).nonzero().flatten()
    part = train.subset(has.flip(0))
    assert part.present is None
    assert part.ids[0] == train.ids[int(has[-1])]
    again = part.subset([2, 2])
    assert again.ids == [part.ids[2]] * 2
    assert torch.equal(again.batch([0, 1], "b", None), part.batch([2, 2], "b", None))
    assert part.fingerprint() != train.subset(has).fingerprint()
    with pytest.raises(IndexError, match=r"0\.\.\d+; got 900"):
        train.subset([900])
    with pytest.raises(TypeError, match="nonzero"):
        train.subset(torch.ones(len(train), dtype=torch.bool))


def test_string_labels_are_in_natural_order_and_stated_classes_win():
    y = np.array(["take10", "take2", "take1"])[_y()]
    assert from_arrays(_inputs(), y).classes == ("take1", "take2", "take10")
    stated = from_arrays(_inputs(), y, classes=["take10", "none", "take1", "take2"])
    assert stated.classes[1] == "none"
    assert set(stated.train.target.tolist()) == {0, 2, 3}
    numbered = from_arrays(_inputs(), _y(), classes=["cat", "dog", "owl"])
    assert [numbered.classes[t] for t in numbered.train.target[:2]] == [
        ["cat", "dog", "owl"][int(i) % 3] for i in numbered.train.ids[:2]
    ]
    assert from_arrays(_inputs(), _y() * 10 - 10, task="single-label").classes == ("-10", "0", "10")


def test_torch_tensors_and_memory_maps(tmp_path):
    np.save(tmp_path / "x.npy", _inputs()["a"].astype(np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    data = from_arrays(
        {"m": mapped, "t": torch.ones(N, 2, dtype=torch.float64, requires_grad=True)}, torch.arange(N) % 3
    )
    row = int(data.train.ids[0])
    assert np.array_equal(data.train.batch([0], "m", None)[0].numpy(), mapped[row])
    got = data.train.batch([0], "t", None)
    assert got.dtype == torch.float32
    assert not got.requires_grad


def _with(**changes):
    inputs = _inputs()
    inputs.update(changes)
    return inputs


def _nan():
    x = _inputs()["a"]
    x[17, 2] = np.inf
    return x


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": {}}, "at least one modality"),
        ({"inputs": _with(a=_nan())}, r"inputs\['a'\] has NaN or infinity in sample 17"),
        ({"inputs": _with(b=np.zeros((89, 2)))}, r"inputs\['b'\] must have 90 rows.*\(89, 2\)"),
        ({"inputs": _with(b=np.zeros(90))}, r"x\[:, None\]"),
        ({"inputs": _with(b=np.full((90, 1), "word"))}, r"inputs\['b'\] must be numbers"),
        ({"y": np.zeros(N, int)}, "one class only"),
        ({"y": np.linspace(0, 1, N)}, "integers or strings; got float64"),
        ({"y": np.eye(3)[_y()]}, "one-dimensional"),
        ({"y": np.array([None, *_y()[1:]], dtype=object)}, "sample 0 has no label"),
        ({"y": np.array([1.5, *["x"] * 89], dtype=object)}, "all integers or all strings"),
        ({"classes": ["cat", "dog"]}, "label 2 .sample 2. is out of range for 2 classes"),
        ({"classes": ["0", "1"]}, "sample 2: Unknown class '2'"),
        ({"classes": ["x", "x"]}, "distinct"),
        ({"split": ["train"] * 89}, "one entry per sample"),
        ({"split": ["train"] * 89 + ["tset"]}, "sample 89: Unknown split 'tset'. Did you mean 'test'"),
        ({"split": ["test"] * 90}, "no sample is in 'train'"),
        ({"val": 0.0}, "val must be"),
        ({"val": 0.5, "test": 0.5}, "something to train on"),
        ({"group": ["x"] * 90}, "group has 1 distinct"),
        ({"group": ["x"] * 9}, "group must have one entry per sample"),
        ({"present": {"d": np.ones(N, bool)}}, "present: Unknown modality 'd'"),
        ({"present": {"a": np.ones(N)}}, r"present\['a'\] must be \(90,\) booleans"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(**{"inputs": _inputs(), "y": _y(), **arguments})


@pytest.mark.parametrize(
    ("inputs", "y", "message"),
    [
        ([np.ones((N, 2))], _y(), "inputs must map modalities to arrays.*got list"),
        (np.ones((N, 2)), _y(), "inputs must map modalities to arrays.*got ndarray"),
        ({"a": [[1.0], [1.0, 2.0]] * (N // 2)}, _y(), r"inputs\['a'\] must be an array, every sample of one shape"),
        (
            {"a": np.ones((N, 2)).astype(object)},
            _y(),
            r"inputs\['a'\] must be numbers; got dtype object. Pass x",
        ),
        ({"a": np.ones((N, 2))}, None, "y must be one label per sample; got None"),
    ],
)
def test_what_is_no_data_is_named(inputs, y, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(inputs, y)


def test_other_words_for_parts_are_taken_and_said():
    split = ["training"] * 60 + ["Dev"] * 15 + ["test"] * 15
    with pytest.warns(UserWarning, match="split: 'Dev' is read as 'val', 'training' is read as 'train'"):
        data = from_arrays(_inputs(), _y(), split=split)
    assert data.test is not None
    assert [len(p) for p in (data.train, data.val, data.test)] == [60, 15, 15]
    with pytest.raises(ValueError, match="split: 'dev' and 'valid' both mean 'val'"):
        from_arrays(_inputs(), _y(), split=["train"] * 60 + ["dev"] * 15 + ["valid"] * 15)


def test_labels_that_differ_by_case_are_classes_of_their_own():
    with pytest.warns(UserWarning, match="y: 'Happy' and 'happy' are classes of their own"):
        assert len(from_arrays(_inputs(), np.array(["Happy", "happy", "sad"])[_y()]).classes) == 3


def _nested() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.zeros(3) for _ in range(N)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: torch.zeros(N, 3, dtype=torch.complex64),
            r"real numbers; got torch.complex64. Pass torch.view_as",
        ),
        (lambda: torch.zeros(N, 3, dtype=torch.complex128).conj(), r"real numbers; got torch.complex128"),
        (lambda: torch.ones(N, 3).to_sparse(), r"got a sparse_coo one of torch.float32. Pass x.to_dense\(\)"),
        (lambda: torch.ones(N, 3).to_sparse_csr(), r"got a sparse_csr one of"),
        (lambda: torch.zeros(N, 3, device="meta"), "got a meta one of torch.float32. It holds no values"),
        (_nested, r"got a nested one of torch.float32. Pass x.to_padded_tensor\(0\)"),
        (
            lambda: np.ma.masked_greater(np.ones((N, 3)).cumsum(0), 4),
            "has masked values, the first in sample 4",
        ),
        (lambda: np.full((N, 3), 2**63, np.uint64), r"whole numbers above 2\^63 - 1. Pass x.astype\(float\)"),
        (lambda: torch.full((N, 3), 2**63, dtype=torch.uint64), r"whole numbers above 2\^63 - 1"),
        (lambda: np.zeros((N, 3), complex), "must be numbers; got dtype complex128"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_arrays_that_would_lose_something_are_refused(make, message):
    with pytest.raises(ValueError, match=rf"inputs\['a'\].*{message}"):
        from_arrays({"a": make()}, _y())


def test_a_mask_of_nothing_is_none():
    x = np.ones((N, 3), np.float32)
    got = from_arrays({"a": np.ma.masked_array(x, mask=np.zeros((N, 3), bool))}, np.ma.masked_array(_y())).train
    assert torch.equal(got.batch([0, 1], "a", None), torch.ones(2, 3))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.bool])
def test_whole_tensors_keep_their_values(dtype):
    x = (torch.arange(N * 2).reshape(N, 2) % 2).to(dtype)
    train = from_arrays({"a": x}, _y()).train
    assert train.batch([0], "a", None).tolist() == [x.tolist()[int(train.ids[0])]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ma.masked_equal(_y(), 2), "y has masked values, the first in sample 2"),
        (torch.tensor(_y()).to_sparse(), "y must be integers or strings; got a sparse_coo tensor"),
        (torch.tensor(_y()).bfloat16(), "y must be integers or strings; got a strided tensor of torch.bfloat16"),
        (torch.tensor(_y()).to(torch.complex64), "y must be integers or strings"),
    ],
)
def test_labels_that_would_lose_something_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(_inputs(), labels)


def test_masks_of_splits_and_groups_are_refused():
    masked = np.ma.masked_equal(_y(), 1)
    with pytest.raises(ValueError, match="group has masked values, the first in sample 1"):
        from_arrays(_inputs(), _y(), group=masked)
    with pytest.raises(ValueError, match="split has masked values, the first in sample 60"):
        from_arrays(_inputs(), _y(), split=np.ma.masked_equal(np.repeat(["train", "val", "test"], [60, 15, 15]), "val"))
