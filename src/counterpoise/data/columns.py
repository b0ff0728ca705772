"""A CSV or Parquet file as columns of text, through Arrow: compact, and quick for millions of rows.

What is kept of a row is the text of its cells and eight bytes for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean

_BLOCK = 16 * 2**20  # bytes of a CSV that are read at once; no row may be longer
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")


class Columns:
    """The named columns of a table file, every cell as text, missing or blank ones as None.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.parquet`` file with a header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, broken, without rows, or a column named twice.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f"There is no table {self.path}.")
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{self.path}: a table is one of {', '.join(SUFFIXES)}; got {self.path.suffix!r}.")
        import pyarrow as pa

        try:
            schema, batches = _open(self.path)
            chunks = [[_text(column) if _fits(column.type) else column for column in b.columns] for b in batches]
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} cannot be read as a table: {error}") from error
        self.names: tuple[str, ...] = tuple(schema.names)
        twice = sorted({n for n in self.names if self.names.count(n) > 1})
        if twice:
            raise ValueError(f"{self.path}: column {twice[0]!r} is there more than once.")
        if not any(map(len, (columns[0] for columns in chunks))):
            raise ValueError(f"{self.path} has a header but no rows.")
        self._data: dict[str, Any] = {n: pa.chunked_array([c[i] for c in chunks]) for i, n in enumerate(self.names)}
        pa.default_memory_pool().release_unused()  # as much again, from reading

    def __len__(self) -> int:
        return len(next(iter(self._data.values())))

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def textual(self, name: str) -> bool:
        """Whether a column can be read as text: not floats, lists or bytes, which Parquet may hold."""
        return _fits(self._data[name].type)

    def require(self, name: str) -> str:
        """``name`` when there is such a column; ValueError naming the nearest otherwise."""
        if name not in self._data:
            raise ValueError(f"{self.path}: " + did_you_mean("column", name, self.names))
        return name

    def keep(self, names: Sequence[str]) -> None:
        """Forget the other columns."""
        for n in names:
            if not self.textual(self.require(n)):
                kind = self._data[n].type
                raise ValueError(f"{self.path}: column {n!r} must hold text or integers; it holds {kind}.")
        self._data = {n: self._data[n] for n in names}

    def cell(self, name: str, row: int) -> str | None:
        """One cell."""
        return self._data[name][row].as_py()

    def cells(self, name: str, first: int | None = None) -> list[str | None]:
        """All cells of a column, or the ``first`` ones, as Python strings: tens of bytes more for each."""
        column = self._data[name]
        return (column if first is None else column.slice(0, first)).to_pylist()

    def coded(self, name: str) -> Coded:
        """A column as numbers: the memory of one integer for each cell, and of the distinct cells."""
        encoded = self._data[name].dictionary_encode()
        codes = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
        return Coded(np.concatenate(codes).astype(np.int64), encoded.chunk(0).dictionary)

    def filled(self, name: str) -> Tensor:
        """(n,) bool: which cells hold something."""
        return torch.from_numpy(np.array(self._data[name].is_valid().to_numpy()))

    def blocks(self, name: str, rows: int = 65536) -> Iterator[list[str | None]]:
        """The cells of a column in pieces."""
        column = self._data[name]
        for start in range(0, len(column), rows):
            yield column.slice(start, rows).to_pylist()


class Names(Sequence[str]):
    """The ids of some rows, looked up when asked for: a million names need no million Python objects."""

    def __init__(self, columns: Columns, name: str | None, rows: Tensor):
        self._columns, self._name, self._rows = columns, name, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._at(int(row)) for row in self._rows[index]]
        return self._at(int(self._rows[index]))

    def _at(self, row: int) -> str:
        return str(row + 1) if self._name is None else self._columns.cell(self._name, row) or ""


class Coded(NamedTuple):
    """The cells of a column as numbers.

    Attributes:
        codes: (n,) which of the distinct texts each cell holds; -1 for blank ones.
        texts: Arrow array of the (k,) distinct texts, in the order in which they first appear.
    """

    codes: np.ndarray
    texts: Any

    def first(self) -> np.ndarray:
        """(k,) the first row of each text."""
        rows = np.flatnonzero(self.codes >= 0)[::-1]
        found = np.empty(len(self.texts), np.int64)
        found[self.codes[rows]] = rows  # where a text repeats, the last assignment stays
        return found

    def rows(self) -> Callable[[int], np.ndarray]:
        """Which rows have a text, ascending, by its number."""
        order = np.argsort(self.codes, kind="stable")
        start = np.searchsorted(self.codes, np.arange(len(self.texts) + 1), sorter=order)
        return lambda i: order[start[i] : start[i + 1]]

    def ranks(self) -> np.ndarray:
        """(n,) the place of each cell's text among the distinct ones in sorted order."""
        from pyarrow import compute

        pc: Any = compute
        order = pc.array_sort_indices(self.texts).to_numpy()
        place = np.empty(len(order) + 1, np.int64)
        place[order], place[-1] = np.arange(len(order)), -1
        return place[self.codes]


def _open(path: Path) -> tuple[Any, Iterable[Any]]:
    """The columns of a file, and its rows in batches that are read when asked for."""
    if path.suffix.lower() in (".parquet", ".pq"):
        from pyarrow import parquet

        file = parquet.ParquetFile(path)
        return file.schema_arrow, file.iter_batches()
    from pyarrow import csv, string

    parse = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    read = csv.ReadOptions(block_size=_BLOCK)
    with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        names = reader.schema.names
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(f"{path} seems to be separated by ';'; save it with commas (or as .tsv with tabs).")
    convert = csv.ConvertOptions(column_types={n: string() for n in names}, null_values=[""], strings_can_be_null=True)
    reader = csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    return reader.schema, reader


def _text(column: Any) -> Any:
    """As an array of stripped text; blank cells become null."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made at import, unseen by type checkers
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    return pc.if_else(pc.equal(column, ""), None, column)


def _fits(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)
