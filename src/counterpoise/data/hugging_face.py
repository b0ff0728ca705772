"""Data sets of Hugging Face, by what they say of their columns; their package is not needed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from counterpoise._checks import did_you_mean

from .dataset import from_dataset
from .readers import Audio, Image, Reader, Text
from .split import Splits
from .values import guessed, is_absent, spelt


def from_hf(
    dataset: Any,
    *,
    label: str = "label",
    modalities: Sequence[str] | None = None,
    readers: Mapping[str, Reader | str] | None = None,
    **options: Any,
) -> Splits:
    """A data set from one of Hugging Face's ``datasets``, or from a ``DatasetDict`` of train, validation and test.

    Columns of pictures are read by `Image`, of sounds by `Audio`, of texts by `Text`, which a warning says; lists and
    arrays of numbers are taken as they are. Lone numbers, such as a running index, are inputs only when ``modalities``
    names them. Labels are those of the column, and the names of a ``ClassLabel`` are the classes. A missing value is
    an absent modality.

    Args:
        dataset: what ``load_dataset`` gives, not streamed.
        label: the column of the labels.
        modalities: the columns that are inputs; None takes those above.
        readers: column -> reader, or its name, where another is wanted.
        **options: as in ``from_dataset``.

    Raises:
        ValueError: no such data set, no such column, nothing that could be an input.
    """
    parts = dict(dataset) if isinstance(dataset, Mapping) else {"": dataset}
    for one in parts.values():
        _check(one)
    if not parts:
        raise ValueError("The data set has no parts: an empty dict.")
    features = next(iter(parts.values())).features
    if "labels" not in options:
        _check_alike(parts, label, more=" Name the column of the labels: label=...")
    for name in modalities or ():
        _check_alike(parts, name, "modalities: ")
    unused = {name: why for name, f in features.items() if name != label and (why := _why_not(f))}
    chosen = [n for n in features if n != label and n not in unused] if modalities is None else list(modalities)
    if not chosen:
        why = "; ".join(f"{name!r} is {reason}" for name, reason in unused.items())
        raise ValueError(f"No column could be a modality: {why}. Name them: modalities=[...].")
    for name in chosen if modalities is None else ():
        _check_alike(parts, name)
    read = {m: _reader(features[m], parts, m) for m in chosen}
    read = {m: reader for m, reader in read.items() if reader is not None and m not in (readers or {})}
    said = [f"{m!r} is read by {spelt(reader)}" for m, reader in read.items()]
    if modalities is None:
        said += [f"{name!r} is not used: {why}" for name, why in unused.items()]
    if said:
        warnings.warn(f"{'; '.join(said)}. Say otherwise: modalities=, readers=.", stacklevel=2)
    options = {**_found(parts, chosen, None if "labels" in options else label, features), **options}
    narrow = {part: _narrowed(one, [*chosen, label]) for part, one in parts.items()}
    return from_dataset(
        narrow.get("", narrow),
        label=label,
        modalities=chosen,
        readers={**read, **(readers or {})},
        **options,
    )


def _check(dataset: Any) -> None:
    kind = type(dataset).__name__
    if not isinstance(getattr(dataset, "features", None), Mapping):
        raise ValueError(
            f"from_hf takes a data set of Hugging Face's datasets, which says its features; got {kind}. Any other: "
            "from_dataset(ds)."
        )
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            f"from_hf reads samples by position, to divide, shuffle and resume, and a {kind} only gives them one after "
            "another. Load it without streaming=True."
        )


def _check_alike(parts: Mapping[str, Any], name: str, before: str = "", more: str = "") -> None:
    """ValueError unless all parts have a column of this name, and it means the same in them."""
    having = {part: one.features[name] for part, one in parts.items() if name in one.features}
    if not having:
        known = next(iter(parts.values())).features
        raise ValueError(f"{before}{did_you_mean('column', name, known)}{more}")
    first, feature = next(iter(having.items()))
    for part, one in parts.items():
        if part not in having:
            raise ValueError(
                f"The part {part!r} has no column {name!r}, which {first!r} has (it has "
                f"{', '.join(map(repr, one.features))}). Rename one there, or leave the part out: a dict of the others."
            )
        if _meaning(having[part]) != _meaning(feature):
            raise ValueError(
                f"The column {name!r} is {_said(having[part])} in the part {part!r} and {_said(feature)} in {first!r}. "
                f"Make them alike: dataset.cast_column({name!r}, ...)."
            )


def _meaning(feature: Any) -> tuple[str, list[str] | None]:
    """The kind of a column, and the names of its classes: numbers of classes mean nothing without."""
    return _kind(feature), getattr(feature, "names", None)


def _said(feature: Any) -> str:
    kind, names = _meaning(feature)
    return kind if names is None else f"one of {names}"


def _kind(feature: Any) -> str:
    """``image``, ``audio``, ``text``, ``number``, ``numbers`` or ``other``: by the name of the feature's class."""
    name = type(feature).__name__
    if name in ("Image", "Audio"):
        return name.lower()
    if name == "Value":
        return "text" if "string" in str(feature.dtype) else "number"
    if name == "ClassLabel":
        return "number"
    inner = getattr(feature, "feature", None)
    if name.startswith("Array") or (
        name in ("Sequence", "List", "LargeList") and _kind(inner) in ("number", "numbers")
    ):
        return "numbers"
    return "other"


