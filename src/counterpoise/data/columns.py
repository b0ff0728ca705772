"""A CSV or Parquet file as columns of text, through Arrow: compact, and quick for millions of rows.

The text of a large table lies in an unnamed temporary file that is mapped into memory, so that what it takes of
memory can be given back at any time; the workers of a loader share it.
"""

from __future__ import annotations

import errno
import json
import mmap
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean, nearest

_BLOCKS = (2**18, 2**24)  # bytes of a CSV that are read at once, more where a row is longer; the last is the limit
_KEPT = 2**22  # bytes of text that stay in memory
_INDEX = re.compile(r"|index|level_\d+|__index_level_\d+__|Unnamed: \d+(\.\d+)?")  # of pandas; "" too
BETWEEN = "\x1f"
"""Stands between the cells that make one cell of a joined column."""
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")


class NoColumnError(ValueError):
    """A table lacks a column that was named."""


class Columns:
    """The named columns of a table file, every cell as text, missing or blank ones as None.

    Names are stripped of spaces around them, as cells are.

    Args:
        path: a ``.csv``, ``.tsv`` or ``.parquet`` file with a header.
        numbers: columns that may hold floats, in Parquet; others must hold text or integers. NaN is a blank cell.

    Attributes:
        names: the columns of the file, in order.
        index: those that pandas wrote for the index of a frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file, broken, without rows, or a column named twice.
    """

    def __init__(self, path: str | Path, numbers: Collection[str] = ()):
        self.path, self._numbers = Path(path).expanduser(), set(numbers)
        if not self.path.is_file():
            beside = [p.name for p in self.path.parent.glob("*") if p.suffix.lower() in SUFFIXES]
            raise FileNotFoundError(f"There is no table {self.path}.{nearest(self.path.name, beside, cutoff=0.82)}")
        if self.path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{self.path}: a table is one of {', '.join(SUFFIXES)}; got {self.path.suffix!r}.")
        self._types, self._data, self.index = _read(self.path)
        self.names: tuple[str, ...] = tuple(self._types)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy in another process has a file of its own."""
        self.__dict__.update(state)
        self._data = _spooled(self._data.schema, self._data.to_batches())

    def __len__(self) -> int:
        return len(self._data)

    def any_of(self, names: Iterable[str]) -> bool:
        """Whether one of the columns is there."""
        return any(name in self for name in names)

    def __contains__(self, name: str) -> bool:
        return name in self._types

    def other(self, name: str) -> str | None:
        """What a column holds that cannot be read as text: floats, lists or bytes, in Parquet; None for text."""
        return None if _fits(self._types[name], name in self._numbers) else str(self._types[name])

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
        self._data = _spooled(schema, (_with_joined(batch, joined, schema) for batch in batches))
        self._types |= dict.fromkeys(joined, pa.large_string())

    def cell(self, name: str, row: int) -> str | None:
        """One cell."""
        return self._data[name][row].as_py()

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
        place = np.empty(len(order) + 1, np.int32)
        place[order], place[-1] = np.arange(len(order)), -1
        return place[self.codes]


def _read(path: Path) -> tuple[dict[str, Any], Any, frozenset[str]]:
    """The types of the columns of a file, an Arrow table of the text of those that hold any, the names of an index."""
    import pyarrow as pa

    for i, size in enumerate(_BLOCKS):
        try:
            schema, batches = _open(path, size)
            names = [name.strip() for name in schema.names]
            types = dict(zip(names, schema.types, strict=True))
            _named_once(path, names)
            kept = [i for i, kind in enumerate(schema.types) if _fits(kind, True)]
            texts = pa.schema([(names[i], pa.large_string()) for i in kept])
            table = _spooled(texts, (_texts(batch.select(kept), texts) for batch in batches))
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of Arrow
                raise
            if "block" in str(error) and i + 1 < len(_BLOCKS):  # a row that is longer than one
                continue
            raise ValueError(f"{path} cannot be read as a table: {error}") from error
        if texts.names and not len(table):
            raise ValueError(f"{path} has a header but no rows.")
        pa.default_memory_pool().release_unused()  # from reading
        return types, table, _index(schema, names)
    raise AssertionError


def _named_once(path: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        hint = " Commas at the end of the lines make columns without a name; delete them." if "" in twice else ""
        raise ValueError(f"{path}: column {twice[0]!r} is there more than once.{hint}")
    quoted = [name for name in names if len(name) > 1 and name[0] == name[-1] == '"']
    if quoted:  # and so are cells, where a comma would end one
        raise ValueError(
            f"{path}: the name {quoted[0]} has its quotation marks behind a space, where they do not count. "
            "Delete the spaces after the commas."
        )


def _index(schema: Any, names: Sequence[str]) -> frozenset[str]:
    """The columns that pandas wrote for the index of a frame: as it says in Parquet, by their names elsewhere."""
    try:
        stored = json.loads((schema.metadata or {})[b"pandas"])["index_columns"]
        stated = {name.strip() for name in stored if isinstance(name, str)}
    except (KeyError, ValueError, TypeError):  # none, or none that pandas wrote
        stated = set[str]()
    return frozenset(name for name in names if name in stated or _INDEX.fullmatch(name))


def _open(path: Path, block: int) -> tuple[Any, Iterable[Any]]:
    """The columns of a file, and its rows in batches that are read when asked for."""
    if path.suffix.lower() in (".parquet", ".pq"):
        from pyarrow import parquet

        file = parquet.ParquetFile(path, page_checksum_verification=True)  # where the writer made checksums
        return file.schema_arrow, file.iter_batches()
    from pyarrow import csv, string

    parse = csv.ParseOptions(delimiter="\t" if path.suffix.lower() == ".tsv" else ",", newlines_in_values=True)
    read = csv.ReadOptions(block_size=block, use_threads=False)  # threads would read ahead: tens of MiB, no faster
    with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        names = reader.schema.names
    if len(names) == 1 and ";" in names[0]:
        raise ValueError(f"{path} seems to be separated by ';'; save it with commas (or as .tsv with tabs).")
    if len(names) == 1 and "\t" in names[0]:
        raise ValueError(f"{path} seems to be separated by tabs; rename it to {path.with_suffix('.tsv').name}.")
    convert = csv.ConvertOptions(column_types={n: string() for n in names}, null_values=[""], strings_can_be_null=True)
    reader = csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    return reader.schema, reader


def _spooled(schema: Any, batches: Iterable[Any]) -> Any:
    """An Arrow table of these batches, whose bytes are in a temporary file when they are many.

    The file has no name (or loses it here), so it is gone with its last user, however that ends.
    """
    import pyarrow as pa

    with tempfile.SpooledTemporaryFile(_KEPT) as file:
        try:
            with pa.ipc.new_file(pa.PythonFile(file, "w"), schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            size = file.tell()
            file.seek(0)  # flushes too
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            advice = "Free some space, or set the environment variable TMPDIR to another folder"
            raise OSError(error.errno, f"The rows of a table find no room. {advice}", tempfile.gettempdir()) from error
        content = file.read() if size <= _KEPT else mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return pa.ipc.open_file(pa.py_buffer(content)).read_all()


def _texts(batch: Any, schema: Any) -> Any:
    """The columns of a batch as text."""
    import pyarrow as pa

    return pa.record_batch([_text(column) for column in batch.columns], schema=schema)


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


def _text(column: Any) -> Any:
    """As an array of stripped text; blank cells and NaN become null."""
    import pyarrow as pa
    from pyarrow import compute

    pc: Any = compute  # its functions are made at import, unseen by type checkers
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    if not pa.types.is_large_string(column.type):
        column = column.cast(pa.string())
    column = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    return pc.if_else(pc.equal(column, ""), None, column)


def _fits(kind: Any, number: bool) -> bool:
    """Whether a column can be read as text; floats where it is to hold numbers."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return texts or types.is_integer(kind) or types.is_boolean(kind) or (number and types.is_floating(kind))
