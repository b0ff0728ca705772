"""Table files, and frames of other libraries, to Arrow tables of text."""

from __future__ import annotations

import errno
import json
import mmap
import re
import tempfile
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from counterpoise._checks import nearest
from counterpoise._extras import require

_BLOCKS = (2**18, 2**24)  # bytes of a CSV that are read at once, more where a row is longer; the last is the limit
_KEPT = 2**22  # bytes of text that stay in memory
_INDEX = re.compile(r"|index|level_\d+|__index_level_\d+__|Unnamed: \d+(\.\d+)?")  # of pandas; "" too
SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")

FRAME = "the DataFrame"
"""What messages call a table that is in memory."""


class Content(NamedTuple):
    """What is in a table.

    Attributes:
        types: the Arrow type of each column, by its name without spaces around it.
        texts: Arrow table of the text of those columns that hold any.
        pandas_index: the columns that pandas wrote for the index of a frame.
    """

    types: dict[str, Any]
    texts: Any
    pandas_index: frozenset[str]


def existing(path: str | PathLike[str]) -> Path:
    """The path of a table file that is there, and of a kind that is read."""
    file = Path(path).expanduser()
    if not file.is_file():
        beside = [p.name for p in file.parent.glob("*") if p.suffix.lower() in SUFFIXES]
        raise FileNotFoundError(f"There is no table {file}.{nearest(file.name, beside, cutoff=0.82)}")
    if file.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{file}: a table is one of {', '.join(SUFFIXES)}; got {file.suffix!r}.")
    return file


def read(path: Path) -> Content:
    """The content of a file."""
    require("Reading a table", "pyarrow")
    import pyarrow as pa

    for i, size in enumerate(_BLOCKS):
        try:
            content = _texts_of(path, *_open(path, size))
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the system, not of Arrow
                raise
            if "block" in str(error) and i + 1 < len(_BLOCKS):  # a row that is longer than one
                continue
            raise ValueError(f"{path} cannot be read as a table: {error}") from error
        if content.texts.num_columns and not len(content.texts):
            raise ValueError(f"{path} has a header but no rows.")
        pa.default_memory_pool().release_unused()  # from reading
        return content
    raise AssertionError


def read_frame(frame: Any) -> Content:
    """The content of a DataFrame of pandas or polars, or of a table of Arrow; a named index of pandas is a column.

    Raises:
        ValueError: something else; a name twice, or that is no text; no rows; a column of several types.
    """
    require("Reading a frame", "narwhals", "pyarrow")
    import narwhals
    import pyarrow as pa

    kind = type(frame).__name__
    lazy = hasattr(frame, "collect")
    names = None if lazy else getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    if names is None:
        cure = " Pass df.collect()." if lazy else ""
        raise ValueError(
            f"A table is the name of a file, a DataFrame of pandas or polars, or a table of pyarrow; got {kind}.{cure}"
        )
    other = [name for name in names if not isinstance(name, str)]
    if other:
        raise ValueError(f"{FRAME}: names of columns must be texts; got {other[0]!r}. Pass df.rename(columns=str).")
    _named_once(FRAME, [name.strip() for name in names])
    try:
        table = narwhals.from_native(frame, eager_only=True).to_arrow()
        content = _texts_of(FRAME, table.schema, table.to_batches())
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"{FRAME} ({kind}) cannot be read as a table: {error}") from error
    if not len(table):
        raise ValueError(f"{FRAME} ({kind}) has no rows.")
    return content


def _texts_of(path: Path | str, schema: Any, batches: Iterable[Any]) -> Content:
    import pyarrow as pa

    names = [name.strip() for name in schema.names]
    _named_once(path, names)
    kept = [i for i, kind in enumerate(schema.types) if fits(kind, True)]
    texts = pa.schema([(names[i], pa.large_string()) for i in kept])
    table = spooled(texts, (_texts(batch.select(kept), texts) for batch in batches))
    return Content(dict(zip(names, schema.types, strict=True)), table, _index(schema, names))


def _named_once(path: Path | str, names: Sequence[str]) -> None:
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


def spooled(schema: Any, batches: Iterable[Any]) -> Any:
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


def fits(kind: Any, number: bool) -> bool:
    """Whether a column can be read as text; floats where it is to hold numbers."""
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    texts = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return texts or types.is_integer(kind) or types.is_boolean(kind) or (number and types.is_floating(kind))
