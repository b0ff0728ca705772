"""What every data set does the same way, on a small one made here."""

import json
import threading
import tracemalloc

import pytest

from counterpoise.cli import main
from counterpoise.data import ReadError, Text
from counterpoise.datasets import DATASETS, Check, Dataset, Excluded, Row, files, get, render
from counterpoise.datasets.text_image import lines


class Toy(Dataset):
    name, title, source, licence, citation = "toy", "Toy", "https://example.org/toy", "CC0", "nobody, 2020"
    modalities, classes = ("words",), ("a", "b")
    splits = {"plain": "as published", "other": "by hand"}  # noqa: RUF012
    shared_groups = {"plain": 0}  # noqa: RUF012

    def __init__(self, rows=None):
        self.listed = rows or [Row(f"s{i}", "ab"[i % 2], p) for i, p in enumerate(("train", "train", "val", "test"))]

    def scan(self, root):
        if not (root / "words.txt").is_file():
            raise self.lacking(root / "words.txt")
        return (root / "words.txt").read_text()

    def rows(self, raw, split):
        return self.listed

    def convert(self, raw, row, out):
        if row.id == "gone":
            raise Excluded("vanished: not there")
        if row.id == "bad":
            raise ReadError("x.txt", "is empty")
        if row.id == "full":
            raise OSError(28, "No space left on device")
        return {"words": f'{raw} {row.id}, with "quotes"\nand lines'}

    def published(self, split):
        return {"train+val": {"a": 2, "b": 1}, "test": {"a": 0, "b": 1}}

    def readers(self):
        return {"words": Text(length=8)}

    def encoders(self):
        return {"words": ("TextGRU", {"vocab_size": 20000, "dim": 8})}


@pytest.fixture
def raw(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "words.txt").write_text("hello")
    return tmp_path / "raw"


def test_all_right(raw, tmp_path):
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    assert made.counts == {"train": 2, "val": 1, "test": 1}
    assert made.excluded == {}
    assert all(check.ok for check in made.checks)
    assert "Left out: 0" in made.card.read_text()
    table = Toy().table(made.out)
    assert table.splits().classes == ("a", "b")
    assert table.source(0, "words") == 'hello s0, with "quotes"\nand lines'
    assert "off" not in str(made)


def test_what_is_left_out_is_listed_and_counted(raw, tmp_path):
    rows = [
        Row("s0", "a", "train"), Row("s0", "b", "test"), Row("s1", "c", "train"), Row("gone", "a", "val"),
        Row("bad", "b", "test"), Row("s2", "b", "train"),
    ]  # fmt: skip
    made = Toy(rows).prepare(raw, tmp_path / "out", progress=False)
    assert made.excluded == {"id listed twice": 1, "unknown label": 1, "vanished": 1, "damaged": 1}
    assert [(r["id"], r["split"], r["reason"]) for r in files.read_table(made.out / "excluded.csv")] == [
        ("s0", "test", "id listed twice: first as sample 1 of the list"),
        ("s1", "train", "unknown label: 'c' is none of a, b"),
        ("gone", "val", "vanished: not there"),
        ("bad", "test", "damaged: x.txt: is empty"),
    ]
    assert [r["id"] for r in files.read_table(made.manifest)] == ["s0", "s2"]
    assert "left out: 1 x vanished" in str(made)


def test_a_full_disk_is_an_error_and_not_a_reason(raw, tmp_path):
    with pytest.raises(OSError, match="No space"):
        Toy([Row("s0", "a", "train"), Row("full", "b", "train")]).prepare(raw, tmp_path / "out", progress=False)
    assert not (tmp_path / "out" / "manifest.csv").exists()


def test_samples_and_groups_in_two_parts(raw, tmp_path):
    rows = [Row("x", "a", "train", group="g"), Row("y", "b", "val", group="g"), Row("z", "b", "test", group="g")]
    found = {c.item: c for c in Toy(rows).prepare(raw, tmp_path / "out", progress=False).checks}
    assert not found["groups both in test and outside"].ok
    assert found["groups both in test and outside"].found == "1"
    assert found["ids in two parts"].ok


