"""Tables of many rows: what is kept of each, and that pieces change nothing."""

from __future__ import annotations

import errno
import mmap
import pickle
import tempfile
import tracemalloc

import numpy as np
import pytest

from counterpoise.data import Table, check, columns, source, splitting, table_files
from counterpoise.data.arrays import shares
from counterpoise.data.readers import Array, Audio, Text
from counterpoise.engine.loader import Loader


def test_a_large_table_stays_small(tmp_path):
    n = 100_000
    with (tmp_path / "big.csv").open("w") as file:
        file.write("id,label,split,sound\n")
        file.writelines(f"sample{i},{i % 7},train,folder/file{i}.wav\n" for i in range(n))
    Table(long(tmp_path / "t.csv", 30), {"words": "text"}, test=0).splits()  # imports, once
    tracemalloc.start()
    data = Table(tmp_path / "big.csv", {"sound": Audio(sample_rate=8000, seconds=0.1, n_fft=64, hop=64)}).splits()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(data.train) + len(data.val) == n
    # Python objects for each row would need more than 100 bytes a row.
    assert kept < 20 * n


# -- many rows -------------------------------------------------------------------------------------------
def long(path, n, groups=None):
    rows = [f"s{i},{'xyz'[i % 3]},{(groups or 'g{}').format(i * 7 % (n // 5))},word{i}" for i in range(n)]
    path.write_text("\n".join(["id,label,group,words", *rows]) + "\n")
    return path


def test_the_blocks_a_file_is_read_in_do_not_matter(tmp_path, monkeypatch):
    path = long(tmp_path / "t.csv", 300)
    whole = Table(path, {"words": "text"})
    monkeypatch.setattr(table_files, "_BLOCKS", (512,))
    pieces = Table(path, {"words": "text"})
    assert pieces.columns._data["id"].num_chunks > 5
    assert whole.fingerprint == pieces.fingerprint
    assert whole.labels[0].equal(pieces.labels[0])
    assert [pieces.columns.cell("words", r) for r in (0, 150, 299)] == ["word0", "word150", "word299"]
    for part, rows in whole.rows().items():
        assert (rows == pieces.rows()[part]).all(), part


def test_groups_are_split_as_by_their_names(tmp_path):
    """Whatever the order in which they first appear, and beyond ASCII."""
    table = Table(long(tmp_path / "t.csv", 300, groups="{}ü"), {"words": "text"}, test=0.2)
    names = np.array(table.columns.cells("group"), dtype=str)
    expected = shares(table.labels.target.numpy(), table.val, table.test, 0, names)
    for part, rows in table.rows().items():
        assert (rows == expected[part]).all(), part


def test_cells_as_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("id,label\n1,b\n2,\n3,a\n4,b\n5,ü\n")
    column = columns.Columns(tmp_path / "t.csv").coded("label")
    assert column.codes.tolist() == [0, -1, 1, 0, 2]
    assert column.texts.to_pylist() == ["b", "a", "ü"]
    assert column.first().tolist() == [0, 2, 4]
    assert column.ranks().tolist() == [1, -1, 0, 1, 2]
    assert [column.rows()(i).tolist() for i in range(3)] == [[0, 3], [2], [4]]


@pytest.mark.slow  # every allocation is traced
def test_rows_cost_no_python_objects(tmp_path):
    """Reading, splitting, checking and the start of an epoch: a few numbers a row."""
    n = 200_000
    path = long(tmp_path / "t.csv", n)
    next(Loader(Table(path, {"words": "text"}).splits().train, 32).batches(("words",)))  # imports, once
    tracemalloc.start()
    table = Table(path, {"words": "text"})
    splits = table.splits()
    assert check(table, read=False).ok
    assert splits.train.fingerprint()
    batches = Loader(splits.train, 32).batches(("words",), order_seed=0, drop_last=True)
    assert len(next(batches).target) == 32
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 70 * n, f"{peak / n:.0f} bytes a row"  # of which 40 are texts of 65,536 rows, hashed at once


# -- text in a file --------------------------------------------------------------------------------------
def test_a_large_table_leaves_memory_to_the_system(tmp_path):
    import pyarrow as pa

    path = long(tmp_path / "t.csv", 200_000)
    before = pa.total_allocated_bytes()
    table = Table(path, {"words": "text"})
    assert table.splits().train.fingerprint()
    assert table.columns.cell("words", 199_999) == "word199999"
    assert pa.total_allocated_bytes() - before < 2**20, "Arrow keeps the text itself"