def _why_not(feature: Any) -> str:
    """Why a column is no input unless it is named; "" when it is one."""
    kind = _kind(feature)
    return "a lone number" if kind == "number" else f"of {type(feature).__name__}" if kind == "other" else ""


def _reader(feature: Any, parts: Mapping[str, Any], name: str) -> Reader | None:
    kind = _kind(feature)
    if kind == "image":
        pictures = (one for whole in parts.values() for one in _first(whole, name))
        return guessed([next(pictures, None)]) or Image()
    return {"audio": Audio, "text": Text}[kind]() if kind in ("audio", "text") else None


def _found(
    parts: Mapping[str, Any], chosen: Sequence[str], label: str | None, features: Mapping[str, Any]
) -> dict[str, Any]:
    """What columns say without reading samples: labels, names of classes, and what is present where that is known."""
    known: dict[str, Any] = {}
    if label is not None and label in features:
        labels = {part: list(one[label]) for part, one in parts.items()}
        known["labels"] = labels.get("", labels)
        if type(features[label]).__name__ == "ClassLabel":
            known["classes"] = features[label].names
    present = {part: {m: _there(one, m, _kind(features[m])) for m in chosen} for part, one in parts.items()}
    if all(mask is not None for masks in present.values() for mask in masks.values()):
        known["present"] = present.get("", present)
    return known


def _there(dataset: Any, name: str, kind: str) -> np.ndarray | None:
    """(n,) bool, which samples have a value; None where only reading them tells."""
    if kind == "text":
        return np.array([not is_absent(text) for text in dataset[name]], bool)
    try:
        complete = dataset.data.column(name).null_count == 0
    except (AttributeError, KeyError):
        return None
    return np.ones(len(dataset), bool) if complete else None


def _first(dataset: Any, name: str) -> Iterator[Any]:
    """What there is of a column in the first few samples."""
    column = _only(dataset, [name])
    yield from (value for i in range(min(len(column), 5)) if (value := column[i][name]) is not None)


def _only(dataset: Any, names: Sequence[str]) -> Any:
    """The data set without the other columns, which would be decoded with every sample."""
    known = [name for name in names if name in dataset.features]
    return dataset.select_columns(known) if hasattr(dataset, "select_columns") else dataset


def _narrowed(dataset: Any, names: Sequence[str]) -> Any:
    """Only these columns, files as their bytes: the readers of this library decode them."""
    dataset = _only(dataset, names)
    for name, feature in dataset.features.items():
        if hasattr(dataset, "cast_column") and _kind(feature) in ("image", "audio"):
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    return dataset
