"""Columns of a table as one modality: against scikit-learn, fitted to training rows alone, and every flaw named."""

from __future__ import annotations

import csv
import pickle
import random

import numpy as np
import pytest
import torch

from counterpoise.data import Table, Tabular, check, show
from counterpoise.data.readers import ReadError

HEADER = ("id", "label", "split", "said", "age", "weight", "sex", "site")
COLUMNS = ["age", "weight", "sex", "site"]


def write(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def people(count=60):
    """Rows as ``HEADER`` says; two thirds train. Some ages and sexes are missing, row 10 has no column at all."""
    drawn = random.Random(0)
    rows = []
    for i in range(count):
        part = ("train", "train", "train", "train", "val", "test")[i % 6]
        age = drawn.randint(20, 80) if i % 7 else ""
        cells = [
            age,
            round(drawn.gauss(70, 9), 1),
            drawn.choice("FM") if i % 9 else "",
            drawn.choice(["Oslo", "New York"]),
        ]
        rows.append([f"s{i}", "ab"[i % 2], part, f"some text {i}", *(cells if i != 10 else [""] * 4)])
    return rows


@pytest.fixture
def table(tmp_path):
    return Table(write(tmp_path / "people.csv", people()), {"said": "text", "patient": Tabular(COLUMNS)})


def test_columns_are_what_scikit_learn_makes_of_them(table):
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    data = table.splits()
    cells = [row[4:] for row in people()]
    whole = np.array([[float(c) if c != "" else np.nan for c in row[:2]] + row[2:] for row in cells], dtype=object)
    train = np.array([row[2] == "train" and row[0] != "s10" for row in people()])
    reference = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
            ("missing", MissingIndicator(), [0, 1]),
            ("levels", OneHotEncoder(sparse_output=False), [2, 3]),
        ]
    ).fit(whole[train])
    test = np.array([row[2] == "test" for row in people()])
    expected = torch.from_numpy(reference.transform(whole[test]).astype(np.float32))
    assert torch.equal(data.test.batch(range(10), "patient", None), expected)
    assert data.train.layout("patient") == ("tabular", (2 + 1 + 3 + 2,), {"numbers": 3, "levels": [3, 2]})


def test_a_missing_number_is_no_absent_modality_and_an_empty_row_is(table):
    data = table.splits()
    assert data.train.present is None
    assert data.val.present["patient"].tolist() == [i != 10 for i in range(4, 60, 6)]
    assert not data.val.batch([1], "patient", None).any()
    assert data.val.batch([0], "patient", None).any()


def test_other_rows_change_nothing_of_what_is_learned(tmp_path, table):
    rows = [row if row[2] == "train" else [*row[:4], 900, 900, "X", "Rome"] for row in people()]
    other = Table(write(tmp_path / "other.csv", rows), {"patient": Tabular(COLUMNS)}).splits()
    assert other.train.readers["patient"].fitted == table.splits().train.readers["patient"].fitted


def test_each_fold_learns_its_own(table):
    whole = table.samples()
    first, second = whole.fitted(range(30)), whole.fitted(range(30, 60))
    ages = [float(row[4]) for row in people()[30:] if row[4] != ""]
    learned = second.readers["patient"].fitted["age"]
    assert learned["fill"] == np.median(ages)
    assert first.readers["patient"].fitted != second.readers["patient"].fitted
    assert second.subset([3]).readers["patient"].fitted["age"] == learned
    assert first.fingerprint() != second.fingerprint()
    assert len(first) == 60


def test_readers_of_training_read_another_table(tmp_path, table):
    data = table.splits()
    path = write(tmp_path / "new.csv", [[*row[4:]] for row in people()[:6]], COLUMNS)
    new = Table(path, {"patient": data.train.readers["patient"]}).samples()
    assert torch.equal(new.batch(range(4), "patient", None), data.train.batch(range(4), "patient", None))
    unfitted = Table(path, {"patient": Tabular(COLUMNS)}).samples()
    with pytest.raises(
        ReadError, match=r"was not fitted to training rows; splits are \(table.splits\(\).train.readers"
    ):
        unfitted.batch([0], "patient", None)


