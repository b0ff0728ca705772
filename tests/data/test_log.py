"""Sensor logs become windows: which rows, which labels, what is refused with its row, and what is said."""

from __future__ import annotations

import csv
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from counterpoise.data import from_log
from counterpoise.data.log import windows

CHANNELS = {"acc": ["ax", "ay"], "gyro": ["gz"]}
HEADER = ("id", "time", "ax", "ay", "gz", "label", "who", "part")


def recording(name, count, label="walk", who="p", part="train", start=0.0):
    """``count`` rows, 0.5 s apart; every number says where it stands."""
    return [[name, start + i / 2, i, i + 0.25, -i, label, who, part] for i in range(count)]


def write(path: Path, rows, header=HEADER) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def many(count=24):
    """Recordings of two classes, two of each of twelve subjects."""
    return [row for i in range(count) for row in recording(f"r{i}", 10, "ab"[i % 2], f"p{i // 2}")]


def test_windows_are_the_rows_that_they_say(tmp_path):
    rows = [*recording("one", 7), *recording("two", 5, "run", start=9)]
    found = windows(write(tmp_path / "log.csv", rows), CHANNELS, 4, 2)
    assert found.recording.tolist() == ["one", "one", "two"]
    assert found.start.tolist() == [0.0, 1.0, 9.0]
    assert found.label.tolist() == ["walk", "walk", "run"]
    assert found.inputs["acc"].tolist()[1] == [[2, 2.25], [3, 3.25], [4, 4.25], [5, 5.25]]
    assert found.inputs["gyro"].tolist()[2] == [[0], [-1], [-2], [-3]]
    assert found.notes == ["2 of 2 recordings end in rows that fill no window, 2 in all: one, two"]
    assert windows(tmp_path / "log.csv", CHANNELS, 4).start.tolist() == [0.0, 9.0]  # one after another


def test_rows_in_any_order_are_sorted_and_said(tmp_path):
    rows = [*recording("one", 8), *recording("two", 8)]
    expected = windows(write(tmp_path / "a.csv", rows), CHANNELS, 8)
    random.Random(0).shuffle(rows)
    found = windows(write(tmp_path / "b.csv", rows), CHANNELS, 8)
    order = np.argsort(found.recording)
    assert np.array_equal(found.inputs["acc"][order], expected.inputs["acc"])
    assert found.notes[0].startswith("2 of 2 recordings are not in the order of time and were sorted: ")


@pytest.mark.parametrize(("rule", "labels"), [("majority", ["a", "b"]), ("last", ["b", "a"])])
def test_the_label_of_a_window(tmp_path, rule, labels):
    rows = recording("one", 8)
    for row, label in zip(rows, "aaabbbba", strict=True):
        row[5] = label
    path = write(tmp_path / "log.csv", rows)
    assert windows(path, CHANNELS, 4, rule=rule).label.tolist() == labels


def test_of_equally_many_labels_the_earlier_counts(tmp_path):
    rows = [[*row[:5], label, *row[6:]] for row, label in zip(recording("one", 4), "baba", strict=True)]
    assert windows(write(tmp_path / "log.csv", rows), CHANNELS, 4).label.tolist() == ["b"]


def test_numbers_as_labels(tmp_path):
    rows = [[*row[:5], float(i), *row[6:]] for i, row in enumerate(many())]
    path = write(tmp_path / "log.csv", rows)
    data = from_log(path, CHANNELS, 10, rule="mean", task="regression")
    assert min(data.train.target.flatten().tolist()) % 10 == 4.5
    found = windows(path, CHANNELS, 10, rule="last").label
    assert found.dtype == np.float64
    assert found[0] == 9.0