def test_errors(raw, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"toy: there is no folder .*nowhere\.\nGet it from https://example.org/toy"
    ):
        Toy().prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="Did you mean 'plain'"):
        Toy().prepare(raw, tmp_path / "out", split="plane")
    with pytest.raises(ValueError, match="out must not be inside"):
        Toy().prepare(raw, raw / "out")
    with pytest.raises(ValueError, match="workers must be"):
        Toy().prepare(raw, tmp_path / "out", workers=-1)
    with pytest.raises(FileNotFoundError, match="holds no prepared data set"):
        Toy().verify(tmp_path)
    with pytest.raises(FileNotFoundError, match="usable sample of the 1 listed"):
        Toy([Row("gone", "a", "train")]).prepare(raw, tmp_path / "out", progress=False)
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="holds toy, not cremad"):
        get("cremad").verify(made.out)
    (raw / "words.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"words\.txt"):
        Toy().prepare(raw, tmp_path / "out", progress=False)


def test_a_changed_file_is_noticed_later(raw, tmp_path):
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    rows = files.read_table(made.manifest)
    files.write_table(made.manifest, list(rows[0]), [list(row.values()) for row in rows[1:]])
    off = [c.item for c in Toy().verify(made.out) if not c.ok]
    assert off == ["train+val: samples in the list", "train+val: samples prepared", "train+val: a"]


def test_samples_are_converted_side_by_side(raw, tmp_path):
    meeting = threading.Barrier(2, timeout=20)

    class Slow(Toy):
        def convert(self, raw, row, out):
            if row.id in ("s0", "s1"):
                meeting.wait()
            return super().convert(raw, row, out)

    assert sum(Slow().prepare(raw, tmp_path / "out", workers=2, progress=True).counts.values()) == 4


def test_walk_survives_loops(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    found = [folder / name for folder, _, names in files.walk(tmp_path) for name in names]
    assert found == [tmp_path / "a" / "b" / "file"]


def test_checksums_ignore_line_endings_and_marks():
    assert files.sha256(b"\xef\xbb\xbfa\r\nb\r\n") == files.sha256(b"a\nb\n") != files.sha256(b"a\nc\n")


def test_render():
    lines = render([Check.same("n", 1, 1), Check.same("long item", 10, 9)]).splitlines()
    assert lines[2] == "| n         | 1        | 1     |     |"
    assert lines[3] == "| long item | 10       | 9     | OFF |"
    assert lines[-1] == "2 checks, 1 off"


def test_registry(capsys):
    assert get("CREMA-D").name == get("crema_d").name == "cremad"
    with pytest.raises(ValueError, match="Did you mean 'kinetics_sounds'"):
        get("kinetics_sound")
    for name in DATASETS:
        dataset = get(name)
        assert set(dataset.readers()) == set(dataset.encoders()) == set(dataset.modalities)
        assert dataset.default_split in dataset.splits
        from counterpoise.encoders import ENCODERS

        assert all(encoder in ENCODERS for encoder, _ in dataset.encoders().values())
    with pytest.raises(SystemExit) as stop:
        main(["data", "list"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown and get(name).source in shown for name in DATASETS)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["prepare", "kremad", "--root", ".", "--out", "x"], "Did you mean 'cremad'", 2),
        (["prepare", "cremad", "--root", "."], "--out", 2),
        (["prepare", "cremad", "--root", "nowhere", "--out", "x"], "there is no folder nowhere", 1),
        (["prepare", "cremad", "--root", ".", "--out", "x", "--splt", "ogm"], "--split", 2),
        (["verify", "cremad", "--out", "nowhere"], "holds no prepared data set", 1),
        (["verfy", "cremad"], "Did you mean 'verify'", 2),
    ],
)
def test_command_line_errors(arguments, message, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["data", *arguments])
    assert stop.value.code == code
    assert message in capsys.readouterr().err


def test_verify_prints_json(raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", Toy)
    for arguments in (["prepare", "toy", "--root", str(raw), "--quiet"], ["verify", "toy", "--json"]):
        with pytest.raises(SystemExit) as stop:
            main(["data", *arguments, "--out", str(tmp_path / "out")])
        assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "2 train, 1 val, 1 test" in shown
    assert all(check["ok"] for check in json.loads(shown[shown.index("[\n") :]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(b"hello s1", b"caf\xe9 s1"), r"manifest.csv, after line \d+: not UTF-8"),
        (lambda text: text.replace(b"split", b"part", 1), "manifest.csv: there is no column 'split'"),
        (lambda text: text + b"s9,a\n", r"manifest.csv, line \d+: not as many cells as columns"),
        (lambda text: text + b"s9,a,train," + 200_000 * b"x", r"manifest.csv, line \d+: field larger than"),
    ],
)
def test_a_manifest_that_another_program_changed_is_named(raw, tmp_path, change, message):
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    made.manifest.write_bytes(change(made.manifest.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        Toy().verify(made.out)
    assert "data prepare" in str(error.value)


def test_a_damaged_state_is_named(raw, tmp_path):
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    (made.out / "prepared.json").write_text("{")
    with pytest.raises(ValueError, match=r"prepared.json is damaged .*data prepare"):
        Toy().verify(made.out)


def test_verify_keeps_no_texts(raw, tmp_path):
    made = Toy().prepare(raw, tmp_path / "out", progress=False)
    with made.manifest.open("a") as file:
        for i in range(300):
            file.write(f"more{i},a,train,{'x' * 100_000}\n")  # 30 MB
    tracemalloc.start()
    Toy().verify(made.out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_lists_are_read_line_by_line(tmp_path):
    path = tmp_path / "train.txt"
    with path.open("wb") as file:
        file.write(b"\xef\xbb\xbf")
        file.writelines(b"%d %s\r\n" % (i, 50_000 * b"x") for i in range(400))  # 20 MB
        file.write("tail \u2028 of one line".encode())
    tracemalloc.start()
    found = [(place.rsplit(" ", 1)[1], line[:20]) for place, line in lines(path)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert found[0] == ("1", "0 xxxxxxxxxxxxxxxxxx")
    assert found[-1] == ("401", "tail \u2028 of one line")
