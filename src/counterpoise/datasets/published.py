"""Published numbers on the data sets, each with what is known of how it came about: facts, not claims of ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

from counterpoise._checks import did_you_mean


@dataclass(frozen=True)
class Publication:
    """A table of numbers.

    Attributes:
        name: by which it is looked up.
        title: short.
        by: who trained the methods.
        source: where the numbers stand.
        read: ``"source"`` when it was read itself, ``"secondhand"`` when another source gives it.
        selected_on: the part that chose the epoch whose test score is printed: ``"test"``, ``"validation"``,
            ``"not selected"`` or ``"not known"``.
        selection: how that is known.
        seeds: how many runs a number is of.
        split: which samples are in which part.
        encoders: of what.
        remarks: what is odd about the numbers.
        own: rows that are the authors' own method.
    """

    name: str
    title: str
    by: str
    source: str
    read: str
    selected_on: str
    seeds: str
    split: str
    encoders: str
    selection: str = ""
    remarks: str = ""
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    """A published score.

    Attributes:
        value: in per cent.
        sd: its spread over runs, in per cent; None where none is given.
        same_split: the splits of the data set (``Dataset.splits``) with the same samples in the test part.
        publication: where it stands.
    """

    value: float
    sd: float | None
    same_split: tuple[str, ...]
    publication: Publication


def publications() -> tuple[Publication, ...]:
    """Every table, the poster's first."""
    return tuple(_publication(name) for name in _file())


def published(dataset: str) -> dict[str, dict[str, list[Number]]]:
    """Row -> metric -> its published numbers on a data set, in the order of ``publications``.

    Rows that are also recipes have their name (``recipes.names``); the others are methods without one.

    Raises:
        ValueError: for a data set of which no number is known.
    """
    numbers: dict[str, dict[str, list[Number]]] = {}
    for name, content in _file().items():
        of = content["sets"].get(dataset, {"metrics": (), "rows": {}})
        same = tuple(of.get("same_split", ()))
        for row, values in of["rows"].items():
            spread = of.get("sd", {}).get(row, [None] * len(values))
            for metric, value, sd in zip(of["metrics"], values, spread, strict=True):
                numbers.setdefault(row, {}).setdefault(metric, []).append(Number(value, sd, same, _publication(name)))
    if not numbers:
        raise ValueError(did_you_mean("data set", dataset, {s for c in _file().values() for s in c["sets"]}))
    return numbers


@cache
def _publication(name: str) -> Publication:
    content = {**_file()[name], "name": name}
    known = {field.name: content[field.name] for field in fields(Publication) if field.name in content}
    return Publication(**{**known, "own": tuple(content["own"])})


@cache
def _file() -> Mapping[str, Any]:
    import yaml

    path = resources.files("counterpoise.datasets") / "facts" / "published.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))
