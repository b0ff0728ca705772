"""How the columns of a table are read when nobody says it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .columns import Columns
from .readers import READERS, Frames, Image, Reader, Tabular, guess
from .readers.guessing import MISSING, is_number
from .tabular_columns import decided

LOOKED_AT = 1000  # cells of a column
PICTURES = 20  # of which the size is looked at
LARGEST = 224  # edge of a picture that is guessed
REPEATED = 3  # times that a category is there, in the mean
LEVELS = 1000  # categories of a column


class Guess(NamedTuple):
    """What was guessed of a table.

    Attributes:
        readers: modality -> reader.
        ignored: column that is none -> why.
        said: what else there is to say of it.
    """

    readers: dict[str, Reader]
    ignored: dict[str, str]
    said: list[str]


def guessed(columns: Columns, folder: Path, taken: Collection[str], labels: Sequence[str]) -> Guess:
    """A reader for every column that can be read; numbers and categories are one modality together.

    Args:
        columns: of the table.
        folder: that paths are relative to.
        taken: columns that are no modality: labels, ids and the like.
        labels: columns of the labels.
    """
    guess = Guess({}, {}, [])
    features: list[str] = []
    for name in (name for name in columns.names if name not in taken):
        if name in columns.index:
            guess.ignored[name] = "an index of pandas"
        elif kind := columns.other(name, floats=True):
            guess.ignored[name] = f"it holds {kind}"
        elif not _is_feature(columns, name, folder):
            try:
                guess.readers[name], said = reader_of(columns, name, folder)
                guess.said.extend(said)
            except ValueError as error:
                guess.ignored[name] = f"its cells {error}"
        elif reason := _says_nothing(columns, name, labels):
            guess.ignored[name] = reason
        else:
            features.append(name)
    if features:
        modality = next(name for name in ("tabular", "numbers_and_categories") if name not in columns)
        guess.readers[modality], said = decided(modality, Tabular(features), columns, {})
        guess.said.extend(said)
    return guess


def reader_of(
    columns: Columns, name: str, folder: Path, options: Mapping[str, Any] | None = None
) -> tuple[Reader, list[str]]:
    """The reader of one column, and what there is to say of it.

    Args:
        columns: of the table.
        name: of the column.
        folder: that paths are relative to.
        options: of the reader, where they are known.

    Raises:
        ValueError: no reader fits; the message says why, as what the cells do.
    """
    cells = columns.some(name, LOOKED_AT)
    made = READERS[guess(cells, folder)]
    options, said = dict(options or {}), []
    if made in (Image, Frames) and "size" not in options:
        size = picture_size([folder / cell for cell in columns.some(name, PICTURES)])
        if size is not None and size < LARGEST:
            options["size"] = size
            said.append(f"{name}: size {size}, as its pictures have; --data.modalities.{name}.size says otherwise")
    try:
        return made(**options), said
    except TypeError as error:
        raise ValueError(f"are read by {made.__name__}, {str(error).split(') ', 1)[-1]}") from error


def picture_size(pictures: Sequence[Any]) -> int | None:
    """The edge of a square as large as half of these pictures, each of PIL, a file, or the first in a folder.

    To whole pixels up to 32, to a multiple of 8 beyond, and 224 at most; None where none can be read.
    """
    edges = [math.sqrt(width * height) for width, height in map(_size, pictures[:PICTURES]) if width]
    if not edges:
        return None
    edge = statistics.median(edges)
    return min(LARGEST, max(1, round(edge)) if edge <= 32 else 8 * round(edge / 8))


def _size(picture: Any) -> tuple[int, int]:
    """Width and height; zeros for what cannot be read, which is reported where it is."""
    from PIL import Image as Pillow

    if isinstance(picture, Pillow.Image):
        return picture.size
    path = Path(picture)
    try:
        inside = sorted(file for file in path.iterdir() if file.suffix) if path.is_dir() else [path]
        with Pillow.open(inside[0]) as opened:
            return opened.size
    except (OSError, ValueError, IndexError):
        return 0, 0


def _is_feature(columns: Columns, name: str, folder: Path) -> bool:
    """Whether a column holds numbers, or categories: short texts, most of one word, each there several times."""
    cells = [cell for cell in columns.some(name, LOOKED_AT) if cell.casefold() not in MISSING]
    if not cells or sum(map(is_number, cells)) >= 0.9 * len(cells):
        return bool(cells)
    words = [len(cell.split()) for cell in cells]
    short = max(words) <= 3 and max(map(len, cells)) <= 40 and 2 * words.count(1) > len(words)
    if not short or REPEATED * len(set(cells)) > len(cells) or len(columns.coded(name).texts) > LEVELS:
        return False
    with suppress(ValueError):  # files, dates
        return guess(cells, folder) == "text"
    return False


def _says_nothing(columns: Columns, name: str, labels: Sequence[str]) -> str:
    """Why a column of numbers or categories is none of a sample's features; empty when it may be one."""
    codes, texts = columns.coded(name)
    filled = codes >= 0
    if len(texts) == 1:
        return f"every cell is {texts[0].as_py()!r}"
    if len(texts) == filled.sum() and all(
        is_number(c) and float(c).is_integer() for c in columns.some(name, LOOKED_AT)
    ):
        return "its whole numbers are all different, as ids are"
    for label in (label for label in labels if label in columns):
        classes = columns.coded(label).codes
        both = filled & (classes >= 0)
        pairs = np.unique(np.stack([codes[both], classes[both]]), axis=1).shape[1]
        if pairs == len(texts) and both.sum() >= len(texts) + 10 and len(np.unique(classes[both])) > 1:
            return f"each of its values goes with one {label} only, so it may have been made of that"
    return ""
