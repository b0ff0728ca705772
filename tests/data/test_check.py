"""The checker finds every problem with its file and row before training starts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from counterpoise.data import Table, check, show

HEADER = "id,label,split,group,feature,words"


@pytest.fixture
def write(tmp_path):
    """write(change) makes a sound table of 12 rows, files included, with some cells changed: {(row, column): cell}."""
    rng = np.random.default_rng(0)
    for i in range(1, 13):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=3))

    def make(change=None, columns=HEADER):
        names = HEADER.split(",")
        rows = []
        for i in range(1, 13):
            part = "train" if i <= 6 else "val" if i <= 9 else "test"
            cells = [f"s{i}", "xyz"[i % 3], part, f"g{i}", f"{i}.npy", f"word{i} here"]
            for (row, column), value in (change or {}).items():
                if row == i:
                    cells[names.index(column)] = value
            rows.append(",".join(c for c, n in zip(cells, names, strict=True) if n in columns.split(",")))
        (tmp_path / "t.csv").write_text("\n".join([columns, *rows]) + "\n")
        return Table(tmp_path / "t.csv", {m: r for m, r in (("feature", "array"), ("words", "text")) if m in columns})

    return make


def test_a_sound_table_has_nothing(write):
    report = check(write(), progress=True)
    assert report.ok
    assert report.errors == report.warnings == []
    assert report.summary["rows"] == 12
    assert report.summary["files"] == 12
    assert report.summary["classes"]["train"] == {"x": 2, "y": 2, "z": 2}
    assert "train: 6 samples; x 2, y 2, z 2" in str(report)
    assert "0 errors" in str(report)


def test_every_bad_file_is_listed_with_its_row(write, tmp_path):
    table = write({(3, "words"): "!!"})
    (tmp_path / "2.npy").unlink()
    (tmp_path / "5.npy").write_bytes(b"\x93NUMPY")
    np.save(tmp_path / "7.npy", np.array([0, np.nan, 1]))
    np.save(tmp_path / "9.npy", np.ones(4))
    report = check(table)
    assert not report.ok
    found = {(p.row, p.modality): p for p in report.errors}
    assert set(found) == {(2, "feature"), (5, "feature"), (7, "feature"), (9, "feature"), (3, "words")}
    assert found[2, "feature"].id == "s2"
    assert found[2, "feature"].file == str(tmp_path / "2.npy")
    assert "no such file" in found[2, "feature"].message
    assert "NaN" in found[7, "feature"].message
    assert "shape (4,)" in found[9, "feature"].message
    assert "empty text" in found[3, "words"].message
    assert f"row 2 (id 's2'): feature: {tmp_path / '2.npy'}: no such file" in str(report)


def test_reading_can_be_left_out(write, tmp_path):
    table = write()
    (tmp_path / "2.npy").unlink()
    assert check(table, read=False).ok


def test_a_file_in_many_rows_is_read_once(write, tmp_path):
    table = write({(1, "feature"): "x.npy", (2, "feature"): "x.npy", (3, "feature"): "x.npy"})
    report = check(table)
    (problem,) = report.errors
    assert problem.row == 1
    assert "2 more rows" in problem.message


def test_all_flaws_of_the_table_are_listed(write):
    wrong = {(2, "id"): "s1", (3, "split"): "tran", (4, "label"): "", (5, "feature"): "", (5, "words"): ""}
    report = check(write(wrong), read=False)
    messages = {p.row: p.message for p in report.errors}
    assert "id of row 1" in messages[2]
    assert "Did you mean 'train'" in messages[3]
    assert "no label" in messages[4]
    assert "every modality" in messages[5]
    assert report.summary["absent"] == {
        "feature": {"train": 1, "val": 0, "test": 0},
        "words": {"train": 1, "val": 0, "test": 0},
    }


def test_classes_that_are_not_in_every_part(write):
    report = check(write({(7, "label"): "new", (10, "label"): "x"}), read=False)
    assert [p.message for p in report.errors] == ["class 'new' is in val but not in train"]
    assert {p.message for p in report.warnings} == {"class 'y' is not in val, test"}


def test_leaks_between_parts(write, tmp_path):
    np.save(tmp_path / "8.npy", np.load(tmp_path / "2.npy"))  # another name, the same content
    np.save(tmp_path / "4.npy", np.load(tmp_path / "3.npy"))  # both in train: no leak
    report = check(write({(11, "feature"): "1.npy", (12, "words"): "word6 here", (9, "group"): "g5"}))
    assert report.ok
    messages = {p.row: p.message for p in report.warnings}
    assert set(messages) == {1, 2, 5, 6}
    assert messages[1] == "the same content in train (row 1) and test (row 11)"
    assert messages[2] == f"the same content in train (row 2) and val (row 8, {tmp_path / '8.npy'})"
    assert messages[5] == "group 'g5' is in train (row 5) and val (row 9)"
    assert messages[6] == "the same text in train (row 6) and test (row 12)"


def test_a_table_without_labels_or_split(write):
    report = check(write(columns="id,feature,words"))
    assert [p.row for p in report.errors] == [None]
    assert "Unknown column 'label'" in report.errors[0].message
    assert check(write(columns="id,label,feature,words")).summary["classes"] == {"all": {"x": 4, "y": 4, "z": 4}}


def test_report_is_json_and_long_lists_are_cut_in_text_only(write, tmp_path):
    table = write({(i, "split"): "none" for i in range(1, 13)} | {(i, "id"): "" for i in range(1, 13)})
    report = check(table, read=False)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["ok"] is False
    assert len(data["errors"]) == 25
    assert "... and 5 more" in str(report)


def test_show_gives_one_sample_as_the_encoder_gets_it(write, tmp_path):
    np.save(tmp_path / "2.npy", np.array([1.0, 2.0, 6.0]))
    seen = show(write({(3, "words"): ""}), 1)
    assert seen["label"] == "z"
    assert seen["classes"] == ["x", "y", "z"]
    assert seen["modalities"]["feature"] == {
        "reader": "Array",
        "source": str(tmp_path / "2.npy"),
        "shape": [3],
        "dtype": "float32",
        "min": 1.0,
        "mean": 3.0,
        "max": 6.0,
    }
    assert "Array, 3 float32, min 1, mean 3, max 6" in seen["text"]
    json.dumps(seen)
    assert show(write({(3, "words"): ""}), 2)["modalities"]["words"] is None
    with pytest.raises(IndexError, match=r"0\.\.11; got 12"):
        show(write(), 12)
