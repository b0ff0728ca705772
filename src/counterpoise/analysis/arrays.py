"""Results on disk: every dataclass of this package as one ``.npz`` file that needs no pickling."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from counterpoise._files import writing

Result = TypeVar("Result")


def save(path: str | os.PathLike[str], result: Any) -> Path:
    """Write the fields of a result as arrays; a reader never sees half a file.

    Args:
        path: of the file, by custom ``*.npz``; replaced when it exists.
        result: a ``Surface``, ``GradientChanges``, ...
    """
    path = Path(path)
    arrays: dict[str, Any] = {field.name: np.asarray(getattr(result, field.name)) for field in fields(result)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def load(path: str | os.PathLike[str], kind: type[Result]) -> Result:
    """The result of that kind that ``save`` wrote.

    Raises:
        ValueError: when the file holds another kind.
    """
    with np.load(path) as kept:
        wanted = fields(kind)  # pyright: ignore[reportArgumentType]
        missing = [field.name for field in wanted if field.name not in kept]
        if missing:
            raise ValueError(f"{os.fspath(path)} holds no {kind.__name__}: it has no {', '.join(missing)}.")
        values = {field.name: kept[field.name] for field in wanted}
    for field in wanted:
        value = values[field.name]
        if str(field.type).startswith("tuple"):
            values[field.name] = tuple(value.tolist())
        elif value.ndim == 0 and "ndarray" not in str(field.type):
            values[field.name] = value.item()
    return kind(**values)
