"""How much each row of a table counts in the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from .targets import checked_weights

if TYPE_CHECKING:
    from .table import Table


def read_weights(table: Table) -> Tensor | None:
    """(rows,) the weights; None without such a column, and where all are equal. ValueError naming the row."""
    if table.weight not in table.columns:
        return None
    codes, texts = column = table.columns.coded(table.weight)
    name, values = f"column {table.weight!r}", np.full(len(texts) + 1, np.nan)
    for i, cell in enumerate(texts.to_pylist()):
        try:
            values[i] = float(cell)
        except ValueError:
            where = table.place(column.first()[i])
            raise ValueError(f"{where}: {name} must be a number; found {cell!r}.") from None
    if (codes < 0).any():
        raise ValueError(f"{table.place(int((codes < 0).argmax()))} has no {table.weight}.")
    return checked_weights(values[codes], len(table), f"{table.columns.path}: {name}", table.place)
