"""From ``X`` in any form to modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import narwhals
import numpy as np
import torch
from sklearn.utils.validation import check_array, validate_data
from torch import Tensor

from counterpoise._checks import did_you_mean, misnamed
from counterpoise.data.layout import Layout, layout_of_reader
from counterpoise.data.readers import Reader, ReadError
from counterpoise.data.values import guessed
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
        modalities: modality -> which columns, as names, positions or a slice; None takes all columns as one modality,
            but for columns of texts, names of files or pictures, of which each is a modality by itself.
        reset: note what there is, as ``fit`` does.

    Raises:
        ValueError: in the words of scikit-learn, or naming the modality.
    """
    if isinstance(X, Bundle):
        return _of_bundle(estimator, X, modalities, reset=reset)
    if (frame := _frame_of_more_than_numbers(X)) is not None:
        return _of_frame(estimator, frame, modalities, reset=reset)
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


def _frame_of_more_than_numbers(X: Any) -> Any | None:
    """A data frame some columns of which are no numbers, in the words of narwhals; None for all else."""
    frame = narwhals.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, narwhals.DataFrame) or not all(isinstance(name, str) for name in frame.columns):
        return None
    return None if all(_numeric(frame, name) for name in frame.columns) else frame


def _numeric(frame: Any, name: str) -> bool:
    dtype = frame[name].dtype
    return dtype.is_numeric() or dtype == narwhals.Boolean


def _of_frame(estimator: Any, frame: Any, modalities: Mapping[str, Any] | None, *, reset: bool) -> Inputs:
    """The columns as a bundle: those of numbers side by side, another one as values that a reader takes."""
    names = list(frame.columns)
    of_numbers = [name for name in names if _numeric(frame, name)]
    if reset:
        estimator.n_features_in_, estimator.feature_names_in_ = len(names), np.array(names, object)
    elif names != list(estimator.feature_names_in_):
        raise ValueError(f"X must have the columns of fit, {', '.join(estimator.feature_names_in_)}; it has {names}.")
    if modalities is None:
        columns = {**({ONE: of_numbers} if of_numbers else {}), **{n: [n] for n in names if n not in of_numbers}}
    else:
        positions = _positions(modalities, estimator.feature_names_in_, len(names))
        columns = {m: [names[i] for i in listed] for m, listed in positions.items()}
    values: dict[str, Any] = {}
    for m, chosen in columns.items():
        others = [name for name in chosen if name not in of_numbers]
        if others and len(chosen) > 1:
            raise ValueError(
                f"modalities[{m!r}]: column {others[0]!r} holds no numbers, so it must be a modality by itself (texts, "
                "names of files), or become numbers first: put a ColumnTransformer with OneHotEncoder in front."
            )
        values[m] = frame[others[0]].to_list() if others else frame[chosen].to_numpy()
    return _read_all(estimator, Bundle(values), reset=reset)


def _of_bundle(estimator: Any, X: Bundle, modalities: Mapping[str, Any] | None, *, reset: bool) -> Inputs:
    if modalities is not None:
        raise ValueError("modalities= is for arrays and data frames; a Bundle names its modalities itself.")
    names = list(X.modalities)
    if reset:
        estimator.n_features_in_, estimator.modalities_in_ = len(names), names
    elif names != estimator.modalities_in_:
        raise ValueError(f"X must have the modalities of fit, {', '.join(estimator.modalities_in_)}; it has {names}.")
    return _read_all(estimator, X, reset=reset)


def _read_all(estimator: Any, X: Bundle, *, reset: bool) -> Inputs:
    values, present = {}, {m: torch.from_numpy(mask) for m, mask in X.present.items()}
    layouts: dict[str, Layout] = {}
    if reset:
        estimator.readers_ = {m: _reader(m, column) for m, column in X.modalities.items() if column.dtype == object}
    for m, column in X.modalities.items():
        if m in estimator.readers_:
            values[m], layouts[m] = _read(m, estimator.readers_[m], column)
            continue
        flat = column.reshape(len(column), -1)
        if m in X.present:
            flat = np.where(X.present[m][:, None], flat, 0)
        flat = numbers(flat, dtype=np.float32, input_name=m)
        values[m] = torch.from_numpy(flat.reshape(column.shape) if column.ndim > 1 else flat)
    return Inputs(values, present, layouts)


def _reader(modality: str, column: np.ndarray) -> Reader:
    """What reads the values of a modality: texts, names of files, or pictures of PIL."""
    reader = guessed([*column])
    if reader is None:
        kinds = sorted({type(value).__name__ for value in column if value is not None})
        raise ValueError(f"{modality!r} must be numbers, texts, names of files or pictures; it holds {kinds}.")
    if reader.shape is None:
        reader.bind(next(value for value in column if value is not None))
    return reader


def _read(modality: str, reader: Reader, column: np.ndarray) -> tuple[Tensor, Layout]:
    """What a reader makes of all values, zeros where there is none."""
    layout = layout_of_reader(modality, reader)
    read = torch.zeros(len(column), *layout.shape, dtype=reader.dtype)
    for row, value in enumerate(column):
        if value is not None:
            try:
                read[row] = reader.read(value)
            except ReadError as error:
                raise ReadError(f"X[{modality!r}], sample {row}: {error.cell}", error.reason) from error
    return read, layout
