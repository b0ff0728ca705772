"""What is guessed of a table is right, or is said."""

from __future__ import annotations

import numpy as np
import pytest

from counterpoise.data import Table
from counterpoise.data.check import check, show


def _written(path, header, rows):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_names_are_stripped_as_cells_are(tmp_path):
    rows = [f"word {i} , text {i}, {'ab'[i % 2]}" for i in range(20)]
    spaced = Table(_written(tmp_path / "spaced.csv", "  said,\tseen , label ", rows))
    plain = Table(_written(tmp_path / "plain.csv", "said,seen,label", rows))
    assert spaced.columns.names == ("said", "seen", "label")
    assert spaced.splits().train.fingerprint() == plain.splits().train.fingerprint()
    assert Table(tmp_path / "spaced.csv", {"seen": "text"}).readers.keys() == {"seen"}
    with pytest.raises(ValueError, match="column 'said' is there more than once"):
        Table(_written(tmp_path / "twice.csv", "said, said,label", rows))
    with pytest.raises(ValueError, match=r"more than once\. Commas at the end of the lines"):
        Table(_written(tmp_path / "ends.csv", "said,label,,", [f"{r},," for r in ("a b,x", "c d,y")]))
    with pytest.raises(ValueError, match='the name "label" has its quotation marks behind a space'):
        Table(_written(tmp_path / "quoted.csv", 'said, seen, "label"', rows))


def test_names_in_parquet_are_stripped_too(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({" said": ["a b"] * 4, "label ": [1, 2, 1, 2]}), tmp_path / "t.parquet")
    assert Table(tmp_path / "t.parquet", test=0).splits().modalities == ("said",)


@pytest.mark.parametrize("name", ["", " ", "Unnamed: 0", "Unnamed: 0.1", "index", "level_0", "__index_level_0__"])
def test_an_index_of_pandas_is_no_modality(tmp_path, name):
    rows = [f"sample{i},one or two words {i},{'ab'[i % 2]}" for i in range(20)]
    table = Table(_written(tmp_path / "t.csv", f"{name},said,label", rows))
    assert list(table.readers) == ["said"]
    assert f"{name.strip()!r} is not used: an index of pandas" in table.describe()


def test_an_index_that_parquet_names_is_no_modality(tmp_path):
    import json

    import pyarrow as pa
    from pyarrow import parquet

    data = pa.table({"said": ["one word", "two words"] * 5, "label": list("ab") * 5, "person": list("abcde") * 2})
    stated = {b"pandas": json.dumps({"index_columns": ["person", {"kind": "range"}]}).encode()}
    parquet.write_table(data.replace_schema_metadata(stated), tmp_path / "t.parquet")
    table = Table(tmp_path / "t.parquet")
    assert list(table.readers) == ["said"]
    assert table.ignored == {"person": "an index of pandas"}
    assert list(Table(tmp_path / "t.parquet", {"person": "text"}).readers) == ["person"]


def test_text_of_every_arrow_type(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    words = [f"word {i}" for i in range(4)] + [None, " "]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        for codes in (False, True):
            column = (
                pa.array(words, kind)
                if not codes
                else pa.array(words)
                .dictionary_encode()
                .cast(pa.dictionary(pa.int32(), pa.string() if kind == pa.string_view() else kind))
            )
            parquet.write_table(pa.table({"said": column, "label": list("abc") * 2}), tmp_path / "t.parquet")
            assert Table(tmp_path / "t.parquet").columns.cells("said") == [*words[:4], None, None]


def test_a_modality_that_starts_late_is_found(tmp_path):
    rows = [f"{f'a text {i}' if i > 2500 else ''},words {i},{'ab'[i % 2]}" for i in range(3000)]
    table = Table(_written(tmp_path / "t.csv", "late,said,label", rows))
    assert list(table.readers) == ["late", "said"]


def test_show_and_check_say_every_guess(tmp_path):
    rows = [
        f"{i}.3.2020,n/a,x/{i}.dat,say {i},{'A' if i % 3 else 'a'},{'train' if i < 12 else 'dev'}" for i in range(20)
    ]
    table = Table(_written(tmp_path / "t.csv", "day,remark,raw,said,label,split", rows))
    report = check(table)
    for text in (
        str(report),
        "\n".join(report.to_dict()["columns"]),
        show(table)["text"],
        "\n".join(show(table)["columns"]),
    ):
        for line in (
            "said: reader text (guessed)",
            "label: column 'label'",
            "'day' is not used: its cells are numbers or dates, as '0.3.2020'",
            "'remark' is not used: its cells are all empty or such as 'n/a'",
            "'raw' is not used: its cells look like files that no reader takes, or folders not there, as 'x/0.dat'",
            "split: 'dev' is read as 'val'",
            "label: 'A' and 'a' are classes of their own",
        ):
            assert line in text
    assert [w.message for w in report.warnings] == ["'A' and 'a' are classes of their own"]
    assert report.ok


def test_a_column_that_is_left_out_can_be_named(tmp_path):
    rows = [f"{i}/3,say {i},{'ab'[i % 2]}" for i in range(10)]
    table = Table(_written(tmp_path / "t.csv", "ratio,said,label", rows), {"ratio": "text"})
    assert "ratio: reader text (stated)" in table.describe()
    assert "'said' is not used: no reader stated" in table.describe()


def test_cells_such_as_n_a_are_said(tmp_path):
    rows = [f"{'n/a' if i % 4 == 0 else f'say {i}'},{('x', 'N/A', 'y')[i % 3]}" for i in range(12)]
    text = Table(_written(tmp_path / "t.csv", "said,label", rows)).describe()
    assert "said: 'n/a' in 3 rows is read as it stands; only empty cells are absent" in text
    assert "label: 'N/A' in 4 rows is read as it stands" in text


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("training", "validation", "testing"), ("train", "val", "test")),
        (("Train", "Dev", "TEST"), ("train", "val", "test")),
        (("train", "valid", "test"), ("train", "val", "test")),
        (("train", "development", "Testing"), ("train", "val", "test")),
    ],
)
def test_other_words_for_parts(tmp_path, names, parts):
    rows = [f"say {i},{'ab'[i // 3 % 2]},{names[i % 3]}" for i in range(30)]
    table = Table(_written(tmp_path / "t.csv", "said,label,split", rows))
    splits = table.splits()
    assert splits.test is not None
    assert [len(p) for p in (splits.train, splits.val, splits.test)] == [10] * 3
    assert table.samples("val").ids[0] == "2"
    assert check(table).summary["classes"].keys() == set(parts)
    for name, part in zip(names, parts, strict=True):
        assert (f"split: {name!r} is read as {part!r}" in table.describe()) == (name != part)


