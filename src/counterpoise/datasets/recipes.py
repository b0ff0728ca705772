"""Configuration files of a prepared data set: its table, readers and encoders, and how publications train on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "recipes"


def names(dataset: str) -> tuple[str, ...]:
    """The recipes of a data set."""
    return tuple(sorted(file.stem for file in (_FOLDER / dataset).glob("*.yaml")))


def text(dataset: str, name: str, base: Mapping[str, Any]) -> str:
    """A whole configuration as YAML: ``base``, and over it what the recipe says, below the recipe's own comment.

    Args:
        dataset: its name.
        name: one of `names`.
        base: the table, its readers and the encoders.
    """
    import yaml

    recipe = (_FOLDER / dataset / f"{name}.yaml").read_text(encoding="utf-8")
    comment = "".join(line for line in recipe.splitlines(keepends=True) if line.startswith("#"))
    return comment + yaml.safe_dump(merged(base, yaml.safe_load(recipe)), sort_keys=False, width=100)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, at every depth; where both have a value that is no mapping, that of ``over``."""
    result = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], Mapping) and isinstance(over[key], Mapping):
            result[key] = merged(base[key], over[key])
    return result
