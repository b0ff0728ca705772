"""Data sets of Hugging Face by what they say of their columns, with a small stand-in for their package."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import counterpoise as cp
from counterpoise.data import Audio, Text, from_arrays, from_hf
from counterpoise.data import Image as ImageReader


class Image:
    """Features, by the names that they have there."""


class Sound:
    pass


Sound.__name__ = "Audio"


class ClassLabel:
    def __init__(self, names: list[str]):
        self.names = names


class Value:
    def __init__(self, dtype: str):
        self.dtype = dtype


class List:
    def __init__(self, feature: Any):
        self.feature = feature


class Rows:
    """Named columns; whole ones by name, samples by position."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]):
        self.columns_, self.features, self.reads = columns, features, 0

    def __len__(self) -> int:
        return len(next(iter(self.columns_.values())))

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns_[key]
        self.reads += 1
        return {name: cells[key] for name, cells in self.columns_.items()}

    def select_columns(self, names: list[str]) -> Rows:
        return Rows({n: self.columns_[n] for n in names}, {n: self.features[n] for n in names})


N = 30
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 10, 10, 3), np.uint8)
WAVES = RNG.uniform(-1, 1, (N, 800)).astype(np.float32)
FEATURES = {
    "idx": Value("int64"),
    "picture": Image(),
    "sound": Sound(),
    "words": Value("string"),
    "numbers": List(Value("float32")),
    "secret": List(Value("string")),
    "label": ClassLabel(["bad", "good"]),
}
READERS = {"picture": ImageReader(size=8), "sound": Audio(8000, 0.1, n_fft=64, hop=50), "words": Text(length=4)}


def stored(i: int) -> dict[str, Any]:
    file = io.BytesIO()
    Pillow.fromarray(PIXELS[i]).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def rows(which: range = range(N), undecoded: bool = False) -> Rows:
    columns: dict[str, list[Any]] = {
        "idx": [*which],
        "picture": [stored(i) if undecoded else Pillow.fromarray(PIXELS[i]) for i in which],
        "sound": [{"array": WAVES[i], "sampling_rate": 8000, "path": None} for i in which],
        "words": ["" if i == 4 else f"word{i}" for i in which],
        "numbers": [[i, i / 2] for i in which],
        "secret": [["x"] for _ in which],
        "label": [i % 2 for i in which],
    }
    return Rows(columns, FEATURES)


def expected() -> cp.Splits:
    inputs: dict[str, Any] = {
        "picture": PIXELS,
        "sound": [(wave, 8000) for wave in WAVES],
        "words": [None if i == 4 else f"word{i}" for i in range(N)],
        "numbers": np.array([[i, i / 2] for i in range(N)]),
    }
    return from_arrays(inputs, np.arange(N) % 2, readers=READERS, classes=["bad", "good"])


@pytest.mark.parametrize("undecoded", [False, True])
def test_features_say_how_columns_are_read(undecoded: bool):
    with pytest.warns(UserWarning, match="'idx' is not used: a lone number; 'secret' is not used: of List"):
        data = from_hf(rows(undecoded=undecoded), readers=READERS)
    other = expected()
    assert data.classes == ("bad", "good")
    assert data.modalities == ("picture", "sound", "words", "numbers")
    for part, one in ((data.train, other.train), (data.val, other.val)):
        assert list(part.ids) == list(one.ids)
        assert torch.equal(part.target, one.target)
        assert (part.present or {}).keys() == (one.present or {}).keys()
        for m in data.modalities:
            for seed in (None, 3):
                assert torch.equal(part.batch([0, 2], m, seed), one.batch([0, 2], m, seed)), (m, seed)


def test_what_is_guessed_is_said():
    message = r"'picture' is read by Image\(size=10\); 'sound' is read by Audio\(\); 'words' is read by Text\(\); 'idx'"
    with pytest.warns(UserWarning, match=message):
        data = from_hf(rows())
    assert data.train.layout("picture").shape == (3, 10, 10)
    named = from_hf(rows(), modalities=["idx", "words"], readers={"words": "text"})
    assert named.modalities == ("idx", "words")
    assert named.train.batch([0], "idx", None).tolist() == [[float(named.train.ids[0])]]


class Column:
    def __init__(self, null_count: int):
        self.null_count = null_count


class Data:
    def __init__(self, null_count: int):
        self.null_count = null_count

    def column(self, name: str) -> Column:
        return Column(self.null_count)