def test_what_was_learned_elsewhere_is_not_trained_on_silently(tmp_path, table):
    path = write(tmp_path / "full.csv", [row for row in people() if row[0] != "s10"])
    reader = table.splits().train.readers["patient"]
    again = Table(path, {"patient": reader})
    assert again.splits().train.readers["patient"].fitted == reader.fitted
    rows = [[row[0], row[1], "train" if row[2] == "test" else row[2], *row[3:]] for row in people()]
    rows.pop(10)
    with pytest.raises(ValueError, match="'patient' has learned is not what it learns from the training rows"):
        Table(write(tmp_path / "other.csv", rows), {"patient": reader}).splits()


def test_rare_and_unseen_categories_share_a_level(tmp_path):
    towns = ["Oslo"] * 5 + ["Rome"] * 4 + ["Bonn"] + ["Paris", "Bonn", ""]
    rows = [[i, "ab"[i % 2], "train" if i < 10 else "val", town, i] for i, town in enumerate(towns)]
    path = write(tmp_path / "t.csv", rows, ("id", "label", "split", "town", "n"))
    table = Table(path, {"x": Tabular(numbers=["n"], categories=["town"])})
    val = table.splits().val.batch(range(3), "x", None)[:, 1:]
    assert val.tolist() == [[0, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert "x: town has categories that training has not in 1 rows, as 'Paris'" in table.describe()
    plain = [row for row in rows if row[3] != "Bonn"]
    table = Table(
        write(tmp_path / "u.csv", plain, ("id", "label", "split", "town", "n")), {"x": Tabular(["town", "n"])}
    )
    assert table.splits().val.batch([0], "x", None)[0, 1:].tolist() == [0, 0]


def test_kinds_are_guessed_and_said(tmp_path):
    rows = [[i, "ab"[i % 2], i % 3, f"0{i % 4}", 1.5 * i, "NY"[i % 2], i if i % 5 else "n/a"] for i in range(40)]
    header = ("id", "label", "grade", "code", "mass", "flag", "age")
    table = Table(write(tmp_path / "t.csv", rows, header), {"x": Tabular(list(header[2:]))})
    reader = table.readers["x"]
    assert (reader.numbers, reader.categories) == (["grade", "mass", "age"], ["code", "flag"])
    text = str(check(table))
    for line in (
        "x: grade: 3 whole numbers are taken as a number; categories can say otherwise",
        "x: code is taken as categories, since '00' is written as names are",
        "x: numbers grade, mass, age; categories code, flag",
        "x: age: 'n/a' in 8 rows is a missing number",
    ):
        assert line in text
    assert table.splits().train.readers["x"].fitted["age"]["missing"]
    stated = Table(tmp_path / "t.csv", {"x": Tabular(["grade", "mass"], categories=["grade"])})
    assert stated.readers["x"].categories == ["grade"]
    assert "whole numbers" not in stated.describe()


def test_a_constant_column_is_said(tmp_path):
    rows = [[i, "ab"[i % 2], "train" if i < 10 else "val", 7 if i < 10 else 9, i, ""] for i in range(16)]
    path = write(tmp_path / "t.csv", rows, ("id", "label", "split", "same", "n", "no"))
    table = Table(path, {"x": Tabular(["same", "n"])})
    assert "x: same says nothing: it is '7' in every training row" in table.describe()
    assert table.splits().val.batch(range(6), "x", None).isfinite().all()
    with pytest.raises(ValueError, match="column 'no' has no value in any row; leave it out"):
        Table(path, {"x": Tabular(["n", "no"])})


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("old", "age must be a number or empty; found 'old'"),
        ("inf", "age must be a finite number or empty; found 'inf'"),
    ],
)
def test_what_is_no_number_names_its_row(tmp_path, cell, reason):
    rows = people()
    rows[18][4] = cell
    table = Table(write(tmp_path / "t.csv", rows), {"said": "text", "patient": Tabular(COLUMNS)})
    with pytest.raises(ReadError, match=rf"row 19 \(id 's18'\), column 'patient': {reason}"):
        table.splits()
    (error,) = check(table).errors
    assert (error.row, error.message) == (19, reason)