def test_text_in_a_file_is_the_same_and_the_file_has_no_name(tmp_path, monkeypatch):
    path = long(tmp_path / "t.csv", 300)
    inside = Table(path, {"words": "text"})
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(table_files, "_KEPT", 64)
    used, make = [], mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda *args, **options: used.append(args) or make(*args, **options))
    outside = Table(path, {"words": "text"})
    assert len(used) == 1
    assert inside.fingerprint == outside.fingerprint
    for part, rows in inside.rows().items():
        assert (rows == outside.rows()[part]).all(), part
    copy = pickle.loads(pickle.dumps(outside))  # as for a worker that is not forked
    assert len(used) == 2
    for table in (outside, copy):
        assert inside.columns.cells("words") == table.columns.cells("words")
    assert not list((tmp_path / "temporary").iterdir())


def test_no_room_for_the_text_says_where(tmp_path, monkeypatch):
    class Full:
        def __init__(self, *args):
            self.closed = False

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(OSError, match=r"find no room. Free some space, or set .* TMPDIR") as caught:
        Table(long(tmp_path / "t.csv", 300), {"words": "text"})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, tempfile.gettempdir())


def test_a_row_longer_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_BLOCKS", (64, 4096))
    path = tmp_path / "t.csv"
    rows = "".join(f"{'xy'[i % 2]},{'a' * (3000 if i == 30 else 3)}\n" for i in range(40))
    path.write_text("label,words\n" + rows)
    table = Table(path, {"words": "text"})
    assert [len(cell or "") for cell in table.columns.cells("words")] == [3] * 30 + [3000] + [3] * 9
    path.write_text("label,words\n" + rows.replace("aaa\n", "aaa" * 8000 + "\n", 1))
    with pytest.raises(ValueError, match=r"cannot be read as a table: .*block"):
        Table(path, {"words": "text"})


@pytest.mark.parametrize("same", [False, True], ids=["keys", "every key the same"])
def test_repeated_cells(tmp_path, monkeypatch, same):
    """Found by their hashes and then by their text, so that no collision counts."""
    if same:
        monkeypatch.setattr(columns.Columns, "_keys", lambda self, name: np.zeros(len(self), np.uint64))
    monkeypatch.setattr(table_files, "_BLOCKS", (256,))
    ids = [["", "a", "b", "ab", "ba", "ü", f"n{i}", f"n{i}"][int(k)] for i, k in enumerate(_random(400, 8))]
    (tmp_path / "t.csv").write_text("\n".join(["id,label", *(f"{cell},x" for cell in ids)]) + "\n")
    first: dict[str, int] = {}
    expected = []
    for i, cell in enumerate(ids):
        if not cell or first.setdefault(cell, i) != i:
            expected.append((i, first.get(cell, -1)))
    assert list(columns.Columns(tmp_path / "t.csv").repeats("id")) == expected
    assert len(expected) > 200


def test_a_key_belongs_to_a_text_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_BLOCKS", (64, 4096))
    texts = ["abc", "ü", "x" * 50, "abc", "y" * 900, "ü", "abc"]
    (tmp_path / "t.csv").write_text("\n".join(["id,label", *(f"{cell},x" for cell in texts)]) + "\n")
    keys = columns.Columns(tmp_path / "t.csv")._keys("id")
    assert [texts.index(t) for t in texts] == [keys.tolist().index(k) for k in keys.tolist()]


def test_keys_tell_texts_apart(tmp_path):
    texts = ["a", "aa", "aaa", "ab", "ba", *map(str, range(50_000))]
    (tmp_path / "t.csv").write_text("\n".join(["id,label", *(f"{cell},x" for cell in texts)]) + "\n")
    keys = columns.Columns(tmp_path / "t.csv")._keys("id")
    assert len(np.unique(keys)) == len(texts)


@pytest.mark.parametrize(
    "values",
    [np.array([3, -2, 3, 7, 7, 0]), np.array([-128, 127] * 300, np.int8), np.array([10**12, 5]), np.array(["b", "a"])],
    ids=["numbers", "narrow", "far apart", "texts"],
)
def test_values_are_numbered_in_order(values):
    assert splitting._numbered(values).tolist() == np.unique(values, return_inverse=True)[1].tolist()


def test_missing_files_are_named_in_every_block(tmp_path, monkeypatch):
    blocks = columns.Columns.blocks
    monkeypatch.setattr(columns.Columns, "blocks", lambda self, name: blocks(self, name, 3))
    names = ["a", "gone", "", "b", "a", "gone", "b", "lost"]
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros(2))
    cells = [name and f"{name}.npy" for name in names]
    (tmp_path / "t.csv").write_text(
        "\n".join(["label,words,x", *(f"{i % 2},word,{cell}" for i, cell in enumerate(cells))])
    )
    with pytest.raises(FileNotFoundError) as caught:
        source.Table(str(tmp_path / "t.csv"), {"x": Array(), "words": Text()}).splits()
    found = [int(line.split("row ")[1].split(",")[0]) for line in str(caught.value).splitlines() if "row " in line]
    assert found == [2, 6, 8]


def _random(n, high):
    return np.random.default_rng(0).integers(0, high, n)
