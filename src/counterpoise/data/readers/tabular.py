"""Several columns of a table as one modality: numbers scaled, categories one-hot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import did_you_mean
from counterpoise._extras import require
from counterpoise.data.columns import BETWEEN
from counterpoise.data.readers.base import Reader, ReadError
from counterpoise.data.readers.guessing import MISSING

UNFITTED = "was not fitted to training rows; splits are (table.splits().train.readers), and so are the readers of a run"


class Tabular(Reader):
    """Several columns of a table as one vector.

    First the numbers: each filled where it is missing by the median, and scaled to mean 0 and deviation 1. Then a 1 for
    each number that is missing, of those that were missing in training. Then the categories, one-hot: a level for each
    text that at least two training rows have, the empty one included, and one for all rarer texts. A text that training
    has not counts as one of these; where there are none, as zeros.

    Medians, means, deviations and levels are those of the training rows (`fit`). A row in which every column is empty
    lacks the modality.

    Args:
        columns: names, in order; ``numbers``, then ``categories``, when None. Where there are none, a table takes the
            column that is called as the modality.
        numbers: which of them hold numbers.
        categories: which of them hold categories. A table finds out about columns that are in neither.
        fitted: column -> what was learned from training rows, as ``fit`` gives it: ``fill``, ``mean``, ``scale`` and
            ``missing`` (whether it was) of a number, ``levels`` and ``rare`` (whether there were such) of a category.
            None or {} has it learned.
    """

    kind = "tabular"
    reads_files = False
    repeats = True
    learns = True

    def __init__(
        self,
        columns: list[str] | None = None,
        numbers: list[str] | None = None,
        categories: list[str] | None = None,
        fitted: dict[str, Any] | None = None,
    ):
        require("The reader Tabular", "sklearn")
        stated = [*_names("numbers", numbers), *_names("categories", categories)]
        self.columns = _names("columns", columns) if columns is not None else stated
        for name in stated:
            if name not in self.columns:
                raise ValueError("numbers and categories: " + did_you_mean("column", name, self.columns))
        for names in (stated, self.columns):
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"columns, numbers and categories: {twice[0]!r} is there twice.")
        self.numbers, self.categories = numbers, categories
        self.fitted = {name: dict(fitted[name]) for name in fitted} if fitted else None
        if self.fitted is not None and set(self.fitted) != {*stated} | {*self.columns}:
            raise ValueError(f"fitted must say something of each of {self.columns}; it has {list(self.fitted)}.")

    @property
    def numeric(self) -> list[str]:
        """The columns of numbers, in the order of the columns."""
        return [name for name in self.columns if name in (self.numbers or ())]

    @property
    def categorical(self) -> list[str]:
        """The columns of categories, in the order of the columns."""
        return [name for name in self.columns if name in (self.categories or ())]

    @property
    def shape(self) -> tuple[int, ...] | None:
        return None if self.fitted is None else (self.plain_width + sum(self.levels),)

    @property
    def plain_width(self) -> int:
        """How many numbers a sample begins with, those that say what is missing included."""
        return sum(1 + self._learned[name]["missing"] for name in self.numeric)

    @property
    def levels(self) -> list[int]:
        """How many numbers each category has after these."""
        learned = self._learned
        return [len(learned[name]["levels"]) + learned[name]["rare"] for name in self.categorical]

    @property
    def _learned(self) -> dict[str, Any]:
        if self.fitted is None:
            raise ValueError(f"Tabular({self.columns}) {UNFITTED}")
        return self.fitted

    def load(self, cell: str) -> Tensor:
        if self.fitted is None:
            raise ReadError(cell, UNFITTED)
        values = self.values(cell)
        numbers = [(values[name], self.fitted[name]) for name in self.numeric]
        row = [((of["fill"] if math.isnan(x) else x) - of["mean"]) / of["scale"] for x, of in numbers]
        row += [float(math.isnan(x)) for x, of in numbers if of["missing"]]
        for name in self.categorical:
            row += _one_hot(values[name], self.fitted[name])
        return torch.tensor(row, dtype=torch.float64).to(torch.float32)

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return decoded.clone()

    def problems(self, cell: str) -> str | None:
        try:
            self.values(cell)
        except ReadError as error:
            return error.reason
        return None

    def values(self, cell: str) -> dict[str, Any]:
        """Column -> number, NaN where it is missing, or text, "" where it is missing.

        Raises:
            ReadError: a number is none, or infinite.
        """
        cells = zip(self.columns, cell.split(BETWEEN), strict=True)
        return {name: _number(name, text) if name in (self.numbers or ()) else text for name, text in cells}

    def said(self, cell: str) -> str:
        cells = zip(self.columns, cell.split(BETWEEN), strict=True)
        return ", ".join(f"{name} {text or '(empty)'}" for name, text in cells)

    def fit(self, cells: Sequence[str]) -> Tabular:
        numbers = np.empty((len(cells), len(self.numeric)))
        texts = np.empty((len(cells), len(self.categorical)), object)
        for i, cell in enumerate(cells):
            values = self.values(cell)
            numbers[i] = [values[name] for name in self.numeric]
            texts[i] = [values[name] for name in self.categorical]
        learned = {**_of_numbers(numbers, self.numeric), **_of_categories(texts, self.categorical)}
        return Tabular(self.columns, self.numbers, self.categories, {name: learned[name] for name in self.columns})


def _names(argument: str, names: Sequence[str] | None) -> list[str]:
    if names is None:
        return []
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a list of columns, as ['age', 'sex']; got {names!r}.")
    return list(names)


def _number(column: str, text: str) -> float:
    if text.casefold() in MISSING:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise ReadError(text, f"{column} must be a number or empty; found {text!r}") from None
    if not math.isfinite(value):
        raise ReadError(text, f"{column} must be a finite number or empty; found {text!r}")
    return value


def _one_hot(text: str, of: Mapping[str, Any]) -> list[float]:
    row = [float(text == level) for level in of["levels"]]
    return [*row, float(not any(row))] if of["rare"] else row


def _of_numbers(values: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Column -> what is learned of its numbers, of (rows, columns) with NaN where one is missing."""
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import StandardScaler

    if not names:
        return {}
    imputer: Any = SimpleImputer(strategy="median", keep_empty_features=True).fit(values)
    scaler: Any = StandardScaler().fit(imputer.transform(values))
    gone: Any = np.isnan(values).any(0)
    learned = zip(imputer.statistics_, scaler.mean_, scaler.scale_, gone, strict=True)
    return {
        name: {"fill": float(fill), "mean": float(mean), "scale": float(scale), "missing": bool(missing)}
        for name, (fill, mean, scale, missing) in zip(names, learned, strict=True)
    }


def _of_categories(texts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Column -> its levels, of (rows, columns) texts."""
    from sklearn.preprocessing import OneHotEncoder

    if not names:
        return {}
    encoder: Any = OneHotEncoder(min_frequency=2, handle_unknown="infrequent_if_exist").fit(texts)
    learned: dict[str, Any] = {}
    for name, levels, rare in zip(names, encoder.categories_, encoder.infrequent_categories_, strict=True):
        few = set() if rare is None else set(rare)
        learned[name] = {"levels": [str(text) for text in levels if text not in few], "rare": bool(few)}
    return learned