@pytest.mark.parametrize(
    ("reader", "message"),
    [
        (lambda: Tabular(["age", "wieght"]), r"Unknown column 'wieght'\. Did you mean 'weight'"),
        (lambda: Tabular(["age", "label"]), "column 'label' is that of the labels, and no feature"),
        (lambda: Tabular(["id", "age"]), "column 'id' is that of the ids, and no feature"),
        (lambda: Tabular([]), "Unknown column 'patient'"),
        (lambda: Tabular("age"), "columns must be a list of columns, as .* got 'age'"),
        (lambda: Tabular(["age"], categories=["sx"]), "numbers and categories: Unknown column 'sx'"),
        (lambda: Tabular(["age", "age"]), "'age' is there twice"),
        (lambda: Tabular(numbers=["age"], categories=["age"]), "'age' is there twice"),
        (lambda: Tabular(["age"], fitted={"sex": {}}), r"fitted must say something of each of \['age'\]"),
    ],
)
def test_wrong_columns_are_named(tmp_path, reader, message):
    path = write(tmp_path / "t.csv", people())
    with pytest.raises(ValueError, match=message):
        Table(path, {"patient": reader()})


def test_none_of_several_labels_is_a_feature(tmp_path):
    rows = [[i, i % 2, i % 3 // 2, i] for i in range(20)]
    path = write(tmp_path / "t.csv", rows, ("id", "joy", "fear", "n"))
    for columns, what in ((["n", "fear"], "labels"), (["id"], "ids")):
        with pytest.raises(ValueError, match=f"is that of the {what}, and no feature"):
            Table(path, {"x": Tabular(columns)}, label=["joy", "fear"])
    assert Table(path, {"x": Tabular(["n", "fear"])}, label=()).readers["x"].columns == ["n", "fear"]


def test_dates_and_names_of_columns(tmp_path):
    rows = [[i, "ab"[i % 2], f"{i % 28 + 1}/3/2020", i] for i in range(40)]
    path = write(tmp_path / "t.csv", rows, ("id", "label", "day", "n"))
    with pytest.raises(
        ValueError, match="column 'day' holds dates, or numbers that are written otherwise, as '1/3/2020'"
    ):
        Table(path, {"x": Tabular(["day", "n"])})
    with pytest.raises(ValueError, match="modality 'n' of several columns needs a name that no column"):
        Table(path, {"n": Tabular(["n", "day"], categories=["day"])})
    assert Table(path, {"n": "tabular"}).splits().train.layout("n").shape == (1,)


def test_floats_and_nan_of_parquet(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    ages = [float("nan") if i % 5 == 0 else i / 2 for i in range(40)]
    data = {"label": list("ab") * 20, "age": ages, "smokes": [True, False] * 20, "said": ["words here"] * 40}
    parquet.write_table(pa.table(data), tmp_path / "t.parquet")
    table = Table(tmp_path / "t.parquet", {"x": Tabular(["age", "smokes"]), "said": "text"})
    learned = table.splits().train.readers["x"].fitted
    assert learned["age"]["missing"]
    assert learned["smokes"]["levels"] == ["false", "true"]


def test_rows_travel_to_other_processes(table):
    train = table.splits().train
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(copy.batch([0, 5], "patient", 3), train.batch([0, 5], "patient", None))


def test_a_sample_is_shown_as_people_read_it(table):
    text = show(table)["text"]
    assert "patient: age (empty), weight" in text
    assert "Tabular, 8 float32" in text


def test_equal_rows_in_two_parts_are_no_leak(tmp_path):
    rows = [
        [f"s{i}", "ab"[i // 2 % 2], ("train", "val")[i % 2], f"text {i}", 30 + i // 4, 60, "F", "Oslo"]
        for i in range(40)
    ]
    report = check(Table(write(tmp_path / "t.csv", rows), {"patient": Tabular(["age", "sex"])}))
    assert report.warnings == []
