"""What the label columns of a table hold: one class, label sets or numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise.task import MultiLabel, Regression, SingleLabel, Task

from .labels import SCALE, doubtful, encode, is_whole, natural, undecided

if TYPE_CHECKING:
    from .table import Table

BAR = "|"
"""Stands between the labels of a cell; alone it is a sample without any label."""
YES = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0}


class Labels(NamedTuple):
    """The labels of a table.

    Attributes:
        target: of every row, as the task has it; -1 or NaN where there is none.
        task: what is predicted; numbers are not standardised yet.
        missing: (rows,) bool, where there is no label.
        note: how the task was guessed; "" when it was stated or there was nothing to guess.
    """

    target: Tensor
    task: Task
    missing: Tensor
    note: str = ""


def read_labels(table: Table) -> Labels:
    """The labels of every row; ValueError naming the row that has none of the task."""
    there = [name for name in table.label_columns if name in table.columns]
    if not there:
        return _without(table)
    for name in table.label_columns:
        table.columns.require(name)
    kind, note = (table.task.kind, "") if isinstance(table.task, Task) else (table.task, "")
    if kind is None:
        kind, note = _guess(table)
        note = note and f"label: {note}; say otherwise by task=... (--data.task)"
    if kind == SingleLabel.kind:
        return _classes(table, note)
    labels = (_label_sets if kind == MultiLabel.kind and len(there) == 1 else _columns)(table, str(kind))
    return labels._replace(note=note)


def _guess(table: Table) -> tuple[str, str]:
    """The kind of task that the cells look like, and what to say of it; ValueError where it may be one or another."""
    columns = [table.columns.coded(name) for name in table.label_columns]
    cells = [cell for column in columns for cell in column.texts.to_pylist()]
    if len(columns) > 1:
        if all(cell.casefold() in YES for cell in cells):
            return MultiLabel.kind, f"{len(columns)} columns of zeros and ones are taken as labels (multi-label)"
        return Regression.kind, f"{len(columns)} columns are taken as numbers (regression)"
    if any(BAR in cell for cell in cells):
        return MultiLabel.kind, f"cells with {BAR} are taken as sets of labels (multi-label)"
    read = [_number(cell) for cell in cells]
    numbers = {number for number in read if number is not None}
    named = None in read or len(table.classes or ()) > 1 or any(map(_padded, cells))
    if named or not doubtful(numbers):
        counted = f"whole numbers from 1 to {len(numbers)} are taken as classes (single-label)"
        return SingleLabel.kind, counted if not named and min(numbers, default=0) == 1 and len(numbers) > 2 else ""
    often = int((columns[0].codes >= 0).sum()) / len(numbers)  # classes are there more than once
    if len(numbers) > SCALE and (often < 2 or not all(map(is_whole, cells))):
        return Regression.kind, f"{len(numbers)} different numbers are taken as numbers (regression)"
    raise ValueError(undecided(f"{table.columns.path}: column {table.label_columns[0]!r}", numbers))


def _padded(cell: str) -> bool:
    """Whether it is a number written as names are: 007."""
    return re.match(r"[+-]?0\d", cell) is not None


def _without(table: Table) -> Labels:
    names, nobody = tuple(table.classes or ()), torch.ones(len(table), dtype=torch.bool)
    kind = table.task.kind if isinstance(table.task, Task) else table.task or SingleLabel.kind
    if kind == SingleLabel.kind:
        return Labels(torch.full((len(table),), -1, dtype=torch.int32), SingleLabel(names), nobody)
    task = table.task if isinstance(table.task, Task) else {MultiLabel.kind: MultiLabel}.get(kind, Regression)(names)
    return Labels(torch.full((len(table), task.width), math.nan), task, nobody)


def _classes(table: Table, note: str) -> Labels:
    name, *more = table.label_columns
    if more:
        raise ValueError(
            f"label: one class of several is read from one column; got {len(table.label_columns)}. For a column of "
            "zeros and ones per label pass task='multi-label', for columns of numbers 'regression'."
        )
    codes, texts = column = table.columns.coded(name)
    values = np.array(texts.to_pylist(), dtype=str)
    if len(values) and all(is_whole(v) and str(int(v)) == v for v in values.tolist()):
        values = values.astype(np.int64)
    place: Callable[[int], str] = lambda i: table.place(column.first()[i])  # noqa: E731
    number, names = encode(values, table.classes, name=f"column {name!r}", place=place)
    target = torch.from_numpy(np.append(number, -1).astype(np.int32)[codes])
    return Labels(target, SingleLabel(names), target < 0, note)


def _label_sets(table: Table, kind: str) -> Labels:
    name, *_ = table.label_columns
    codes, texts = column = table.columns.coded(name)
    sets = [{part.strip() for part in cell.split(BAR) if part.strip()} for cell in texts.to_pylist()]
    distinct = sorted({label for labels in sets for label in labels}, key=natural)
    known = tuple(map(str, table.classes)) if table.classes is not None else tuple(distinct)
    if not known:
        raise ValueError(f"{table.columns.path}: column {name!r} names no label.")
    rows = np.full((len(sets) + 1, len(known)), np.nan, np.float32)
    for place, labels in enumerate(sets):
        for label in labels - set(known):
            where = table.place(column.first()[place])
            raise ValueError(f"column {name!r}: {where}: " + did_you_mean("label", label, known))
        rows[place] = [label in labels for label in known]
    target = torch.from_numpy(rows[codes])
    return Labels(target, MultiLabel(known), target[:, 0].isnan())


def _columns(table: Table, kind: str) -> Labels:
    read = (lambda cell: YES.get(cell.casefold())) if kind == MultiLabel.kind else _number
    what = "0 or 1" if kind == MultiLabel.kind else "a finite number"
    columns = []
    for name in table.label_columns:
        codes, texts = column = table.columns.coded(name)
        values = [read(cell) for cell in texts.to_pylist()]
        for place, (cell, value) in enumerate(zip(texts.to_pylist(), values, strict=True)):
            if value is None:
                where = table.place(column.first()[place])
                raise ValueError(f"column {name!r}: {where}: must be {what}; found {cell!r}.")
        columns.append(np.array([*values, np.nan], np.float64)[codes])
    target = torch.from_numpy(np.stack(columns, 1))
    missing = target.isnan().any(1)
    names = table.classes or table.label_columns
    if kind == MultiLabel.kind:
        return Labels(target.float(), MultiLabel(names), missing)
    return Labels(target, table.task if isinstance(table.task, Task) else Regression(names), missing)


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