def test_two_words_for_one_part_are_refused(tmp_path):
    rows = [f"say {i},{'ab'[i % 2]},{('train', 'dev', 'val')[i % 3]}" for i in range(12)]
    table = Table(_written(tmp_path / "t.csv", "said,label,split", rows))
    with pytest.raises(ValueError, match="column 'split': 'dev' and 'val' both mean 'val'; use one name"):
        table.splits()
    assert not check(table).ok


def test_labels_alike(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    rows = [f"say {i},{(composed, decomposed, 'CAFE')[i % 3]}" for i in range(30)]
    table = Table(_written(tmp_path / "t.csv", "said,label", rows))
    assert len(table.splits().classes) == 3
    (warning,) = check(table).warnings
    assert warning.message == f"{decomposed!a} and {composed!a} are classes of their own"


@pytest.mark.parametrize(("absent", "where"), [(("train",), "val, test"), (("train", "val"), "test")])
def test_a_modality_that_no_training_row_has(tmp_path, absent, where):
    parts = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    rows = [f"{'' if part in absent else f'late {i}'},say {i},{'ab'[i % 2]},{part}" for i, part in enumerate(parts)]
    report = check(Table(_written(tmp_path / "t.csv", "late,said,label,split", rows)))
    assert [str(e) for e in report.errors] == [f"late: is in {where} but in no row of train"]


@pytest.mark.parametrize("split", [",split", ""])
def test_a_modality_that_no_row_has(tmp_path, split):
    rows = [f",say {i},{'ab'[i % 2]}{',train' if split else ''}" for i in range(12)]
    table = Table(_written(tmp_path / "t.csv", f"late,said,label{split}", rows), {"late": "text", "said": "text"})
    assert [str(e) for e in check(table).errors] == ["late: every cell is empty; leave the column out"]


def test_sequences_of_other_lengths_are_one_problem(tmp_path):
    for i, steps in enumerate([120, 107, 326, 120, 200, 108]):
        np.save(tmp_path / f"{i}.npy", np.ones((steps, 4)))
    np.save(tmp_path / "6.npy", np.ones((9, 5)))
    rows = [f"{i}.npy,{'ab'[i % 2]}" for i in range(7)]
    errors = check(Table(_written(tmp_path / "t.csv", "x,label", rows))).errors
    assert [e.row for e in errors] == [7, 2]
    assert errors[0].message.startswith("has shape (9, 5), ")
    assert errors[1].message == (
        "sequences have 107 to 326 steps, 4 of 7 another number than the first; "
        "set length, 326 to lose nothing (--data.modalities.x.length)"
    )
    from counterpoise.data.readers import Array

    assert len(check(Table(tmp_path / "t.csv", {"x": Array(length=326)})).errors) == 1


def test_devices_and_pipes_do_not_stop_the_check(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe.npy")
    np.save(tmp_path / "a.npy", np.ones(3))
    parts = ["train", "val", "test"] * 4
    cells = ["a.npy", "/dev/zero", "pipe.npy", "a.npy"] * 3
    rows = [f"{cell},{'ab'[i % 2]},{part}" for i, (cell, part) in enumerate(zip(cells, parts, strict=True))]
    report = check(Table(_written(tmp_path / "t.csv", "x,label,split", rows), {"x": "array"}))
    assert [e.row for e in report.errors] == [2, 3]
    assert all("is a device, a pipe or a socket, not a file" in e.message for e in report.errors)
