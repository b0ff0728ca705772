"""Several modalities of the same samples as one ``X``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from counterpoise._checks import did_you_mean, misnamed, per_modality
from counterpoise.data.values import is_absent


class Bundle:
    """Several modalities of the same samples as one ``X``, which scikit-learn indexes, splits and passes on.

    >>> import numpy as np
    >>> from counterpoise.estimators import Bundle
    >>> X = Bundle({"audio": np.zeros((4, 8)), "note": ["hello", None, "you", "there"]})
    >>> len(X), len(X[[0, 2]]), X[1:]["note"].tolist()
    (4, 2, [None, 'you', 'there'])

    Args:
        modalities: name -> (n, ...) numbers, or n texts, which become numbers of words. None in a list is a sample that
            lacks the modality; the other entries of a list of arrays must be of one shape.
        present: name -> (n,) bool, False where the sample lacks that modality and its row holds anything.

    Attributes:
        shape: samples and modalities.

    Raises:
        ValueError: no modality, different lengths, a name that cannot be one, a mask of another shape.
    """

    def __init__(self, modalities: Mapping[str, Any], present: Mapping[str, Any] | None = None):
        if not isinstance(modalities, Mapping) or not modalities:
            raise ValueError(
                f"Bundle takes modality -> samples, at least one, as {{'audio': A, 'text': texts}}; got {modalities!r}."
            )
        if wrong := next(filter(None, map(misnamed, modalities)), ""):
            raise ValueError(wrong)
        per_modality("present", present or {}, modalities)
        self.modalities: dict[str, np.ndarray] = {}
        self.present: dict[str, np.ndarray] = {}
        for name, values in modalities.items():
            self.modalities[name], there = _column(name, values)
            mask = (present or {}).get(name)
            if mask is not None:
                there = there & _mask(name, mask, len(there))
            if not there.all():
                self.present[name] = there
        lengths = {name: len(values) for name, values in self.modalities.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Bundle: all modalities must have the same samples; their numbers are {lengths}.")

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and modalities."""
        return len(self), len(self.modalities)

    def __getitem__(self, key: Any) -> Any:
        """The values of a modality by its name; a bundle of some samples by positions, a mask or a slice."""
        if isinstance(key, str):
            if key not in self.modalities:
                raise KeyError(did_you_mean("modality", key, self.modalities))
            return self.modalities[key]
        rows = key[0] if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis else key  # X[rows, ...]
        if isinstance(rows, tuple):
            raise IndexError(f"A Bundle is indexed by samples, or by the name of a modality; got {key!r}.")
        if isinstance(rows, int | np.integer):
            rows = [int(rows)]
        rows = rows if isinstance(rows, slice) else np.asarray(rows)
        part = object.__new__(Bundle)
        part.modalities = {name: values[rows] for name, values in self.modalities.items()}
        masks = {name: mask[rows] for name, mask in self.present.items()}
        part.present = {name: mask for name, mask in masks.items() if not mask.all()}
        return part

    def __repr__(self) -> str:
        absent = {name: int((~mask).sum()) for name, mask in self.present.items()}
        each = ", ".join(
            f"{name} {values.dtype}{list(values.shape[1:])}" + (f" absent in {absent[name]}" if name in absent else "")
            for name, values in self.modalities.items()
        )
        return f"Bundle({len(self)} samples: {each})"


def _column(name: str, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """(n, ...) values, and (n,) which of them are there."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    if np.ma.isMaskedArray(values):
        mask = np.ma.getmaskarray(values).reshape(len(values), -1)
        absent = np.asarray(mask.all(1))
        if (mask.any(1) & ~absent).any():
            raise ValueError(f"Bundle: {name!r} has masked values in rows that hold others: fill them.")
        return np.asarray(values.filled(0)), ~absent
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return values, np.ones(len(values), bool)
    if isinstance(values, str) or not (isinstance(values, Sequence | np.ndarray) or hasattr(values, "__array__")):
        raise ValueError(f"Bundle: {name!r} must be an array or a list with a value per sample; got {values!r}.")
    rows = list(values if isinstance(values, Sequence) else np.asarray(values))
    there = np.array([not is_absent(row) for row in rows], bool)
    held = [row for row, is_there in zip(rows, there, strict=True) if is_there]
    if held and all(isinstance(row, np.ndarray | Tensor | list | tuple | int | float | np.number) for row in held):
        return _stacked(name, rows, there), there
    column = np.empty(len(rows), object)
    column[:] = [row if is_there else None for row, is_there in zip(rows, there, strict=True)]
    return column, there


def _stacked(name: str, rows: Sequence[Any], there: np.ndarray) -> np.ndarray:
    arrays = [np.asarray(row) for row, is_there in zip(rows, there, strict=True) if is_there]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        some = " and ".join(map(str, sorted(shapes)[:2]))
        raise ValueError(f"Bundle: samples of {name!r} must be of one shape; found {some}. Pad them to one length.")
    whole = np.zeros((len(rows), *arrays[0].shape), np.result_type(*arrays))
    whole[there] = np.stack(arrays)
    return whole


def _mask(name: str, mask: Any, count: int) -> np.ndarray:
    entries = np.asarray(mask)
    if entries.shape != (count,) or entries.dtype != bool:
        raise ValueError(
            f"present[{name!r}] must be ({count},) booleans; got {entries.dtype} of shape {entries.shape}."
        )
    return entries
