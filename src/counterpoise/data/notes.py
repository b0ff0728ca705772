"""What a table's columns were taken for, where something else may have been meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from .labels import alike, part_of
from .readers import Tabular
from .readers.guessing import MISSING
from .tabular_columns import notes_of

if TYPE_CHECKING:
    from .table import Table


def notes(table: Table) -> Iterator[str]:
    """Columns that are left out and why, names of splits that are read as others, doubtful labels and cells."""
    columns, roles = table.columns, (*table.label_columns, table.id, table.split, table.group, table.weight)
    together = [name for reader in table.readers.values() if isinstance(reader, Tabular) for name in reader.columns]
    for name in columns.names:
        if name not in table.readers and name not in roles and name not in together:
            yield f"{name!r} is not used: {table.ignored.get(name, 'no reader stated')}"
    if table.split in columns:
        for name in columns.coded(table.split).texts.to_pylist():
            if part_of(name) not in (None, name):
                yield f"{table.split}: {name!r} is read as {part_of(name)!r}"
    yield from table.guesses
    yield from notes_of(table)
    labels = [name for name in table.label_columns if name in columns]
    with suppress(ValueError):  # a flaw of its own
        yield from filter(None, [table.labels.note])
    for name in labels:
        yield from (f"{name}: {line}" for line in alike(columns.coded(name).texts.to_pylist()))
    categories = [name for r in table.readers.values() if isinstance(r, Tabular) for name in r.categorical]
    apart = [m for m, reader in table.readers.items() if not isinstance(reader, Tabular)]
    for name in (*apart, *categories, *labels):
        cells = Counter(c for block in columns.blocks(name) for c in block if c and c.casefold() in MISSING)
        yield from (
            f"{name}: {c!r} in {n} rows is read as it stands; only empty cells are absent" for c, n in cells.items()
        )