def test_recordings_and_subjects_stay_whole(tmp_path):
    path = write(tmp_path / "log.csv", many())
    data = from_log(path, CHANNELS, 5)
    sides = [{name.split("@")[0] for name in part.ids} for part in (data.train, data.val, data.test)]
    assert sum(map(len, sides)) == 24
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    data = from_log(path, CHANNELS, 5, group="who")
    sides = [{int(name.split("@")[0][1:]) // 2 for name in part.ids} for part in (data.train, data.val, data.test)]
    assert sum(map(len, sides)) == 12
    assert data.train.layout("acc") == ("sequence", (5, 2), {})


def test_a_column_of_parts(tmp_path):
    parts = ("train", "train", "val", "test")
    rows = [row for i in range(8) for row in recording(f"r{i}", 4, "ab"[i // 4], part=parts[i % 4])]
    data = from_log(write(tmp_path / "log.csv", rows), CHANNELS, 4, split="part")
    assert data.val.ids == ["r2@0", "r6@0"]
    rows[1][7] = "test"
    with pytest.raises(
        ValueError, match=r"row 2: part must be one for all of a recording; 'r0' has 'test' here and 'tr"
    ):
        from_log(write(tmp_path / "log.csv", rows), CHANNELS, 4, split="part")


def test_a_folder_with_a_file_for_each_recording(tmp_path):
    (tmp_path / "logs").mkdir()
    for name in ("b", "a"):
        write(tmp_path / "logs" / f"{name}.csv", [row[1:] for row in recording(name, 4, name)], HEADER[1:])
    found = windows(tmp_path / "logs", CHANNELS, 4)
    assert (found.recording.tolist(), found.label.tolist()) == (["a", "b"], ["a", "b"])
    rows = [row[1:] for row in recording("c", 4, "c")]
    rows[2][1] = "x"
    write(tmp_path / "logs" / "c.csv", rows, HEADER[1:])
    with pytest.raises(ValueError, match=r"c\.csv, row 3: ax must be a number; found 'x'"):
        windows(tmp_path / "logs", CHANNELS, 4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no file that ends in \.csv"):
        windows(tmp_path / "empty", CHANNELS, 4)


def test_frames_and_mappings_in_memory(tmp_path):
    import pyarrow as pa

    rows = many()
    columns = {name: list(values) for name, values in zip(HEADER, zip(*rows, strict=True), strict=True)}
    expected = from_log(write(tmp_path / "log.csv", rows), CHANNELS, 5)
    for log in (columns, pa.table(columns)):
        found = from_log(log, CHANNELS, 5)
        assert found.train.ids == expected.train.ids
        assert (found.train.batch([3], "acc", None) == expected.train.batch([3], "acc", None)).all()
    with pytest.raises(ValueError, match="log: Unknown column 'az'"):
        from_log(columns, {"acc": ["az"]}, 5)
    with pytest.raises(ValueError, match="log must be a path, a frame or a mapping of columns; got int"):
        from_log(3, CHANNELS, 5)


def test_dates_are_times(tmp_path):
    rows = [
        [name, f"2024-05-01T10:00:{i:02d}", *row[2:]] for name in "ab" for i, row in enumerate(recording(name, 6, name))
    ]
    found = windows(write(tmp_path / "log.csv", rows), CHANNELS, 3)
    assert found.start.tolist() == [0, 3, 0, 3]
    rows[4][1] = "yesterday"
    with pytest.raises(
        ValueError, match=r"row 5: time must be a number, or a date as 2020-01-31T10:00:00; found 'yest"
    ):
        windows(write(tmp_path / "log.csv", rows), CHANNELS, 3)


def test_what_pandas_has_for_nothing_is_nothing():
    import pandas as pd

    log = pd.DataFrame({"id": ["one"] * 4, "time": range(4), "ax": pd.array([1, 2, None, None], dtype="Int64")})
    found = windows(log, {"acc": ["ax"]}, 2, label=None)
    assert found.present["acc"].tolist() == [True, False]
    log["id"] = pd.array(["one", "one", None, "one"], dtype="string")
    with pytest.raises(ValueError, match="row 3 has no id"):
        windows(log, {"acc": ["ax"]}, 2, label=None)


@pytest.mark.parametrize("kind", ["plain", "zone", "objects"])
def test_dates_of_a_frame_are_times(kind):
    import pandas as pd

    moments = pd.Series(pd.date_range("2024-03-31T00:59:58", periods=4, freq="s", tz="UTC"))
    as_given = {
        "plain": moments.dt.tz_localize(None),
        "zone": moments.dt.tz_convert("Europe/Paris"),  # whose clocks go on an hour within
        "objects": pd.Series(list(moments.dt.tz_localize(None).dt.to_pydatetime()), dtype=object),
    }
    log = pd.DataFrame({"id": ["one"] * 4, "time": as_given[kind], "ax": range(4)})
    assert windows(log, {"acc": ["ax"]}, 1, label=None).start.tolist() == [0, 1, 2, 3]
    log.loc[2, "time"] = pd.NaT
    with pytest.raises(ValueError, match=r"row 3 has no time \(1 rows in all\)"):
        windows(log, {"acc": ["ax"]}, 1, label=None)


def test_a_window_without_any_value_lacks_the_modality(tmp_path):
    rows = [*recording("one", 4), *recording("two", 4)]
    for row in rows[4:]:
        row[4] = ""
    found = windows(write(tmp_path / "log.csv", rows), CHANNELS, 4)
    assert found.present["gyro"].tolist() == [True, False]
    assert not found.inputs["gyro"][1].any()
    rows[1][3] = ""
    with pytest.raises(ValueError, match=r"row 2: ay is empty, and other values of acc in its window are not"):
        windows(write(tmp_path / "log.csv", rows), CHANNELS, 4)


def test_gaps_and_short_recordings_are_said(tmp_path):
    rows = [*many(), *recording("short", 3, "a"), *recording("jumps", 10, "a")]
    rows[-1][1] += 5
    path = write(tmp_path / "log.csv", rows)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from_log(path, CHANNELS, 5)
    assert [str(w.message) for w in caught] == [
        "1 of 26 recordings have gaps, or steps of time that differ; windows count rows: jumps (0.5 to 5.5)",
        "1 of 26 recordings are shorter than a window of 5 rows and are not used: short",
    ]
    with pytest.raises(ValueError, match="No recording has 11 rows, the length of a window; the longest has 10"):
        windows(path, CHANNELS, 11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((5, 1, 1.0), r"row 6: recording 'one' has this time already \(.*row 3\)\. Every row"),
        ((5, 1, ""), r"row 6 has no time \(1 rows in all\)"),
        ((5, 2, "inf"), "row 6: ax must be a finite number; found infinity"),
        ((5, 5, ""), "row 6 has no label"),
        ((5, 0, ""), "row 6 has no id"),
    ],
)
def test_what_is_wrong_names_its_row(tmp_path, change, message):
    row, column, value = change
    rows = recording("one", 8)
    rows[row][column] = value
    with pytest.raises(ValueError, match=message):
        windows(write(tmp_path / "log.csv", rows), CHANNELS, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "length must be a whole number >= 1"),
        ({"stride": 0}, "stride must be a whole number >= 1"),
        ({"rule": "first"}, "Unknown rule 'first'"),
        ({"channels": {}}, "channels must map modalities to columns"),
        (
            {"channels": {"acc": "ax"}},
            r"channels must map modalities to lists of columns, as {'acc': \['ax'\]}; got 'ax'",
        ),
        ({"channels": {"acc": ["axx"]}}, r"Unknown column 'axx'\. Did you mean 'ax'"),
        ({"time": "tiem"}, r"Unknown column 'tiem'\. Did you mean 'time'"),
        ({"label": "lable"}, r"Unknown column 'lable'\. Did you mean 'label'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, arguments, message):
    path = write(tmp_path / "log.csv", recording("one", 8))
    with pytest.raises(ValueError, match=message):
        windows(path, **{"channels": CHANNELS, "length": 4, **arguments})