@pytest.mark.parametrize("nulls", [0, 1])
def test_samples_are_not_read_where_columns_say_what_is_there(nulls: int):
    dataset = rows()
    dataset.data = Data(nulls)  # pyright: ignore[reportAttributeAccessIssue]
    dataset.select_columns = lambda names: dataset
    dataset.columns_["picture"][7] = None if nulls else dataset.columns_["picture"][7]
    data = from_hf(dataset, modalities=["picture", "words"], readers={m: READERS[m] for m in ("picture", "words")})
    assert dataset.reads < 5 if nulls == 0 else dataset.reads >= N
    there = dict[str, bool]()
    for part in filter(None, (data.train, data.val, data.test)):
        mask = (part.present or {}).get("picture", torch.ones(len(part), dtype=torch.bool))
        there |= zip(part.ids, mask.tolist(), strict=True)
    assert [i for i, p in there.items() if not p] == (["7"] if nulls else [])


def test_a_dict_of_parts():
    parts = {"train": rows(range(20)), "validation": rows(range(20, 25)), "test": rows(range(25, 30))}
    data = from_hf(parts, modalities=["numbers"])
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [20, 5, 5]
    assert data.val.batch([0], "numbers", None).tolist() == [[20.0, 10.0]]
    assert data.test.target.tolist() == [1, 0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"a data set for each part.*got 'train', 'unsupervised'"):
        from_hf({"train": parts["train"], "unsupervised": parts["test"]}, modalities=["numbers"])


def test_what_is_absent_in_a_part_of_another_name_is_absent():
    columns = [["a", "b"], ["", "d"], ["e", "f"]]
    features = {name: FEATURES[name] for name in ("words", "numbers", "label")}
    parts = {
        name: Rows({"words": words, "numbers": [[1.0], [2.0]], "label": [0, 1]}, features)
        for name, words in zip(("train", "validation", "test"), columns, strict=True)
    }
    data = from_hf(parts, readers={"words": Text(length=2)})
    assert data.val.present is not None
    assert data.val.present["words"].tolist() == [False, True]


def test_labels_that_are_passed_have_names_of_their_own():
    labels = ["low", "high"] * (N // 2)
    data = from_hf(rows(), modalities=["numbers"], labels=labels)
    assert data.classes == ("high", "low")
    assert all(data.classes[y] == labels[int(i)] for i, y in zip(data.val.ids, data.val.target.tolist(), strict=True))


class Streamed:
    features = FEATURES


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ([{"x": 1}], {}, r"says its features; got list. Any other: from_dataset\(ds\)"),
        ({}, {}, "has no parts"),
        (Streamed(), {}, "a Streamed only gives them one after another. Load it without streaming=True"),
        (rows(), {"label": "lable"}, "Unknown column 'lable'. Did you mean 'label'.*label=..."),
        (rows(), {"modalities": ["word"]}, "modalities: Unknown column 'word'. Did you mean 'words'"),
        (
            rows().select_columns(["idx", "label"]),
            {},
            r"No column could be a modality: 'idx' is a lone number. Name them: modalities=\[...\]",
        ),
    ],
)
def test_bad_data_sets_are_named(dataset: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        from_hf(dataset, **options)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"label": None}, r"The part 'test' has no column 'label', which 'train' has \(it has 'words', 'numbers'\)"),
        ({"words": None}, "The part 'test' has no column 'words'.*leave the part out"),
        ({"label": Value("string")}, "column 'label' is text in the part 'test' and one of .* in 'train'"),
        ({"label": ClassLabel(["good", "bad"])}, "is one of .'good', 'bad'. in the part 'test' and one of .'bad'"),
        ({"numbers": Value("string")}, "'numbers' is text in the part 'test' and numbers in 'train'.*cast_column"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("named", [None, ["words", "numbers"]])
def test_parts_that_differ_are_named(other: dict[str, Any], message: str, named: list[str] | None):
    whole = rows().select_columns(["words", "numbers", "label"])
    features = {name: feature for name, feature in {**whole.features, **other}.items() if feature is not None}
    test = Rows({name: whole.columns_[name] for name in features}, features)
    with pytest.raises(ValueError, match=message):
        from_hf({"train": whole, "test": test}, modalities=named, readers={"words": Text(length=2)})
    with pytest.raises(ValueError, match="has no column" if None in other.values() else "is .* in the part"):
        from_hf({"test": test, "train": whole}, modalities=["words", "numbers"], readers={"words": Text(length=2)})


def test_an_empty_part_is_named():
    empty = Rows({"numbers": [], "label": []}, {name: FEATURES[name] for name in ("numbers", "label")})
    with pytest.raises(ValueError, match="The data set of the part 'test' has no samples; leave it out"):
        from_hf({"train": rows(), "test": empty}, modalities=["numbers"])


def test_a_class_label_of_none_is_no_label():
    dataset = Rows({"words": ["a", "b"], "label": [0, -1]}, FEATURES)
    with pytest.raises(ValueError, match=r"label: label -1 \(sample 1\) is out of range for 2 classes"):
        from_hf(dataset, modalities=["words"], readers={"words": Text()})
