"""A CSV or Parquet file as columns of text, through Arrow: compact, and quick for millions of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean

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
            data = _parquet(self.path) if self.path.suffix.lower() in (".parquet", ".pq") else _csv(self.path)
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} cannot be read as a table: {error}") from error
        twice = sorted({n for n in data.column_names if data.column_names.count(n) > 1})
        if twice:
            raise ValueError(f"{self.path}: column {twice[0]!r} is there more than once.")
        if data.num_rows == 0:
            raise ValueError(f"{self.path} has a header but no rows.")
        self._data: dict[str, Any] = {n: data.column(n) for n in data.column_names}
        self.names = tuple(data.column_names)

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
        """Forget the other columns, and make cells quick to reach."""
        self._data = {n: _text(self._data[self.require(n)], self.path, n) for n in names}

    def cell(self, name: str, row: int) -> str | None:
        """One cell."""
        return self._data[name][row].as_py()

    def cells(self, name: str, first: int | None = None) -> list[str | None]:
        """All cells of a column, or the ``first`` ones."""
        column = _text(self._data[name], self.path, name)
        return (column if first is None else column.slice(0, first)).to_pylist()

    def filled(self, name: str) -> Tensor:
        """(n,) bool: which cells hold something."""
        return torch.from_numpy(np.array(self._data[name].is_valid().to_numpy(zero_copy_only=False)))

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


def _csv(path: Path) -> Any:
    from pyarrow import csv, string

    parse = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    with csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(f"{path} seems to be separated by ';'; save it with commas (or as .tsv with tabs).")
    convert = csv.ConvertOptions(column_types={n: string() for n in names}, null_values=[""], strings_can_be_null=True)
    return csv.read_csv(path, parse_options=parse, convert_options=convert)


def _parquet(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(path)


def _text(column: Any, path: Path, name: str) -> Any:
    """As one array of stripped text; blank cells become null."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made at import, unseen by type checkers
    if isinstance(column, pa.Array):  # done already
        return column
    if not _fits(column.type):
        raise ValueError(f"{path}: column {name!r} must hold text or integers; it holds {column.type}.")
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    column = pc.if_else(pc.equal(column, ""), None, column)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _fits(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)
