"""Labels and split names as users write them, turned into numbers and positions."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from counterpoise._checks import choice, did_you_mean

PARTS = ("train", "val", "test")
SCALE = 10
"""Scales on which people rate seldom have more steps."""
_SYNONYMS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "development": "val"}
_SYNONYMS |= {"testing": "test"}


def part_of(name: str) -> str | None:
    """The part that a name of a split means, in whatever case; None for no part."""
    folded = name.casefold()
    return folded if folded in PARTS else _SYNONYMS.get(folded)


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Those names of splits that are not the part's own, and the part that each is read as.

    Raises:
        ValueError: two words mean one part, as ``val`` and ``dev``: who wrote both means two parts.
    """
    parts = {name: part for name in names if (part := part_of(name)) is not None}
    for part in PARTS:
        words = sorted({name.casefold() for name, other in parts.items() if other == part})
        if len(words) > 1:
            raise ValueError(f"{' and '.join(map(repr, words))} both mean {part!r}; use one name for each part.")
    return {name: part for name, part in parts.items() if name != part}


def alike(classes: Iterable[str]) -> list[str]:
    """A line for class names that differ by case or by the code of the same letters only, as "Happy" and "happy"."""
    same: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        same[unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())].append(name)
    lines = []
    for names in filter(lambda names: len(names) > 1, same.values()):
        spelt = repr if len({unicodedata.normalize("NFKC", name) for name in names}) == len(names) else ascii
        lines.append(f"{' and '.join(map(spelt, sorted(names)))} are classes of their own")
    return lines


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts "2" before "10" and "class2" before "class10"."""
    pieces = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in pieces)


def is_whole(name: str) -> bool:
    """Whether a class name is an integer."""
    return re.fullmatch(r"[+-]?\d+", name) is not None


def doubtful(numbers: Collection[float]) -> bool:
    """Whether different numbers may be names of classes, or numbers to predict.

    Two are classes. So are 0, 1, 2, ... without a hole, as classes are numbered, and 1, 2, 3, ... when they are more
    than ``SCALE``.
    """
    ordered, count = sorted(numbers), len(numbers)
    numbered = ordered == list(range(count)) or (count > SCALE and ordered == list(range(1, count + 1)))
    return count > 2 and not numbered


def undecided(where: str, numbers: Collection[float]) -> str:
    """The message for numbers that are ``doubtful``."""
    return (
        f"{where} holds {len(numbers)} different numbers, from {min(numbers):g} to {max(numbers):g}: they may be "
        "classes or numbers to predict. Say which: task='single-label' or task='regression' (--data.task single-label, "
        "--data.task regression)."
    )


def plain_array(values: Any, name: str) -> np.ndarray:
    """As a NumPy array; ValueError for what would lose something: masks, and tensors that are not dense integers."""
    if np.ma.is_masked(values):
        first = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(f"{name} has masked values, the first in sample {first}; pass the samples that have one.")
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.layout) != "torch.strided" or values.is_floating_point() or values.is_complex():
            raise ValueError(
                f"{name} must be integers or strings; got a {str(values.layout).removeprefix('torch.')} tensor of "
                f"{values.dtype}. For class numbers pass y.long(), to predict numbers task='regression'."
            )
    return np.asarray(values)


def encode(
    labels: Any,
    classes: Sequence[str] | None = None,
    *,
    name: str = "y",
    place: Callable[[int], str] = "sample {}".format,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels to class numbers.

    Without ``classes`` the classes are the distinct labels: integers in numeric order, strings in
    natural order. With it, a label is looked up by name; integers among class names that are not
    all integers themselves are class numbers.

    Args:
        labels: (n,) integers, booleans or strings.
        classes: class names in order, when they are known (a trained model's).
        name: what to call the labels in messages.
        place: how messages name a position.

    Returns:
        (n,) int64 class numbers, and the class names.

    Raises:
        ValueError: not one-dimensional, floats, missing labels, a label that is no class, repeated class names.
    """
    if labels is None:
        raise ValueError(f"{name} must be one label per sample; got None.")
    values = plain_array(labels, name)
    if values.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, one label per sample; got shape {values.shape}. "
            "For zeros and ones, a column per label, pass task='multi-label'; for columns of numbers, "
            "task='regression'."
        )
    if values.dtype == object:
        values = _plain(values, name)
    if values.dtype.kind == "b":
        values = values.astype(np.int64)
    if values.dtype.kind not in "iuU":
        raise ValueError(
            f"{name} must be integers or strings; got {values.dtype}. To predict numbers pass task='regression'; for "
            "class numbers y.astype(int)."
        )
    distinct, number = np.unique(values, return_inverse=True)
    number = number.reshape(-1)
    texts = [str(v) for v in distinct.tolist()]
    if classes is None:
        key = (lambda i: int(distinct[i])) if values.dtype.kind in "iu" else (lambda i: natural(texts[i]))
        order = np.array(sorted(range(len(texts)), key=key), np.int64)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        return rank[number], tuple(texts[i] for i in order)
    known = tuple(str(c) for c in classes)
    if len(set(known)) != len(known):
        raise ValueError(f"classes must be distinct; got {list(known)}.")
    return _among(known, values, distinct, number, f"{name}: ", place), known


