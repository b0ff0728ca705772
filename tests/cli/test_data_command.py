from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Run, write
from counterpoise.data import write_digits

READERS = [
    "--data.modalities.audio", "audio", "--data.modalities.audio.sample_rate", "8000",
    "--data.modalities.audio.seconds", "0.5", "--data.modalities.image", "image", "--data.modalities.image.size", "8",
]  # fmt: skip


@pytest.fixture
def digits(run: Run) -> Path:
    return write_digits("files", size=100)


def test_a_sound_table(run: Run, digits: Path) -> None:
    done = run("data", "check", digits, *READERS)
    assert done.code == 0, done.err
    assert done.out.startswith("files/digits.csv: 100 rows, 200 files read\n  train: ")
    assert done.out.endswith("0 errors\n0 warnings\n")
    assert run("data", "check", digits, *READERS, "--strict").code == 0
    found = json.loads(run("data", "check", digits, *READERS, "--json").out)
    assert (found["ok"], found["errors"], found["summary"]["rows"]) == (True, [], 100)


def test_every_kind_of_problem(run: Run, digits: Path) -> None:
    lines = digits.read_text().splitlines()
    header, table = lines[0].split(","), [line.split(",") for line in lines[1:]]
    at = {name: header.index(name) for name in header}
    table[0][at["audio"]] = "audio/gone.wav"
    Path("files", table[1][at["audio"]]).write_bytes(b"RIFF")
    Path("files", table[2][at["image"]]).write_bytes(b"no image")
    table[3][at["label"]] = ""
    table[4][at["audio"]] = table[4][at["image"]] = ""
    table[5][at["id"]] = table[6][at["id"]]
    table[7][at["split"]] = "tarin"
    table[8][at["label"]] = "new"
    table[8][at["split"]] = "test"
    train, test = (next(r for r in table[20:] if r[at["split"]] == part) for part in ("train", "test"))
    Path("files", test[at["image"]]).write_bytes(Path("files", train[at["image"]]).read_bytes())
    write(digits, header, table)
    done = run("data", "check", digits, *READERS)
    assert done.code == 1
    for text in (
        "row 1 (id 'digit0000'): audio: files/audio/gone.wav: no such file",
        "row 2 (id 'digit0001'): audio: files/audio/0001.wav: ",
        "row 3 (id 'digit0002'): image: files/image/0002.png: ",
        "row 4 (id 'digit0003'): has no label",
        "row 5 (id 'digit0004'): lacks every modality",
        "has the id of row 6",
        "row 8 (id 'digit0007'): is in no part: Unknown split 'tarin'. Did you mean 'train'?",
        "class 'new' is in test but not in train",
        "the same content in ",
    ):
        assert text in done.out
    found = json.loads(run("data", "check", digits, *READERS, "--json").out)
    assert {problem["kind"] for problem in found["errors"]} == {"table", "file", "label", "present"}
    assert {problem["kind"] for problem in found["warnings"]} == {"leak"}


def test_strict_refuses_warnings(run: Run, tmp_path: Path) -> None:
    rows = [("ab"[i % 2], ("train", "val", "test")[i % 3], f"word{i // 2}") for i in range(30)]
    table = write(tmp_path / "t.csv", ("label", "split", "said"), rows)  # the same texts in several parts
    done = run("data", "check", table)
    assert (done.code, "0 errors" in done.out, "the same text in" in done.out) == (0, True, True)
    assert run("data", "check", table, "--strict").code == 1


def test_show(run: Run, digits: Path) -> None:
    done = run("data", "show", digits, *READERS)
    assert done.code == 0, done.err
    assert "files/digits.csv, row 1 (id 'digit0000')" in done.out
    assert "Image, 3 x 8 x 8 float32" in done.out
    found = json.loads(run("data", "show", digits, *READERS, "--json").out)
    assert found["modalities"]["image"]["shape"] == [3, 8, 8]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["chek", "t.csv"], 2, "Unknown data command 'chek'. Did you mean 'check'? Known: check, "),
        (["check"], 2, "Name a table: counterpoise data check TABLE."),
        (["check", "nowhere.csv"], 1, "There is no table nowhere.csv."),
        (["check", "digits"], 2, "data check reads tables of files; digits is none."),
        (["check", "t.csv", "--strct"], 2, "Unknown option '--strct'. Did you mean '--strict'?"),
        (["check", "t.csv", "--data.modalities.said", "txt"], 2, "--data.modalities.said: Unknown reader 'txt'. Did"),
        (["show", "t.csv", "--data.modalities.sad", "text"], 2, "t.csv: Unknown column 'sad'. Did you mean 'said'?"),
    ],
)
def test_messages(arguments: list[str], code: int, message: str, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "t.csv", ("label", "said"), [("a", "x"), ("b", "y")])
    done = run("data", *arguments)
    assert done.code == code
    assert done.err.startswith(f"counterpoise: {message}")


def test_what_there_is_to_do_with_data(run: Run) -> None:
    for arguments in ([], ["--help"]):
        done = run("data", *arguments)
        assert done.code == 0
        assert all(f"\n  {action} " in done.out for action in ("check", "show", "list", "prepare", "verify"))
    assert run("data", "check", "--help").out.startswith("usage: counterpoise data check TABLE")
