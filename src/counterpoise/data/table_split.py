"""Some rows of a table, as training reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise.task import Task

from .cache import DecodeCache
from .columns import Names
from .layout import Layout, layout_of_reader
from .readers import Reader, ReadError
from .readers.base import all_finite
from .seeding import draw_of
from .split import Split, digest, lacking, positions, weighed
from .targets import standardised

if TYPE_CHECKING:
    from .table import Table


class TableSplit(Split):
    """Some rows of a table, read from their files when a batch asks for them.

    Args:
        table: whose rows.
        rows: (n,) row numbers, from 0.
        task: what is predicted.
        weights: of every row of the table; None when all count alike.
        readers: of each modality, fitted to training rows; those of the table when None.
    """

    def __init__(
        self,
        table: Table,
        rows: Tensor,
        task: Task,
        weights: Tensor | None = None,
        readers: Mapping[str, Reader] | None = None,
    ):
        self.table, self.rows, self.task = table, rows, task
        self.modalities = tuple(table.readers)
        self.readers = dict(table.readers if readers is None else readers)
        target = table.labels.target[rows]
        self.target = target if target.is_floating_point() else target.long()
        self.ids = Names(table.columns, table.id if table.id in table.columns else None, rows)
        self.present = lacking(table.present, rows)
        self._weights, self.weight = weights, None if weights is None else weights[rows]

    def subset(self, indices: Sequence[int] | Tensor) -> TableSplit:
        rows = self.rows[positions(indices, len(self))]
        return TableSplit(self.table, rows, self.task, self._weights, self.readers)

    def fitted(self, indices: Sequence[int] | Tensor) -> TableSplit:
        rows = self.rows[positions(indices, len(self))]
        task = standardised(self.task, self.table.task, self.table.labels.target[rows])
        return TableSplit(self.table, self.rows, task, self._weights, self.table.fitted_on(rows))

    def layout(self, modality: str) -> Layout:
        return layout_of_reader(modality, self.readers[modality])

    def fingerprint(self) -> str:
        learned = [json.dumps(r.fitted, sort_keys=True) for r in self.readers.values() if r.fitted is not None]
        return digest(self.table.fingerprint, *self.classes, self.rows, *weighed(self.weight), *learned)

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)].tolist()
        reader, cache = self.readers[modality], self.table.caches.get(modality)
        if cache is not None and reader.plain:
            return self._cached(rows, modality, reader, cache)
        read = [self._read(row, modality, seed) for row in rows]
        # Seldom empty: the engine's loader asks for present samples only.
        empty = next((torch.zeros_like(x) for x in read if x is not None), None)
        empty = self._empty(modality) if empty is None else empty
        whole = [empty if x is None else x for x in read]
        for row, x in zip(rows, whole, strict=True):
            if x.shape != empty.shape:
                raise ReadError(
                    f"{self.table.place(row)}, column {modality!r}",
                    f"has shape {tuple(x.shape)}, others of the batch have {tuple(empty.shape)}",
                )
        return torch.stack(whole)

    def recording(self, modality: str) -> str:
        return self.readers[modality].recording

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        row = int(self.rows[index])
        return self.readers[modality].altered(self.table.source(row, modality) or "", alter)

    def _cached(self, rows: Sequence[int], modality: str, reader: Reader, cache: DecodeCache) -> Tensor:
        """A batch whose entries are used as they are, read into their places in it."""
        assert reader.shape is not None
        batch = torch.empty(len(rows), *reader.shape, dtype=reader.dtype)
        for row, x in zip(rows, batch, strict=True):
            source = self.table.source(row, modality)
            if source is None or not cache.fill(source, x):
                read = None if source is None else self._read(row, modality, None)
                x.copy_(torch.zeros(()) if read is None else read)
        if not all_finite(batch):
            for row in rows:
                self._read(row, modality, None)  # names the one that is not
        return batch

    def _read(self, row: int, modality: str, seed: int | None) -> Tensor | None:
        table = self.table
        source, reader = table.source(row, modality), self.readers[modality]
        if source is None:
            return None
        try:
            cache = table.caches.get(modality)
            decoded = reader.decode(source) if cache is None else cache.decode(source)
            x = reader.transform(decoded, draw_of(reader, modality, row, seed))
            if not all_finite(x):
                raise ReadError(source, "holds NaN or infinity")
        except ReadError as error:
            what = f": {source}" if reader.reads_files else ""
            raise ReadError(f"{table.place(row)}, column {modality!r}{what}", error.reason) from error
        except (MemoryError, RuntimeError) as error:  # of transform: no room, most likely
            raise ReadError(f"{table.place(row)}, column {modality!r}: {source}", f"cannot be used: {error}") from error
        return x

    def _empty(self, modality: str) -> Tensor:
        """What stands for a sample that lacks the modality."""
        reader = self.readers[modality]
        if reader.shape is not None:
            return torch.zeros(reader.shape, dtype=reader.dtype)
        rows = self.table.columns.filled(modality).nonzero().flatten()
        if not len(rows):
            raise ReadError(f"{self.table.columns.path}, column {modality!r}", "every cell is empty")
        x = self._read(int(rows[0]), modality, None)
        assert x is not None
        return torch.zeros_like(x)