def _among(
    known: Sequence[str],
    values: np.ndarray,
    distinct: np.ndarray,
    number: np.ndarray,
    name: str,
    place: Callable[[int], str],
) -> np.ndarray:
    """Class numbers of labels among known classes.

    Args:
        known: names of the classes.
        values: (n,) the labels.
        distinct: (k,) each of them once.
        number: (n,) which of ``distinct`` each label is.
        name: what messages begin with.
        place: how they name a position.
    """
    if values.dtype.kind in "iu" and not all(map(is_whole, known)):
        outside = [v for v in distinct.tolist() if not 0 <= v < len(known)]
        if outside:
            raise ValueError(
                f"{name}label {outside[0]} ({place(int(np.argmax(values == outside[0])))}) is out of range "
                f"for {len(known)} classes; class numbers are 0..{len(known) - 1}."
            )
        return values.astype(np.int64)
    where = {c: i for i, c in enumerate(known)}
    texts = [str(value) for value in distinct.tolist()]
    for text, value in zip(texts, distinct, strict=True):
        if text not in where:
            raise ValueError(f"{name}{place(int(np.argmax(values == value)))}: " + did_you_mean("class", text, known))
    return np.array([where[t] for t in texts], np.int64)[number]


def _plain(values: np.ndarray, name: str) -> np.ndarray:
    kinds = {type(v) for v in values}
    if kinds <= {str, np.str_}:
        return values.astype(str)
    if all(issubclass(k, (int, np.integer)) for k in kinds):
        return values.astype(np.int64)
    missing = [i for i, v in enumerate(values) if v is None or v != v]
    if missing:
        raise ValueError(f"{name}: sample {missing[0]} has no label ({len(missing)} missing in all).")
    raise ValueError(f"{name} must be all integers or all strings; got {', '.join(sorted(k.__name__ for k in kinds))}.")


def at_least_two(classes: Sequence[str], name: str = "y") -> None:
    """ValueError when there is nothing to tell apart."""
    if len(classes) < 2:
        raise ValueError(
            f"{name} has one class only ({', '.join(classes) or 'none'}); classification needs at least 2."
        )


def parts(split: Any, size: int, *, name: str = "split") -> dict[str, np.ndarray]:
    """Part name -> ascending positions, from one name per sample; parts without samples are left out."""
    names = plain_array(split, name)
    if names.shape != (size,):
        raise ValueError(f"{name} must have one entry per sample: {size} samples, shape {names.shape}.")
    texts = names.astype(str)
    values = np.unique(texts).tolist()
    for value in values:
        if part_of(value) is None:
            row = int(np.flatnonzero(texts == value)[0])
            raise ValueError(f"{name}: sample {row}: " + did_you_mean("split", value, PARTS))
    try:
        others = renamed(values)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if others:
        warnings.warn(f"{name}: " + ", ".join(f"{n!r} is read as {p!r}" for n, p in others.items()), stacklevel=5)
    of = {part: [value for value in values if part_of(value) == part] for part in PARTS}
    return {part: np.flatnonzero(np.isin(texts, words)) for part, words in of.items() if words}


def unknown_split(cell: str | None) -> str:
    """What is wrong with a cell of the column ``split`` that names no part."""
    if cell is None:
        return "has no split"
    try:
        choice("split", cell, PARTS)
    except ValueError as error:
        return f"is in no part: {error}"
    return ""
