"""Tables and arrays with bytes changed at random are read as they stand, or refused in a line: 200 inputs."""

from __future__ import annotations

import csv
import io
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from counterpoise.cli import main
from counterpoise.data.readers import Array
from counterpoise.data.source import Arrays
from counterpoise.data.table import Table

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
SEEDS = range(50)
Read = TypeVar("Read")


def _mutated(content: bytes, seed: int) -> bytes:
    """One to three changes: a bit or byte, a piece deleted, doubled, moved or inserted, the end cut off."""
    rng, data = np.random.default_rng(seed), bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
        piece = data[at : at + length]
        kind = int(rng.integers(7))
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at] = int(rng.choice(list(b'\0,"\r\n\xff0')))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = piece
        elif kind == 4:
            data[at : at + length] = piece[::-1]
        elif kind == 5:
            data[at:at] = rng.bytes(length)
        else:
            del data[len(data) - length :]
    return bytes(data)


@contextmanager
def _ends() -> Iterator[None]:
    """A minute at most; what takes longer hangs."""

    def hangs(*_: object) -> None:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _read(read: Callable[[], Read], name: str) -> Read | None:
    """What is read; None where that is refused by a message that names the file."""
    try:
        with _ends():
            return read()
    except (ValueError, OSError) as error:
        message = str(error)
    assert name in message
    return None


def _checked(path: Path, capsys: pytest.CaptureFixture[str], *more: str) -> None:
    """``data check`` ends with a report, or with one message; anything but ``SystemExit`` leaves by itself."""
    with _ends(), pytest.raises(SystemExit) as left:
        main(["data", "check", str(path), *more])
    out, err = capsys.readouterr()
    assert left.value.code in (0, 1, 2)
    assert "error" in out or err.startswith("counterpoise: ")
    assert "Traceback" not in err


def _rows(count: int = 30) -> list[list[str]]:
    parts = ("train", "train", "val", "test")
    rows = [[f"s{i}", "ab"[i % 2], parts[i % 4], f'say "{i}", then\nmore', f"är {i}"] for i in range(count)]
    return [["id", "label", "split", "said", "seen"], *rows]


@pytest.mark.parametrize("seed", SEEDS)
def test_csv(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(_rows())
    path = tmp_path / "t.csv"
    path.write_bytes(_mutated(text.getvalue().encode(), seed))
    _checked(path, capsys)
    columns = _read(lambda: Table(path).columns, "t.csv")
    if columns is None:
        return
    header, *rows = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
    assert list(columns.names) == [name.strip() for name in header]
    rows = [row for row in rows if row]  # empty lines
    for i, name in enumerate(columns.names):
        if name in columns:
            assert columns.cells(name) == [(row[i].strip() or None) for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
def test_parquet(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    header, *rows = _rows()
    path = tmp_path / "t.parquet"
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(header)})
    parquet.write_table(table, path, write_page_checksum=True, use_dictionary=False, compression="none")
    path.write_bytes(_mutated(path.read_bytes(), seed))
    _checked(path, capsys)
    columns = _read(lambda: Table(path).columns, "t.parquet")
    if columns is None:
        return
    for i, name in enumerate(header):
        if name in columns:
            assert columns.cells(name) == [row[i] for row in rows]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(seed: int, save: Callable[..., None], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(30, 4)), "b": rng.normal(size=(30, 5, 2)), "y": np.arange(30) % 2}
    path = tmp_path / "x.npz"
    save(path, **arrays)
    path.write_bytes(_mutated(path.read_bytes(), seed))
    source = _read(lambda: Arrays(str(path)), "x.npz")
    if source is None or _read(source.splits, "x.npz") is None:
        return
    for m, array in source.inputs.items():
        assert np.array_equal(array, arrays[m])
    assert np.array_equal(source.y, arrays["y"])


@pytest.mark.parametrize("seed", SEEDS)
def test_npy_cells(seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.save(tmp_path / "good.npy", values)
    whole = (tmp_path / "good.npy").read_bytes()
    start = whole.index(b"\n") + 1
    (tmp_path / "bad.npy").write_bytes(_mutated(whole, seed))
    (tmp_path / "t.csv").write_text("label,x\n" + "a,good.npy\nb,good.npy\n" * 4 + "a,bad.npy\n")
    _checked(tmp_path / "t.csv", capsys, "--data.modalities.x", "array")
    found = _read(lambda: Array().decode(str(tmp_path / "bad.npy")).numpy(), "bad.npy: ")
    if found is None:
        return
    content = (tmp_path / "bad.npy").read_bytes()
    if content[:start] == whole[:start]:  # else another type or shape may be what the header says
        assert found.tobytes() == content[start:]
    assert found.size * found.itemsize > 0
