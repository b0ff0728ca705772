"""The rows of a sensor log: of a file, of a folder of files, or of a frame in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from counterpoise._checks import did_you_mean

from .columns import Columns
from .readers.guessing import is_number
from .table_files import SUFFIXES
from .values import is_absent

Cells = Sequence[Any] | np.ndarray


class Rows(NamedTuple):
    """Columns of a log, each with a cell per row: text, a number, or None where there is none.

    Attributes:
        columns: name -> cells.
        place: how messages name a row.
    """

    columns: Mapping[str, Cells]
    place: Callable[[int], str]

    def numbers(self, name: str) -> np.ndarray:
        """(rows,) float64, NaN where a cell is empty; ValueError naming the row that is no finite number."""
        cells = self.columns[name]
        if isinstance(cells, np.ndarray) and cells.dtype.kind in "fiub":
            values = cells.astype(np.float64)
        else:
            values = np.fromiter((self._number(name, row, cell) for row, cell in enumerate(cells)), float, len(cells))
        infinite = np.flatnonzero(np.isinf(values))
        if len(infinite):
            raise ValueError(f"{self.place(int(infinite[0]))}: {name} must be a finite number; found infinity.")
        return values

    def _number(self, name: str, row: int, cell: Any) -> float:
        try:
            return np.nan if is_absent(cell) else float(cell)
        except (TypeError, ValueError):
            raise ValueError(f"{self.place(row)}: {name} must be a number; found {cell!r}.") from None

    def times(self, name: str) -> np.ndarray:
        """(rows,) float64, in seconds where the cells are dates; ValueError naming the row that is neither."""
        cells = self.columns[name]
        dates = isinstance(cells, np.ndarray) and cells.dtype.kind == "M"
        if not dates:
            there = (cell for cell in cells[:100] if not is_absent(cell))
            dates = any(not is_number(cell) if isinstance(cell, str) else isinstance(cell, date) for cell in there)
        return self.filled(name, self._seconds(name, cells) if dates else self.numbers(name))

    def filled(self, name: str, values: np.ndarray) -> np.ndarray:
        """``values`` when none is NaN; ValueError naming the first row that has none."""
        empty = np.flatnonzero(np.isnan(values))
        if len(empty):
            raise ValueError(f"{self.place(int(empty[0]))} has no {name} ({len(empty)} rows in all).")
        return values

    def _seconds(self, name: str, cells: Cells) -> np.ndarray:
        given = cells if isinstance(cells, np.ndarray) and cells.dtype.kind == "M" else list(map(_moment, cells))
        try:
            moments = np.asarray(given, "datetime64[ns]")
        except ValueError:
            for row, cell in enumerate(given):
                try:
                    np.datetime64(cell)
                except ValueError:
                    what = "a number, or a date as 2020-01-31T10:00:00"
                    raise ValueError(f"{self.place(row)}: {name} must be {what}; found {cell!r}.") from None
            raise
        first = np.fmin.reduce(moments, initial=np.datetime64("NaT"))  # of those that there are
        return (moments - first) / np.timedelta64(1, "s")

    def names(self, name: str) -> np.ndarray:
        """(rows,) text; ValueError naming the row that has none."""
        cells = self.columns[name]
        for row, cell in enumerate(cells):
            if is_absent(cell) or cell != cell:
                raise ValueError(f"{self.place(row)} has no {name}.")
        return np.array([str(cell) for cell in cells])


def read_rows(log: Any, names: Sequence[str], recording: str) -> Rows:
    """These columns of a log.

    Args:
        log: path of a CSV, TSV or Parquet file; of a folder of these, one for each recording; or a frame of pandas,
            polars or pyarrow, or a mapping of names to arrays.
        names: of the columns.
        recording: the column of recordings; of a folder it is the name of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is not there, or a file cannot be read.
    """
    if not isinstance(log, str | Path):
        return _in_memory(log, names)
    path = Path(log).expanduser()
    if not path.is_dir():
        columns = _opened(path, names)
        return Rows({n: columns.cells(n) for n in names}, lambda row: f"{path}, row {row + 1}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"The folder {path} has no file that ends in {', '.join(SUFFIXES)}.")
    cells: dict[str, list[Any]] = {name: [] for name in names}
    starts = []
    for file in files:
        starts.append(len(cells[recording]))
        columns = _opened(file, [name for name in names if name != recording])
        for name in names:
            cells[name] += [file.stem] * len(columns) if name == recording else columns.cells(name)

    def place(row: int) -> str:
        i = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{files[i]}, row {row - starts[i] + 1}"

    return Rows(cells, place)


def _opened(path: Path, names: Sequence[str]) -> Columns:
    columns = Columns(path, numbers=names)
    columns.keep(list(dict.fromkeys(names)))
    return columns


def _in_memory(log: Any, names: Sequence[str]) -> Rows:
    there = getattr(log, "column_names", None) or getattr(log, "columns", None)
    there = [str(name) for name in (log if isinstance(log, Mapping) else there if there is not None else ())]
    if not there:
        raise ValueError(f"log must be a path, a frame or a mapping of columns; got {type(log).__name__}.")
    for name in names:
        if name not in there:
            raise ValueError("log: " + did_you_mean("column", name, there))
    cells = {name: np.asarray(log[name]) for name in names}
    if len({len(column) for column in cells.values()}) > 1:
        raise ValueError(f"log: columns differ in length: {', '.join(f'{n} {len(c)}' for n, c in cells.items())}.")
    return Rows(cells, lambda row: f"log, row {row + 1}")


def _moment(cell: Any) -> Any:
    """A date as NumPy takes it: in UTC where it has a time zone."""
    if is_absent(cell):
        return np.datetime64("NaT")
    return cell.astimezone(UTC).replace(tzinfo=None) if isinstance(cell, datetime) and cell.tzinfo else cell
