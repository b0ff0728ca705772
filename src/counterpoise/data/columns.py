"""A CSV or Parquet file, or a frame, as columns of text, through Arrow: compact, and quick for millions of rows.

The text of a large table lies in an unnamed temporary file that is mapped into memory, so that what it takes of
memory can be given back at any time; the workers of a loader share it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean

from .table_files import FRAME, existing, fits, read, read_frame, spooled

BETWEEN = "\x1f"
"""Stands between the cells that make one cell of a joined column."""


class NoColumnError(ValueError):
    """A table lacks a column that was named."""


class Columns:
    """The named columns of a table, every cell as text, missing or blank ones as None.

    Names are stripped of spaces around them, as cells are.

    Args:
        table: a ``.csv``, ``.tsv`` or ``.parquet`` file with a header, a DataFrame, or a table of Arrow.
        numbers: columns that may hold floats, where types are stated; others must hold text or integers. NaN is blank.

    Attributes:
        path: of the file; what messages call a frame.
        folder: of the file; the current one for a frame.
        names: the columns, in order.
        index: those that pandas wrote for the index of a frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no such table, broken, without rows, or a column named twice.
    """

    def __init__(self, table: Any, numbers: Collection[str] = ()):
        self._numbers = set(numbers)
        self.path: Path | str = existing(table) if isinstance(table, str | PathLike) else FRAME
        self.folder = self.path.parent if isinstance(self.path, Path) else Path()
        content = read(self.path) if isinstance(self.path, Path) else read_frame(table)
        self._types, self._data, self.index = content
        self.names: tuple[str, ...] = tuple(self._types)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy in another process has a file of its own."""
        self.__dict__.update(state)
        self._data = spooled(self._data.schema, self._data.to_batches())

    def __len__(self) -> int:
        return len(self._data)

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether one of the columns is there."""
        return any(name in self for name in names)

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def other(self, name: str, *, floats: bool = False) -> str | None:
        """What a column holds that cannot be read as text: lists, bytes or, unless ``floats``, floats, in Parquet."""
        return None if fits(self._types[name], floats or name in self._numbers) else str(self._types[name])

    def require(self, name: str) -> str:
        """``name`` when there is such a column; ValueError naming the nearest otherwise."""
        if name not in self._types:
            raise NoColumnError(f"{self.path}: " + did_you_mean("column", name, self.names))
        return name

    def keep(self, names: Sequence[str], joined: Mapping[str, Sequence[str]] | None = None) -> None:
        """Forget the other columns.

        Args:
            names: which to keep.
            joined: further column -> those of which its cells are made, which are kept too and may hold floats. Their
                texts stand one after another, ``BETWEEN`` them; where all are blank the cell is.
        """
        joined = joined or {}
        self._numbers.update(name for parts in joined.values() for name in parts)
        names = [*names, *(name for parts in joined.values() for name in parts)]
        for n in names:
            if kind := self.other(self.require(n)):
                raise ValueError(f"{self.path}: column {n!r} must hold text or integers; it holds {kind}.")
        self._types = {n: self._types[n] for n in names}
        self._data = self._data.select(list(self._types))
        if joined:
            self._join(joined)

    def _join(self, joined: Mapping[str, Sequence[str]]) -> None:
        import pyarrow as pa

        schema = pa.schema([*self._data.schema, *(pa.field(name, pa.large_string()) for name in joined)])
        batches = self._data.to_batches()
        self._data = spooled(schema, (_with_joined(batch, joined, schema) for batch in batches))
        self._types |= dict.fromkeys(joined, pa.large_string())

    def cell(self, name: str, row: int) -> str | None:
        """One cell."""
        return self._data[name][row].as_py()

    def at(self, name: str, rows: Sequence[int]) -> list[str | None]:
        """The cells of these rows."""
        return self._data[name].take(np.asarray(rows, np.int64)).to_pylist()

    def cells(self, name: str) -> list[str | None]:
        """All cells of a column as Python strings: tens of bytes more for each."""
        return self._data[name].to_pylist()

    def taken(self, name: str, rows: Tensor) -> list[str]:
        """The cells of these rows that hold something."""
        return self._data[name].take(rows[self.filled(name)[rows]].numpy()).to_pylist()

    def some(self, name: str, count: int) -> list[str]:
        """At most ``count`` cells that hold something, from all over the column, in its order."""
        rows = self.filled(name).nonzero().flatten()
        chosen = rows[torch.linspace(0, len(rows) - 1, min(count, len(rows)), dtype=torch.float64).long()]
        return self._data[name].take(chosen.numpy()).to_pylist()

    def coded(self, name: str) -> Coded:
        """A column as numbers: the memory of four bytes for each cell, and of the distinct cells."""
        import pyarrow as pa

        encoded = self._data[name].dictionary_encode()
        codes = np.empty(len(self), np.int32)
        end = 0
        for chunk in encoded.chunks:
            start, end = end, end + len(chunk)
            codes[start:end] = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        texts = encoded.chunk(0).dictionary
        del encoded
        pa.default_memory_pool().release_unused()
        return Coded(codes, texts)

    def repeats(self, name: str) -> Iterator[tuple[int, int]]:
        """Each row whose cell is in an earlier row too, with the first of these; blank cells with -1.

        Ascending. While nothing repeats this takes 16 bytes a row, whatever the cells are.
        """
        keys = self._keys(name)
        ordered = np.sort(keys)
        twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
        del ordered
        suspect = ~self.filled(name).numpy()
        if len(twice):
            suspect |= np.isin(keys, twice)
        first: dict[str, int] = {}
        for row in np.flatnonzero(suspect).tolist():
            cell = self.cell(name, row)
            if cell is None:
                yield row, -1
            elif first.setdefault(cell, row) != row:  # different texts with the same key are told apart here
                yield row, first[cell]

    def _keys(self, name: str) -> np.ndarray:
        """(n,) a 64-bit hash of each cell: the bytes, each times a number that belongs to its place, summed."""
        keys, end = np.empty(len(self), np.uint64), 0
        weights = np.empty(0, np.uint64)
        for chunk in self._data[name].chunks:
            for first in range(0, len(chunk), 8192):
                part = chunk.slice(first, 8192)
                start, end = end, end + len(part)
                _, offsets, text = part.buffers()
                at = np.frombuffer(offsets, np.int64)[part.offset : part.offset + len(part) + 1]
                length = np.diff(at)
                if length.max() > len(weights):
                    weights = np.random.default_rng(0).integers(0, 2**64, int(length.max()), np.uint64) | 1
                data = np.frombuffer(text or b"", np.uint8)[at[0] : at[-1]].astype(np.uint64)
                at = at - at[0]
                data += 1
                data *= weights[np.arange(len(data)) - np.repeat(at[:-1], length)]
                total = np.append(np.uint64(0), np.cumsum(data))
                keys[start:end] = total[at[1:]] - total[at[:-1]]
        return keys

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
        first = np.empty(len(self.texts), np.int64)
        first[self.codes[rows]] = rows  # where a text repeats, the last assignment stays
        return first

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
        place = np.empty(len(order) + 1, np.int32)
        place[order], place[-1] = np.arange(len(order)), -1
        return place[self.codes]


def _with_joined(batch: Any, joined: Mapping[str, Sequence[str]], schema: Any) -> Any:
    """A batch with further columns that are made of others."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name, parts in joined.items():
        texts = [pc.replace_substring(pc.fill_null(columns[part], ""), BETWEEN, " ") for part in parts]
        joint = pc.binary_join_element_wise(*texts, pa.scalar(BETWEEN, pa.large_string()))
        columns[name] = pc.if_else(pc.equal(joint, BETWEEN * (len(parts) - 1)), None, joint)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)
