"""A table of files becomes splits; every bad table says what is wrong and where."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow

from counterpoise.data import Table
from counterpoise.data.readers import Array, Audio, Image, ReadError, Text

AUDIO = Audio(sample_rate=8000, seconds=0.1, n_fft=64, hop=64)
IMAGE = Image(size=8)
WORDS = ["one fine day", "two", "three of them"]


@pytest.fixture
def folder(tmp_path):
    """30 samples of 3 classes: WAV, PNG, NPY and a text; 18 train, 6 val, 6 test."""
    rng = np.random.default_rng(0)
    rows = ["id,label,split,sound,picture,feature,words"]
    for i in range(30):
        soundfile.write(tmp_path / f"{i}.wav", rng.uniform(-1, 1, 800), 8000)
        Pillow.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / f"{i}.png")
        np.save(tmp_path / f"{i}.npy", rng.normal(size=(4,)).astype(np.float32))
        part = "train" if i < 18 else "val" if i < 24 else "test"
        rows.append(f"s{i},{i % 3},{part},{i}.wav,{i}.png,{i}.npy,{WORDS[i % 3]}")
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def _write(folder, change, name="changed.csv"):
    """The table with ``change(lines) -> lines`` applied to its cells; row 0 is the header."""
    lines = [line.split(",") for line in (folder / "table.csv").read_text().splitlines()]
    (folder / name).write_text("\n".join(",".join(line) for line in change(lines)) + "\n")
    return folder / name


def _set(row, column, value):
    def change(lines):
        lines[row][lines[0].index(column)] = value
        return lines

    return change


def _without(*columns):
    def change(lines):
        keep = [i for i, name in enumerate(lines[0]) if name not in columns]
        return [[line[i] for i in keep] for line in lines]

    return change


def test_guesses_readers_and_says_so(folder):
    table = Table(folder / "table.csv")
    assert {m: type(r).__name__ for m, r in table.readers.items()} == {
        "sound": "Audio",
        "picture": "Image",
        "feature": "Array",
        "words": "Text",
    }
    text = table.describe()
    assert "sound: reader audio (guessed)" in text
    assert "30 rows" in text
    assert table.readers["feature"].shape == (4,)


def test_batch_reads_what_the_reader_reads(folder):
    data = Table(folder / "table.csv", {"sound": AUDIO, "picture": IMAGE, "feature": "array"}).splits()
    assert data.modalities == ("sound", "picture", "feature")
    assert data.test is not None
    assert [len(p) for p in (data.train, data.val, data.test)] == [18, 6, 6]
    assert data.val.target.tolist() == [0, 1, 2] * 2
    assert list(data.val.ids) == [f"s{i}" for i in range(18, 24)]
    assert data.val.ids[1:3] == ["s19", "s20"]
    got = data.val.batch([4, 0], "sound", None)
    expected = torch.stack([AUDIO.read(str(folder / f"{i}.wav")) for i in (22, 18)])
    assert torch.equal(got, expected)
    assert torch.equal(data.val.batch([2], "feature", 1)[0], torch.from_numpy(np.load(folder / "20.npy")))


def test_reads_only_the_files_of_the_modality(folder):
    for file in folder.glob("*.png"):
        file.unlink()
    data = Table(folder / "table.csv", {"sound": AUDIO, "picture": IMAGE}).splits()
    assert data.train.batch(range(18), "sound", 0).shape == (18, 1, 33, 13)
    with pytest.raises(ReadError, match=r"0\.png"):
        data.train.batch([0], "picture", 0)


def test_augmentation_depends_on_seed_row_and_modality_only(folder):
    train = Table(folder / "table.csv", {"picture": IMAGE}).splits().train
    together = train.batch([3, 5], "picture", 7)
    assert torch.equal(together[1], train.batch([5], "picture", 7)[0])
    assert torch.equal(together[1], train.subset([5, 3]).batch([0], "picture", 7)[0])
    assert not torch.equal(together, train.batch([3, 5], "picture", 8))
    for i in (1, 2):  # the same picture in other rows is cut in another way
        (folder / f"{i}.png").write_bytes((folder / "0.png").read_bytes())
    first, second, third = train.batch([0, 1, 2], "picture", 7)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert torch.equal(train.batch([3], "picture", None), train.batch([3], "picture", None))
    copy = pickle.loads(pickle.dumps(train))
    assert torch.equal(together, copy.batch([3, 5], "picture", 7))


def test_empty_cells_are_absent(folder):
    def change(lines):
        lines[2][3], lines[3][6], lines[20][3] = "", "  ", ""
        return lines

    data = Table(_write(folder, change), {"sound": AUDIO, "words": "text", "picture": IMAGE}).splits()
    assert data.train.present is not None
    assert {m: (~p).nonzero().flatten().tolist() for m, p in data.train.present.items()} == {"sound": [1], "words": [2]}
    assert data.val.present is not None
    assert set(data.val.present) == {"sound"}
    assert data.test is not None
    assert data.test.present is None
    got = data.train.batch([0, 1], "sound", None)
    assert got[0].any()
    assert not got[1].any()
    assert data.train.batch([1], "sound", None).shape == (1, *AUDIO.shape)


def test_val_is_split_off_train_when_the_table_has_none(folder):
    def change(lines):
        return [lines[0], *[[*line[:2], line[2].replace("val", "train"), *line[3:]] for line in lines[1:]]]

    one, two, other = (Table(_write(folder, change), {"words": "text"}, seed=s, val=0.25).splits() for s in (0, 0, 3))
    assert len(one.val) == 6
    assert list(one.val.ids) == list(two.val.ids) != list(other.val.ids)
    assert torch.bincount(one.val.target).tolist() == [2, 2, 2]
    assert one.test is not None
    assert not {*one.train.ids, *one.val.ids} & {*one.test.ids}


def test_shares_and_groups_when_there_is_no_split_column(folder):
    def change(lines):
        rows = [[*line, f"g{i // 3}"] for i, line in enumerate(lines[1:])]
        return _without("split")([[*lines[0], "speaker"], *rows])

    path = _write(folder, change)
    data = Table(path, {"words": "text"}, group="speaker", val=0.2, test=0.2).splits()
    assert data.test is not None
    sides = [{int(i[1:]) // 3 for i in part.ids} for part in (data.train, data.val, data.test)]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10
    assert Table(path, {"words": "text"}, test=0).splits().test is None


def test_parquet_gives_the_same_as_csv(folder):
    import pyarrow as pa
    from pyarrow import csv, parquet

    data = csv.read_csv(folder / "table.csv")
    assert pa.types.is_integer(data.schema.field("label").type)
    parquet.write_table(data, folder / "table.parquet")
    one, two = (Table(folder / f"table.{e}", {"sound": AUDIO}).splits().train for e in ("csv", "parquet"))
    assert list(one.ids) == list(two.ids)
    assert one.fingerprint() == two.fingerprint()


def test_parquet_columns_that_are_no_text(folder):
    import pyarrow as pa
    from pyarrow import parquet

    texts = pa.array(["a b", "c", "d", "e f"]).dictionary_encode()
    columns = {"label": pa.array([True, False, True, False]), "words": texts, "age": pa.array([1.5, 2.0, 3.0, 4.0])}
    parquet.write_table(pa.table(columns), folder / "t.parquet")
    table = Table(folder / "t.parquet", test=0)
    assert set(table.readers) == {"words", "tabular"}
    assert table.readers["tabular"].numbers == ["age"]
    assert table.splits().classes == ("false", "true")
    with pytest.raises(ValueError, match="column 'age' must hold text or integers; it holds double"):
        Table(folder / "t.parquet", {"age": "text"})


def test_fingerprint_follows_cells_readers_and_rows(folder):
    def make(path="table.csv", **modalities):
        return Table(folder / path, modalities or {"sound": AUDIO}).splits().train.fingerprint()

    assert make() == make()
    assert make() != make(sound=Audio(sample_rate=8000, seconds=0.2, n_fft=64, hop=64))
    _write(folder, _set(1, "sound", "2.wav"))
    assert make() != make("changed.csv")
    _write(folder, _set(1, "split", "val"))
    assert make() != make("changed.csv")
    _write(folder, _set(1, "picture", "2.png"))
    assert make() == make("changed.csv"), "a column that is not read does not matter"


def test_cache_decodes_once(folder, monkeypatch):
    calls = []
    load = Audio.load
    monkeypatch.setattr(Audio, "load", lambda self, cell: calls.append(cell) or load(self, cell))
    data = Table(folder / "table.csv", {"sound": AUDIO, "words": "text"}, cache=folder / "cache").splits()
    first = data.train.batch(range(18), "sound", 0)
    assert len(calls) == 18
    assert torch.equal(first, data.train.batch(range(18), "sound", 1))
    assert len(calls) == 18
    assert data.train.batch([0], "words", 0).dtype == torch.int64


def test_a_cached_batch_equals_one_that_is_decoded(folder):
    path = _write(folder, _set(3, "sound", ""))
    tables = [Table(path, {"sound": AUDIO}, cache=cache).samples() for cache in (None, folder / "cache")]
    for rows in ([0, 1], [1, 2, 0, 7], [2]):  # partly known, with a sample that lacks it
        batches = [table.batch(rows, "sound", 1) for table in tables]
        assert torch.equal(*batches)
    assert batches[0].abs().sum() == 0


def test_a_cached_nan_is_named(folder, monkeypatch):
    table = Table(folder / "table.csv", {"sound": AUDIO}, cache=folder / "cache").samples()
    monkeypatch.setattr(Audio, "load", lambda self, cell: torch.full(self.shape, float("nan")))
    for _ in range(2):
        with pytest.raises(ReadError, match=r"row 3 .*column .sound.*NaN"):
            table.batch([2], "sound", 1)


def test_prediction_needs_no_labels_and_keeps_the_classes_given(folder):
    table = Table(_write(folder, _without("label", "split")), {"sound": AUDIO}, classes=["0", "1", "2", "3"])
    every = table.samples()
    assert every.classes == ("0", "1", "2", "3")
    assert every.target.tolist() == [-1] * 30
    with pytest.raises(ValueError, match="Unknown column 'label'"):
        table.samples(labelled=True)
    with pytest.raises(ValueError, match="Unknown column 'label'"):
        table.splits()
    some = Table(_write(folder, _set(5, "label", "")), {"sound": AUDIO}).samples()
    assert some.target.tolist()[:6] == [0, 1, 2, 0, -1, 2]
    part = Table(folder / "table.csv", {"sound": AUDIO}, classes=["2", "1", "0"]).samples("test")
    assert part.target.tolist() == [2, 1, 0] * 2


def test_ids_are_row_numbers_without_an_id_column(folder):
    table = Table(_write(folder, _without("id")), {"sound": AUDIO})
    assert table.samples().ids[0] == "1"
    assert table.place(0).endswith("changed.csv, row 1")


def test_whole_numbers_that_are_all_different_are_no_modality(folder):
    table = Table(_write(folder, lambda lines: [[*line, "age" if i == 0 else str(i)] for i, line in enumerate(lines)]))
    assert table.ignored == {"age": "its whole numbers are all different, as ids are"}
    assert "'age' is not used: its whole numbers are all different, as ids are" in table.describe()


def test_quoted_text_with_commas_and_lines(folder):
    rows = "\n".join(f'{c},"a, b\nand {i}"' for i, c in enumerate("xyxyxyxyxy"))
    (folder / "text.csv").write_text("\ufefflabel,words\n" + rows, encoding="utf-8")
    data = Table(folder / "text.csv", test=0).splits()
    assert len(data.train) + len(data.val) == 10
    assert data.classes == ("x", "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set(4, "split", "tset"), r"row 4 \(id 's3'\) is in no part: Unknown split 'tset'. Did you mean 'test'"),
        (_set(4, "split", ""), r"row 4 \(id 's3'\) has no split"),
        (_set(4, "id", "s1"), r"row 4 \(id 's1'\) has the id of row 2"),
        (_set(4, "id", ""), "row 4 has an empty id"),
        (_set(4, "label", ""), r"row 4 \(id 's3'\) has no label"),
        (_set(4, "sound", ""), r"row 4 \(id 's3'\) lacks every modality"),
        (lambda ls: [[c if c != "train" else "val" for c in line] for line in ls], "puts no row in 'train'"),
        (lambda ls: [ls[0], *[[line[0], "7", *line[2:]] for line in ls[1:]]], r"one class only \(7\)"),
        (_without("label"), "Unknown column 'label'"),
    ],
)
def test_unusable_tables_say_where(folder, change, message):
    table = Table(_write(folder, change), {"sound": AUDIO})
    with pytest.raises(ValueError, match=message):
        table.splits()


def test_many_flaws_are_cut_short(folder):
    path = _write(folder, lambda ls: [ls[0], *[[*line[:2], "none", *line[3:]] for line in ls[1:]]])
    with pytest.raises(ValueError, match=r"and 26 more; `counterpoise data check` lists them all"):
        Table(path, {"sound": AUDIO}).splits()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modalities": {"sond": AUDIO}}, "Unknown column 'sond'. Did you mean 'sound'"),
        ({"modalities": {"sound": "adio"}}, "Unknown reader 'adio'. Did you mean 'audio'"),
        ({"modalities": {}}, "at least one column"),
        ({"modalities": {"sound": AUDIO}, "group": "speaker"}, "Unknown column 'speaker'"),
        ({"modalities": {"sound": AUDIO}, "root": "nowhere"}, "no nowhere"),
    ],
)
def test_bad_arguments_are_named(folder, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Table(folder / "table.csv", **arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"id,label,sound\n", "no rows"),
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", b"a,label\n1,2,3\n", "cannot be read as a table"),
        ("t.csv", b"a;label\n1;2\n", "separated by ';'"),
        ("t.csv", b"a,a\n1,2\n", "'a' is there more than once"),
        ("t.csv", b"words,label\n\xff\xfe,2\n", "cannot be read as a table"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.xlsx", b"x", r"\.parquet.*got '\.xlsx'"),
        ("t.csv", b"label,age\n1,2\n", "no column that could be a modality"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Table(tmp_path / name)


def test_no_such_table(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*x\.csv"):
        Table(tmp_path / "x.csv")


def test_unreadable_files_name_row_and_path(folder):
    (folder / "1.wav").unlink()
    (folder / "2.wav").write_bytes(b"RIFF")
    (folder / "3.npy").write_bytes(b"")
    np.save(folder / "4.npy", np.array([1, np.nan, 1, 1], np.float32))
    train = Table(folder / "table.csv", {"sound": AUDIO, "feature": Array()}).splits().train
    for index, modality, message in [
        (1, "sound", r"table.csv, row 2 \(id 's1'\), column 'sound': .*1\.wav: no such file"),
        (2, "sound", r"row 3 .*2\.wav"),
        (3, "feature", r"row 4 .*3\.npy: is empty"),
        (4, "feature", r"row 5 .*4\.npy: holds NaN"),
    ]:
        with pytest.raises(ReadError, match=message):
            train.batch([0, index], modality, None)


def test_samples_of_different_shape_are_refused(folder):
    np.save(folder / "1.npy", np.ones(5, np.float32))
    train = Table(folder / "table.csv", {"feature": "array"}).splits().train
    with pytest.raises(ReadError, match=r"row 2 .*has shape \(5,\)"):
        train.batch([0, 1], "feature", None)


def test_near_misses_of_a_table(tmp_path):
    (tmp_path / "mine.csv").write_text("mood,said\na,x\nb,y\n")
    with pytest.raises(FileNotFoundError, match=r"no table .*min\.csv. Did you mean 'mine\.csv'"):
        Table(tmp_path / "min.csv")
    with pytest.raises(FileNotFoundError, match=r"other\.csv\.$"):  # an ending alone is no likeness
        Table(tmp_path / "other.csv")
    table = Table(tmp_path / "mine.csv")
    for ask in (table.splits, lambda: table.samples(labelled=True)):
        with pytest.raises(ValueError, match=r"Unknown column 'label'.*Name the column of the labels: label=.*--data"):
            ask()
    (tmp_path / "tabs.csv").write_text("label\tsaid\na\tx\n")
    with pytest.raises(ValueError, match=r"separated by tabs; rename it to tabs\.tsv"):
        Table(tmp_path / "tabs.csv")
    with pytest.raises(ValueError, match=r"modalities\['said'\] must be a reader such as Audio.*got the class Text"):
        Table(tmp_path / "mine.csv", {"said": Text})
    with pytest.raises(ValueError, match=r"modalities must map columns to readers"):
        Table(tmp_path / "mine.csv", ["said"])
