"""From ``X`` in any form to modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from counterpoise._checks import did_you_mean, misnamed
from counterpoise.data.layout import Layout, layout_of_reader
from counterpoise.data.readers import Text
from counterpoise.estimators.bundle import Bundle

ONE = "X"
"""The only modality of an array without a map of its columns."""


class Inputs(NamedTuple):
    """Modalities of some samples.

    Attributes:
        values: modality -> (n, ...) tensor; rows of absent samples are zero.
        present: modality -> (n,) bool, where some sample lacks it.
        layouts: modality -> what it looks like, where that is not read off the values.
    """

    values: dict[str, Tensor]
    present: dict[str, Tensor]
    layouts: Mapping[str, Layout] = {}

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def inputs_of(estimator: Any, X: Any, modalities: Mapping[str, Any] | None, *, reset: bool) -> Inputs:
    """The modalities of ``X``, held against what ``fit`` saw unless ``reset``.

    Args:
        estimator: that notes the number and names of the features.
        X: a ``Bundle``, a data frame, or (n, columns) numbers.
        modalities: modality -> which columns, as names, positions or a slice; None takes all columns as one modality.
        reset: note what there is, as ``fit`` does.

    Raises:
        ValueError: in the words of scikit-learn, or naming the modality.
    """
    if isinstance(X, Bundle):
        return _of_bundle(estimator, X, modalities, reset=reset)
    array: Any = validate_data(estimator, X, dtype=np.float32, reset=reset)
    names = getattr(estimator, "feature_names_in_", None)
    columns = {ONE: slice(None)} if modalities is None else _positions(modalities, names, array.shape[1])
    return Inputs({m: torch.from_numpy(np.ascontiguousarray(array[:, where])) for m, where in columns.items()}, {})


def numbers(values: Any, **options: Any) -> np.ndarray:
    """What scikit-learn's ``check_array`` makes of values, by its options; ValueError in its words."""
    check: Any = check_array  # its annotations are those of its defaults
    return check(values, **options)


def _positions(modalities: Mapping[str, Any], names: np.ndarray | None, width: int) -> dict[str, Any]:
    """Modality -> positions of its columns; a column that no modality has, and one that two have, is an error."""
    if not isinstance(modalities, Mapping) or not modalities:
        raise ValueError(f"modalities must map names to columns, as {{'audio': slice(0, 20)}}; got {modalities!r}.")
    place = {} if names is None else {str(name): i for i, name in enumerate(names)}
    positions: dict[str, Any] = {}
    for m, columns in modalities.items():
        if wrong := misnamed(m):
            raise ValueError(wrong)
        listed = range(width)[columns] if isinstance(columns, slice) else _listed(columns)
        positions[m] = [_position(m, column, place, width) for column in listed]
        if not positions[m]:
            raise ValueError(f"modalities[{m!r}] must name at least one column; got {columns!r}.")
    used = [column for columns in positions.values() for column in columns]
    twice = next((column for column in used if used.count(column) > 1), None)
    left = sorted(set(range(width)) - set(used))
    if twice is not None or left:
        which = f"column {twice} is in two" if twice is not None else f"columns {left} are in none"
        raise ValueError(f"modalities must divide the {width} columns; {which}. Drop columns from X to leave them out.")
    return positions


def _listed(columns: Any) -> list[Any]:
    return [columns] if isinstance(columns, str | int) else list(columns)


def _position(modality: str, column: Any, place: Mapping[str, int], width: int) -> int:
    if isinstance(column, str):
        if column not in place:
            known = "" if place else " X has no column names: pass a data frame, or positions."
            raise ValueError(f"modalities[{modality!r}]: " + did_you_mean("column", column, place) + known)
        return place[column]
    if isinstance(column, bool) or not isinstance(column, int | np.integer) or not -width <= column < width:
        raise ValueError(f"modalities[{modality!r}]: columns are 0 to {width - 1}; got {column!r}.")
    return int(column) % width


def _of_bundle(estimator: Any, X: Bundle, modalities: Mapping[str, Any] | None, *, reset: bool) -> Inputs:
    if modalities is not None:
        raise ValueError("modalities= is for arrays and data frames; a Bundle names its modalities itself.")
    names = list(X.modalities)
    if reset:
        estimator.n_features_in_, estimator.modalities_in_ = len(names), names
    elif names != estimator.modalities_in_:
        raise ValueError(f"X must have the modalities of fit, {', '.join(estimator.modalities_in_)}; it has {names}.")
    values, present = {}, {m: torch.from_numpy(mask) for m, mask in X.present.items()}
    layouts: dict[str, Layout] = {}
    for m, column in X.modalities.items():
        if column.dtype == object:
            values[m], layouts[m] = _texts(m, column)
            continue
        flat = column.reshape(len(column), -1)
        if m in X.present:
            flat = np.where(X.present[m][:, None], flat, 0)
        flat = numbers(flat, dtype=np.float32, input_name=m)
        values[m] = torch.from_numpy(flat.reshape(column.shape) if column.ndim > 1 else flat)
    return Inputs(values, present, layouts)


def _texts(modality: str, column: np.ndarray) -> tuple[Tensor, Layout]:
    """The token numbers of texts, zeros where there is none."""
    reader = Text()
    wrong = next((value for value in column if value is not None and not isinstance(value, str)), None)
    if wrong is not None:
        raise ValueError(f"{modality!r} must be numbers or texts; it holds {type(wrong).__name__}.")
    layout = layout_of_reader(modality, reader)
    tokens = torch.zeros(len(column), *layout.shape, dtype=torch.int64)
    for row, value in enumerate(column):
        if value is not None:
            tokens[row] = reader.read(value)
    return tokens, layout
