"""Some rows of a table, as training reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from counterpoise._digests import digest
from counterpoise.task import Task

from .cache import DecodeCache, channels_last
from .columns import Names
from .layout import Layout, layout_of_reader
from .readers import Reader, ReadError
from .readers.base import all_finite
from .seeding import draw_of
from .split import Parts, Split, lacking, positions, weighed
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
        return self._stacked(rows, modality, [empty if x is None else x for x in read])

    def parts(
        self, indices: Sequence[int], modality: str, seed: int | None, empty: Callable[..., Tensor] = torch.empty
    ) -> Parts | None:
        reader = self.readers[modality]
        if not reader.batched or not len(indices):
            return None
        rows = self.rows[torch.as_tensor(indices, dtype=torch.int64)].tolist()
        return self._whole(rows, modality, seed, empty) or self._cut(rows, modality, seed, empty)

    def _whole(
        self, rows: Sequence[int], modality: str, seed: int | None, empty: Callable[..., Tensor]
    ) -> Parts | None:
        """Parts that are all of what is decoded, read from the cache into their places; None where they are not that.

        They are taken to be as the first one is; one that the cache cannot give so is decoded.
        """
        reader, cache = self.readers[modality], self.table.caches.get(modality)
        if cache is None:
            return None
        first = self._decoded(rows[0], modality)
        if reader.cut(first, None)[0] is not first:
            return None
        values = _room(first, len(rows), empty)
        values[0] = self._finite(rows[0], modality, first)
        sources = [source for source in self.table.sources(rows[1:], modality) if source is not None]
        for place in cache.fill(sources, values[1:]):
            decoded = self._decoded(rows[1 + place], modality)
            if decoded.shape != first.shape or decoded.dtype != first.dtype:
                return None
            values[1 + place] = self._finite(rows[1 + place], modality, decoded)
        drawn = [
            reader.cut(x, draw_of(reader, modality, row, seed))[1] for row, x in zip(rows, values.unbind(), strict=True)
        ]
        return Parts(values, torch.tensor(drawn, dtype=torch.float64))

    def _cut(self, rows: Sequence[int], modality: str, seed: int | None, empty: Callable[..., Tensor]) -> Parts:
        """Parts of samples that are decoded one by one; samples as the encoder gets them where those are not alike."""
        reader = self.readers[modality]
        decoded = [self._decoded(row, modality) for row in rows]
        cuts = [reader.cut(x, draw_of(reader, modality, row, seed)) for row, x in zip(rows, decoded, strict=True)]
        first = cuts[0][0]
        if any(part.shape != first.shape or part.dtype != first.dtype for part, _ in cuts):
            done = [self._transformed(row, modality, seed, x) for row, x in zip(rows, decoded, strict=True)]
            return Parts(self._stacked(rows, modality, done))
        values = _room(first, len(rows), empty)
        for row, (part, _), place in zip(rows, cuts, values, strict=True):
            place.copy_(self._finite(row, modality, part))
        return Parts(values, torch.tensor([drawn for _, drawn in cuts], dtype=torch.float64))

    def recording(self, modality: str) -> str:
        return self.readers[modality].recording

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        row = int(self.rows[index])
        return self.readers[modality].altered(self.table.source(row, modality) or "", alter)

    def _cached(self, rows: Sequence[int], modality: str, reader: Reader, cache: DecodeCache) -> Tensor:
        """A batch whose entries are used as they are, read into their places in it."""
        assert reader.shape is not None
        sources = self.table.sources(rows, modality)
        if None in sources:
            batch = torch.zeros(len(rows), *reader.shape, dtype=reader.dtype)
            there = [place for place, source in enumerate(sources) if source is not None]
            batch[there] = self._cached([rows[place] for place in there], modality, reader, cache)
            return batch
        batch = torch.empty(len(rows), *reader.shape, dtype=reader.dtype)
        for place in cache.fill([source for source in sources if source is not None], batch):
            batch[place] = self._decoded(rows[place], modality)  # what `transform` gives
            self._finite(rows[place], modality, batch[place])
        return batch

    def _read(self, row: int, modality: str, seed: int | None) -> Tensor | None:
        if self.table.source(row, modality) is None:
            return None
        return self._transformed(row, modality, seed, self._decoded(row, modality))

    def _decoded(self, row: int, modality: str) -> Tensor:
        """What the reader decodes, or the cache has, of a row that has the modality."""
        source, cache = self._source(row, modality), self.table.caches.get(modality)
        with self._naming(row, modality):
            return self.readers[modality].decode(source) if cache is None else cache.decode(source)

    def _transformed(self, row: int, modality: str, seed: int | None, decoded: Tensor) -> Tensor:
        """The sample as the encoder gets it."""
        reader = self.readers[modality]
        with self._naming(row, modality):
            x = reader.transform(decoded, draw_of(reader, modality, row, seed))
        return self._finite(row, modality, x)

    def _finite(self, row: int, modality: str, x: Tensor) -> Tensor:
        """What was read of a row, without NaN and infinity; what `DecodeCache.fill` reads has neither."""
        if not all_finite(x):
            with self._naming(row, modality):
                raise ReadError(self._source(row, modality), "holds NaN or infinity")
        return x

    def _source(self, row: int, modality: str) -> str:
        source = self.table.source(row, modality)
        assert source is not None
        return source

    @contextmanager
    def _naming(self, row: int, modality: str) -> Iterator[None]:
        """Errors name the row, the column and the file."""
        try:
            yield
        except ReadError as error:
            what = f": {self._source(row, modality)}" if self.readers[modality].reads_files else ""
            raise ReadError(f"{self.table.place(row)}, column {modality!r}{what}", error.reason) from error
        except (MemoryError, RuntimeError) as error:  # of transform: no room, most likely
            where = f"{self.table.place(row)}, column {modality!r}: {self._source(row, modality)}"
            raise ReadError(where, f"cannot be used: {error}") from error

    def _stacked(self, rows: Sequence[int], modality: str, samples: Sequence[Tensor]) -> Tensor:
        first = samples[0].shape
        for row, x in zip(rows, samples, strict=True):
            if x.shape != first:
                raise ReadError(
                    f"{self.table.place(row)}, column {modality!r}",
                    f"has shape {tuple(x.shape)}, others of the batch have {tuple(first)}",
                )
        return torch.stack(list(samples))

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


def _room(part: Tensor, count: int, empty: Callable[..., Tensor]) -> Tensor:
    """(count, ...) for samples like this one, each laid out in memory as it is: colours last where its are."""
    if channels_last(part):
        return empty((count, *part.movedim(-3, -1).shape), dtype=part.dtype).movedim(-1, -3)
    return empty((count, *part.shape), dtype=part.dtype)
