"""Tables of many rows: what is kept of each, and that pieces change nothing."""

from __future__ import annotations

import tracemalloc

import numpy as np

from counterpoise.data import Table, check, columns
from counterpoise.data.arrays import shares
from counterpoise.data.readers import Audio
from counterpoise.engine.loader import Loader


def test_a_large_table_stays_small(tmp_path):
    n = 100_000
    with (tmp_path / "big.csv").open("w") as file:
        file.write("id,label,split,sound\n")
        file.writelines(f"sample{i},{i % 7},train,folder/file{i}.wav\n" for i in range(n))
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
    monkeypatch.setattr(columns, "_BLOCK", 512)
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
    expected = shares(table.labels[0].numpy(), table.val, table.test, 0, names)
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
    assert peak < 110 * n, f"{peak / n:.0f} bytes a row"
