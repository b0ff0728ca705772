"""Published data sets: from the raw downloads to a table, with every count checked."""

from __future__ import annotations

from counterpoise._checks import did_you_mean

from .base import Dataset, Excluded, Prepared, Row
from .checks import Check, render
from .cremad import CremaD
from .kinetics_sounds import KineticsSounds
from .nvgesture import NVGesture
from .sarcasm import Sarcasm
from .twitter2015 import Twitter2015

__all__ = [
    "DATASETS",
    "Check",
    "CremaD",
    "Dataset",
    "Excluded",
    "KineticsSounds",
    "NVGesture",
    "Prepared",
    "Row",
    "Sarcasm",
    "Twitter2015",
    "get",
    "render",
]

DATASETS: dict[str, type[Dataset]] = {
    cls.name: cls for cls in (CremaD, KineticsSounds, Twitter2015, Sarcasm, NVGesture)
}


def get(name: str) -> Dataset:
    """A data set by name; ValueError with the nearest one when there is none."""
    known = {_folded(key): cls for key, cls in DATASETS.items()}
    if _folded(name) not in known:
        raise ValueError(did_you_mean("data set", name, DATASETS))
    return known[_folded(name)]()


def _folded(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "")
