"""A DataFrame is a table: what its file would be, with the same messages."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from PIL import Image as Pillow

from counterpoise.data import Image, ReadError, Table, Tabular, Text, check

N = 40
READERS = {"image": Image(size=8), "text": Text(length=4), "person": Tabular(["age", "sex"])}


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of pictures, texts and two features, with every kind of blank cell; the test runs in its folder."""
    monkeypatch.chdir(tmp_path)
    rng, rows = np.random.default_rng(0), ["id,label,speaker,sample_weight,image,text,age,sex"]
    for i in range(N):
        Pillow.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / f"{i}.png")
        image, text, age = "" if i == 3 else f"{i}.png", "" if i == 5 else f"word{i} more", "" if i == 7 else i / 4
        rows.append(f"s{i},{i % 3},{i // 4},{1 + i % 2},{image},{text},{age},{'mf'[i % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return tmp_path / "t.csv"


FRAMES = {
    "pandas": pd.read_csv,
    "pandas of objects": lambda path: pd.read_csv(path, dtype={"text": object, "image": object}),
    "pandas of categories": lambda path: pd.read_csv(path).astype({"sex": "category", "text": "category"}),
    "pandas of arrow": lambda path: pd.read_csv(path, dtype_backend="pyarrow"),
    "pandas with an index": lambda path: pd.read_csv(path).set_index(np.arange(N) * 7 + 3),
    "polars": pl.read_csv,
    "arrow": lambda path: pa.Table.from_pandas(pd.read_csv(path)),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_is_the_table_of_its_file(csv: Path, frame: str):
    options: dict[str, Any] = {"group": "speaker", "test": 0.2}
    file = Table(csv, READERS, **options).splits()
    table = Table(FRAMES[frame](csv), READERS, **options)
    data = table.splits()
    for name in ("train", "val", "test"):
        one, other = getattr(data, name), getattr(file, name)
        assert list(one.ids) == list(other.ids)
        assert torch.equal(one.target, other.target)
        assert torch.equal(one.weight, other.weight)
        assert (one.present or {}).keys() == (other.present or {}).keys()
        rows = range(len(one))
        for m in READERS:
            for seed in (None, 4):
                assert torch.equal(one.batch(rows, m, seed), other.batch(rows, m, seed)), (m, seed)
    assert data.classes == file.classes == ("0", "1", "2")
    assert data.train.present is not None
    copy = pickle.loads(pickle.dumps(data.train))
    assert torch.equal(copy.batch([0], "image", 1), file.train.batch([0], "image", 1))


def test_readers_are_guessed_as_for_files(csv: Path):
    table, frame = Table(csv), Table(pd.read_csv(csv))
    assert {m: type(reader) for m, reader in frame.readers.items()} == {
        m: type(reader) for m, reader in table.readers.items()
    }
    said = frame.describe().splitlines()
    assert said[0] == f"the DataFrame: 40 rows, paths relative to {csv.parent.resolve()}"
    assert said[1:] == table.describe().splitlines()[1:]


def test_paths_are_relative_to_root(csv: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    frame = pd.read_csv(csv)
    readers = {"image": Image(size=8), "text": Text()}
    expected = Table(csv, readers).splits().train.batch([0, 1], "image", None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    table = Table(frame, readers, root=csv.parent)
    assert torch.equal(table.splits().train.batch([0, 1], "image", None), expected)
    with pytest.raises(ReadError, match=r"the DataFrame, row 1 \(id 's0'\), column 'image': 0.png: no such file"):
        Table(frame, readers).samples().batch([0], "image", None)
    report = check(Table(frame, readers))
    assert report.errors[0].row == 1
    assert str(report).startswith("the DataFrame: 40 rows")


def test_an_index_is_no_modality_but_may_be_the_ids(csv: Path):
    frame = pd.read_csv(csv)
    table = Table(frame.set_index("text"))
    assert "text" not in table.readers
    assert "'text' is not used: an index of pandas" in table.describe()
    named = Table(frame.set_index("id"))
    assert named.place(4) == "the DataFrame, row 5 (id 's4')"
    assert named.readers.keys() == Table(csv).readers.keys()
    frame.index = list("abcd" * 10)
    for other in (frame, pa.Table.from_pandas(frame)):
        assert "'__index_level_0__' is not used: an index of pandas" in Table(other).describe()


def _changed(**columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"label": np.arange(6) % 2, "text": [f"words {i}" for i in range(6)]})
    return frame.assign(**columns)


TWICE = pd.DataFrame(np.zeros((3, 3)), columns=["text", "label", "text"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (TWICE, "the DataFrame: column 'text' is there more than once"),
        (TWICE.set_axis(["text", "label", " text "], axis=1), "the DataFrame: column 'text' is there more than once"),
        (pa.table([[1], [2]], names=["a", "a"]), "the DataFrame: column 'a' is there more than once"),
        (pd.DataFrame(np.zeros((3, 2))), r"names of columns must be texts; got 0. Pass df.rename\(columns=str\)"),
        (_changed().iloc[:0], r"the DataFrame \(DataFrame\) has no rows"),
        (pl.DataFrame({"text": ["x"]}).lazy(), r"or a table of pyarrow; got LazyFrame. Pass df.collect\(\)"),
        ({"text": ["x"]}, "A table is the name of a file, a DataFrame .* got dict"),
        (pd.Series(["x"]), "A table is the name of a file, a DataFrame .* got Series"),
        (_changed(text=[1, "two", 3, 4, 5, 6]), r"the DataFrame \(DataFrame\) cannot be read as a table: .*text"),
        (_changed(text=[[1.0]] * 6), "no column that could be a modality; .*'text' is none: it holds list"),
        (_changed().drop(columns="label"), "the DataFrame: Unknown column 'label'. Known: text. Name the column of"),
        (_changed(label=0), "the DataFrame: column 'label' has one class only"),
        (_changed(label=["a", "b", "a", "b", None, "b"]), "the DataFrame, row 5 has no label"),
        (_changed(label=[1, 2, 3, 4, 5, 5]), "the DataFrame: column 'label' holds 5 different numbers, from 1 to 5"),
        (_changed(split="test"), "the DataFrame: column 'split' puts no row in 'train'"),
        (_changed(sample_weight=[1, 1, 1, 1, -1, 1]), "the DataFrame: column 'sample_weight' must be finite .* row 5"),
    ],
)
def test_bad_frames_are_named(frame: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Table(frame).splits()
