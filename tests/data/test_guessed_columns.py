"""Numbers and categories that nobody names become one modality; sizes of pictures are those of the files."""

from __future__ import annotations

import csv
import random

import numpy as np
import pytest
from PIL import Image as Pillow

from counterpoise.data import Table


def write(path, header, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rows(count=60):
    drawn = random.Random(1)
    return [
        [
            1000 + i, "ab"[i % 2], i // 4, f"a text of {i} words", drawn.randint(20, 80),
            drawn.choice(["Oslo", "Rome", "New York", ""]), round(drawn.random(), 3), 48000, 7 * i,
            f"{i % 28 + 1}/3/2020", "AB"[i % 2], drawn.choice(["good day", "bad day"]), drawn.randint(1, 3),
        ]
        for i in range(count)
    ]  # fmt: skip


HEADER = (
    "id", "label", "group", "said", "age", "site", "share", "rate", "number", "day", "mood", "phrase", "grade",
)  # fmt: skip


def test_numbers_and_categories_are_one_modality(tmp_path):
    table = Table(write(tmp_path / "t.csv", HEADER, rows()))
    assert {m: type(r).__name__ for m, r in table.readers.items()} == {
        "said": "Text",
        "phrase": "Text",
        "tabular": "Tabular",
    }
    assert table.readers["tabular"].numbers == ["age", "share", "grade"]
    assert table.readers["tabular"].categories == ["site"]
    assert table.ignored == {
        "rate": "every cell is '48000'",
        "number": "its whole numbers are all different, as ids are",
        "day": "its cells are numbers or dates, as '1/3/2020'",
        "mood": "each of its values goes with one label only, so it may have been made of that",
    }
    text = table.describe()
    assert "tabular: reader tabular (guessed)" in text
    assert "tabular: numbers age, share, grade; categories site" in text
    assert "tabular: grade: 3 whole numbers are taken as a number; categories can say otherwise" in text
    assert table.splits().train.layout("tabular").kind == "tabular"


def test_what_is_left_out_can_be_named(tmp_path):
    from counterpoise.data import Tabular

    table = Table(write(tmp_path / "t.csv", HEADER, rows()), {"x": Tabular(["number", "mood", "rate"])})
    assert table.splits().train.layout("x").options == {"numbers": 2, "levels": [2]}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["F", "M"], "category"),
        (["Oslo", "New York", "Rome"], "category"),
        (["good day", "bad day"], "text"),  # most are of several words
        (["a word or two", "yes"], "text"),
        ([f"name{i}" for i in range(40)], "text"),  # hardly one is there twice
        (["x" * 41, "y"], "text"),
        (["a1", "b2", "x"], "category"),
    ],
)
def test_what_counts_as_a_category(tmp_path, cells, kind):
    drawn = random.Random(0)
    path = write(tmp_path / "t.csv", ("label", "x"), [["ab"[i % 2], drawn.choice(cells)] for i in range(60)])
    assert list(Table(path).readers) == ["x" if kind == "text" else "tabular"]


def test_a_name_that_is_taken_is_not_taken_again(tmp_path):
    made = [["ab"[i % 2], f"a text of {i} words", i % 7 / 2] for i in range(30)]
    table = Table(write(tmp_path / "t.csv", ("label", "tabular", "n"), made))
    assert list(table.readers) == ["tabular", "numbers_and_categories"]


def _pictures(folder, sizes):
    for i, (width, height) in enumerate(sizes):
        pixels = np.random.default_rng(i).integers(0, 255, (height, width, 3), np.uint8)
        Pillow.fromarray(pixels).save(folder / f"{i}.png")
    return write(folder / "t.csv", ("label", "image"), [["ab"[i % 2], f"{i}.png"] for i in range(len(sizes))])


@pytest.mark.parametrize(
    ("sizes", "size"),
    [
        ([(8, 8)] * 12, 8),
        ([(28, 28)] * 12, 28),
        ([(60, 40)] * 6 + [(64, 36), (500, 400)] * 3, 48),  # sqrt(2400) = 49
        ([(300, 400)] * 12, 224),
    ],
)
def test_the_size_of_pictures_is_that_of_the_files(tmp_path, sizes, size):
    table = Table(_pictures(tmp_path, sizes))
    assert table.readers["image"].size == size
    said = f"image: size {size}, as its pictures have; --data.modalities.image.size says otherwise"
    assert (said in table.describe()) == (size < 224)


def test_damaged_pictures_say_nothing_of_the_size(tmp_path):
    path = _pictures(tmp_path, [(16, 16)] * 6)
    (tmp_path / "0.png").write_bytes(b"no picture")
    assert Table(path).readers["image"].size == 16
    for i in range(6):
        (tmp_path / f"{i}.png").unlink()
    assert Table(path).readers["image"].size == 224


def test_options_of_a_reader_that_is_guessed(tmp_path):
    path = _pictures(tmp_path, [(16, 16)] * 6)
    reader = Table(path, {"image": {"channels": 1}}).readers["image"]
    assert (type(reader).__name__, reader.channels, reader.size) == ("Image", 1, 16)
    assert Table(path, {"image": {"size": 8}}).readers["image"].size == 8
    with pytest.raises(ValueError, match=r"modalities\['image'\]: its cells are read by Image, .*'sise'"):
        Table(path, {"image": {"sise": 8}})
