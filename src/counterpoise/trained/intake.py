"""One modality of one sample, as users hold it, to the tensor that its encoder gets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise.data import values as of_memory
from counterpoise.data.columns import BETWEEN
from counterpoise.data.readers import Array, Reader, ReadError, Tabular
from counterpoise.data.readers.base import all_finite
from counterpoise.data.samples import Collate
from counterpoise.portable import Input


def is_absent(value: Any) -> bool:
    """Whether a value stands for nothing: as in memory, and columns that are one modality where all of them do."""
    return all(map(is_absent, value.values())) if isinstance(value, Mapping) else of_memory.is_absent(value)


def columns_of(reader: Reader | None) -> tuple[str, ...]:
    """The columns that a reader takes together; none of one that takes a single value."""
    return tuple(reader.columns) if isinstance(reader, Tabular) else ()


def typed(reader: Reader | None, text: str) -> Any:
    """What was typed, as its reader takes it; several columns come as JSON.

    Raises:
        ValueError: they do not.
    """
    if not isinstance(reader, Tabular):
        return text
    try:
        columns = json.loads(text)
    except ValueError:
        columns = None
    if isinstance(columns, dict):
        return columns
    if len(reader.columns) == 1:
        return text
    raise ValueError(f'takes its columns, as \'{{"age": 71, "sex": "f"}}\'; got {text!r}.')


def _cell(reader: Tabular, values: Mapping[str, Any]) -> str:
    """Columns as the cell that a table makes of them."""
    for name in values:
        if name not in reader.columns:
            raise ValueError(did_you_mean("column", name, reader.columns))
    return BETWEEN.join(_text(values.get(name), name in reader.numeric) for name in reader.columns)


def _text(value: Any, number: bool) -> str:
    if is_absent(value):
        return ""
    if isinstance(value, bool | np.bool_) and number:
        return str(int(value))
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value).replace(BETWEEN, " ").strip()


class Intake:
    """Makes samples of one modality.

    A tensor is what the encoder gets, and stays as it is; any other value goes through the reader. Where the model was
    trained on tensors there is none, and arrays and lists of numbers are taken like tensors, names of ``.npy`` files
    for what they hold.

    Args:
        modality: its name.
        described: what its samples were in training.
        reader: what made them; None where they came as tensors.
        collate: what makes one tensor of several; None stacks them.
    """

    def __init__(self, modality: str, described: Input, reader: Reader | None, collate: Collate | None = None):
        self.modality, self.reader, self.collate = modality, reader, collate
        self.shape = None if described.shape is None else tuple(described.shape)
        self.dtype = described.of_torch

    def sample(self, value: Any, folder: Path) -> Tensor:
        """The tensor of one value that is not absent.

        Args:
            value: as a user holds it.
            folder: what paths are relative to.

        Raises:
            ReadError: a file that is not there or damaged.
            TypeError: a value that is not taken here.
            ValueError: of another shape, or not finite.
        """
        if isinstance(value, Tensor):
            return self._checked(value, "a tensor")
        if self.reader is not None:
            return self._read(self.reader, value, folder)
        if isinstance(value, str | Path):
            return self._checked(Array().read(str(folder / value)), str(value))
        return self._checked(self._numbers(value), type(value).__name__)

    def _read(self, reader: Reader, value: Any, folder: Path) -> Tensor:
        if isinstance(reader, Tabular):
            columns = value if isinstance(value, Mapping) else dict.fromkeys(reader.columns, value)
            if columns is not value and len(columns) > 1:
                raise TypeError(f"it is read from the columns {', '.join(columns)}, as a dict; got {value!r:.60}")
            x = reader.read(_cell(reader, columns))
        else:
            a_file = reader.reads_files and isinstance(value, str | Path)
            x = reader.read(str(folder / value) if a_file else value)
        if not all_finite(x):
            raise ReadError(str(value), "holds NaN or infinity")
        return x

    def _numbers(self, value: Any) -> Tensor:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(f"it must be an array of numbers: {error}") from error
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"the model was trained on tensors of shape {self.shape}, without a reader, so it takes arrays of "
                f"numbers; got {type(value).__name__}"
            )
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())

    def _checked(self, x: Tensor, what: str) -> Tensor:
        x = x.detach().cpu()
        if self.dtype.is_floating_point and x.dtype == torch.uint8:
            raise TypeError(f"{what} of uint8 where the model was trained on {self.dtype}; scale it as in training")
        if x.is_floating_point() and not self.dtype.is_floating_point:
            raise TypeError(f"{what} of {x.dtype} where the model was trained on whole numbers ({self.dtype})")
        if self.shape is not None and tuple(x.shape) != self.shape:
            raise ValueError(f"{what} of shape {tuple(x.shape)}; a sample has shape {self.shape}")
        if not all_finite(x):
            raise ValueError(f"{what} with NaN or infinity; leave it out where it is absent")
        return x.to(self.dtype)


def intakes(
    modalities: Mapping[str, Input], readers: Mapping[str, Reader], collates: Mapping[str, Collate]
) -> dict[str, Intake]:
    """One for each modality."""
    return {m: Intake(m, described, readers.get(m), collates.get(m)) for m, described in modalities.items()}
