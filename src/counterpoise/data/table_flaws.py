"""What makes training on a table impossible."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from counterpoise._checks import did_you_mean, misnamed
from counterpoise.task import MultiLabel, SingleLabel

from .labels import at_least_two, part_of, renamed, unknown_split
from .table_labels import BAR

if TYPE_CHECKING:
    from .table import Table


class Flaw(NamedTuple):
    """Something wrong with a table: which row (from 0, None for the whole table) and what."""

    row: int | None
    text: str


def flaws_of(table: Table) -> Iterator[Flaw]:
    """What makes training on this table impossible, without opening any file."""
    yield from (Flaw(None, f"{table.columns.path}, column {m!r}: {misnamed(m)}") for m in table.readers if misnamed(m))
    if not table.columns.any_of(table.label_columns):
        yield Flaw(None, without_label(table))
        return
    name = ", ".join(table.label_columns)
    try:
        labels = table.labels
        if isinstance(labels.task, SingleLabel):
            at_least_two(labels.task.names, f"{table.columns.path}: column {name!r}")
        none = f" ({BAR} says that none applies)" if isinstance(labels.task, MultiLabel) else ""
        yield from (Flaw(r, f"has no {name}{none}") for r in labels.missing.nonzero().flatten().tolist())
    except ValueError as error:
        yield Flaw(None, str(error))
    if table.id in table.columns:
        for row, first in table.columns.repeats(table.id):
            yield Flaw(row, "has an empty id" if first < 0 else f"has the id of row {first + 1}")
    if table.split in table.columns:
        codes, texts = table.columns.coded(table.split)
        names = texts.to_pylist()
        wrong = ["" if name and part_of(name) else unknown_split(name) for name in (*names, None)]
        yield from (Flaw(r, wrong[codes[r]]) for r in np.flatnonzero(np.array(wrong, bool)[codes]).tolist())
        if "train" not in map(part_of, names):
            yield Flaw(None, f"{table.columns.path}: column {table.split!r} puts no row in 'train'")
        try:
            renamed(names)
        except ValueError as error:
            yield Flaw(None, f"{table.columns.path}: column {table.split!r}: {error}")
    try:
        _ = table.weights
    except ValueError as error:
        yield Flaw(None, str(error))
    if table.group in table.columns:
        empty = (~table.columns.filled(table.group)).nonzero().flatten().tolist()
        yield from (Flaw(r, f"has no {table.group}") for r in empty)
    if table.present is not None and len(table.present) == len(table.readers):
        nothing = ~torch.stack(list(table.present.values())).any(0)
        yield from (Flaw(r, "lacks every modality") for r in nothing.nonzero().flatten().tolist())


def without_label(table: Table) -> str:
    """The message for a table whose column of labels is not there."""
    unknown = did_you_mean("column", table.label_columns[0], table.columns.names)
    return f"{table.columns.path}: {unknown} Name the column of the labels: label=... (--data.label COLUMN)."
