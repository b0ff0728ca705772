"""Columns of a table that make one modality: what each holds, and what is worth saying of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from .columns import Columns
from .readers import Tabular
from .readers.guessing import MISSING, is_number, looks

if TYPE_CHECKING:
    from .table import Table

FEW = 10
"""Whole numbers of so many different values, or fewer, may be categories."""


def decided(modality: str, reader: Tabular, columns: Columns, roles: Mapping[str, str]) -> tuple[Tabular, list[str]]:
    """The reader that says of each column whether it holds numbers or categories, and what was guessed for that.

    Args:
        modality: its name.
        reader: of the modality.
        columns: of the table.
        roles: columns that are no features, as those of labels -> what they are.

    Raises:
        ValueError: a column that is not there, or is none of the samples' own; a name that a column has already.
    """
    named = reader.columns or [modality]
    for name in named:
        columns.require(name)
        if name in roles:
            raise ValueError(f"{modality}: column {name!r} is that of {roles[name]}, and no feature.")
    if modality in columns and named != [modality]:
        raise ValueError(f"modality {modality!r} of several columns needs a name that no column of the table has.")
    numbers, categories, said = [*(reader.numbers or ())], [*(reader.categories or ())], []
    for name in (n for n in named if n not in numbers and n not in categories):
        number, note = kind_of(columns, name)
        (numbers if number else categories).append(name)
        said += [f"{modality}: {note}"] if note else []
    return Tabular(named, numbers, categories, reader.fitted), said


def kind_of(columns: Columns, name: str) -> tuple[bool, str]:
    """Whether a column holds numbers, and what to say of it where it may be otherwise."""
    cells = [cell for cell in columns.some(name, 1000) if cell.casefold() not in MISSING]
    if not cells:
        raise ValueError(f"{columns.path}: column {name!r} has no value in any row; leave it out.")
    numbers = [cell for cell in cells if is_number(cell)]
    if len(numbers) < 0.9 * len(cells):  # one misspelt number is reported as what it is
        odd = next(cell for cell in cells if not is_number(cell))
        if looks(odd, columns.folder) == "number" and len(set(cells)) > FEW:
            raise ValueError(
                f"{columns.path}: column {name!r} holds dates, or numbers that are written otherwise, as {odd!r}. "
                "Write 1234.5, or name it among the categories, or leave it out."
            )
        return False, ""
    different = {float(cell) for cell in numbers}
    if any(re.match(r"[+-]?0\d", cell) for cell in numbers):
        return False, f"{name} is taken as categories, since {numbers[0]!r} is written as names are"
    if 2 < len(different) <= FEW and all(number.is_integer() for number in different):
        return (
            True,
            f"{name}: {len(different)} whole numbers are taken as a number; categories can say otherwise",
        )
    return True, ""


def notes_of(table: Table) -> Iterator[str]:
    """What there is to say of columns that are read together."""
    for m, reader in table.readers.items():
        if not isinstance(reader, Tabular):
            continue
        kinds = (("numbers", reader.numeric), ("categories", reader.categorical))
        yield f"{m}: " + "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds if names)
        for name in reader.numeric:
            yield from _missing(table.columns, m, name)
        with suppress(ValueError):  # what keeps the table from being split is a flaw of its own
            train = table.rows()["train"]
            for name in reader.columns:
                yield from _of_training(table.columns, m, name, train, name in reader.numeric)


def _missing(columns: Columns, modality: str, name: str) -> Iterator[str]:
    codes, texts = columns.coded(name)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    for text, count in zip(texts.to_pylist(), counts.tolist(), strict=True):
        if text.casefold() in MISSING:
            yield f"{modality}: {name}: {text!r} in {count} rows is a missing number"


def _of_training(columns: Columns, modality: str, name: str, train: np.ndarray, number: bool) -> Iterator[str]:
    """A column that is constant where training reads it, and categories that training has not."""
    codes, texts = columns.coded(name)
    known = np.unique(codes[train])
    if len(known) == 1:
        value = "empty" if known[0] < 0 else repr(texts[int(known[0])].as_py())
        yield f"{modality}: {name} says nothing: it is {value} in every training row"
    unseen = np.flatnonzero(~np.isin(codes, known) & (codes >= 0))
    if not number and len(unseen):
        first = texts[int(codes[unseen[0]])].as_py()
        yield f"{modality}: {name} has categories that training has not in {len(unseen)} rows, as {first!r}"
