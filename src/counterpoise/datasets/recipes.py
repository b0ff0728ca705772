"""Settings of the rows of the published tables, per data set: as facts with their source, and as files for ``fit``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from counterpoise._checks import did_you_mean

_FOLDER = Path(__file__).parent / "recipes"
SETTINGS = {
    "paper": "settings of the method's own paper",
    "released": "settings of the authors' code",
    "third party": "settings of another paper's code for this data set",
    "protocol": "nobody states settings of this method on this data set; those of the table's protocol",
}
"""Where the options of a row may come from."""


@dataclass(frozen=True)
class PublishedRecipe:
    """How one row of a table is trained on a data set.

    Attributes:
        name: of the row, as in file names.
        label: in tables.
        published: the row of publications that it is compared with, of several trainings of one method.
        settings: a key of ``SETTINGS``.
        source: where they were read; that of the protocol where there are no others.
        differs: what is not as there; empty when nothing is.
        notes: about every row of the data set; empty where there are none.
        options: of ``counterpoise fit``, over those of the prepared data set.
    """

    name: str
    label: str
    published: str
    settings: str
    source: str
    differs: str
    notes: str
    options: Mapping[str, Any]


def names(dataset: str) -> tuple[str, ...]:
    """The recipes of a data set, in the order of the table; none of one that has no file."""
    return tuple(_file(dataset).get("rows", {}))


def get(dataset: str, name: str) -> PublishedRecipe:
    """One of them; ValueError with the nearest name when there is none."""
    content = _file(dataset)
    if name not in content.get("rows", {}):
        raise ValueError(did_you_mean("recipe", name, content.get("rows", {})))
    row = content["rows"][name]
    return PublishedRecipe(
        name,
        row["label"],
        row.get("published", name),
        row["settings"],
        row.get("source", content["protocol"]),
        row.get("differs", ""),
        content.get("notes", ""),
        merged(content["base"], row["options"]),
    )


def text(dataset: str, title: str, name: str, base: Mapping[str, Any]) -> str:
    """A whole configuration as YAML: ``base``, and over it what the recipe says, below a comment on where it is from.

    Args:
        dataset: its name.
        title: of the data set.
        name: one of `names`.
        base: the table, its readers and the encoders.
    """
    import yaml

    recipe = get(dataset, name)
    said = [
        f"{title}, {recipe.label}: {SETTINGS[recipe.settings]}.",
        f"Source: {recipe.source}",
        f"Differs: {recipe.differs}" if recipe.differs else "",
        "Weights are selected on validation; most released codes select on the test split.",
        recipe.notes,
    ]
    lines = [line for part in said for line in textwrap.wrap(part, 98, break_on_hyphens=False)]
    comment = "".join(f"# {line}\n" for line in lines)
    options = merged(base, {"label": recipe.label, **recipe.options})
    return comment + yaml.safe_dump(options, sort_keys=False, width=100)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, at every depth; where both have a value that is no mapping, or another class, that of ``over``."""
    result = {**base, **over}
    for key in base.keys() & over.keys():
        old, new = base[key], over[key]
        if isinstance(old, Mapping) and isinstance(new, Mapping) and _class(old) == _class(new, _class(old)):
            result[key] = merged(old, new)
    return result


def _class(value: Mapping[str, Any], default: object = None) -> object:
    return value.get("class_path", default)


@cache
def _file(dataset: str) -> Mapping[str, Any]:
    import yaml

    path = _FOLDER / f"{dataset}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
