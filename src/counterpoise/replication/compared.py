"""Ours beside the published numbers: a cell for each row and metric, and why the two may differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.summary import mean_sd
from counterpoise.datasets import Dataset, recipes
from counterpoise.datasets.published import Number, Publication, published
from counterpoise.types import FUSED

POSTER = "igm"
"""The publication that the table is of; rows that it lacks are compared with the first one that has them."""


@dataclass(frozen=True)
class Circumstances:
    """What the runs have in common, and what may set them apart from a publication.

    Attributes:
        dataset: the data set.
        split: that was prepared.
        as_published: whether the published test part selected.
        seeds: that were asked for.
        options: of ``fit`` that were given over those of the rows.
        gone: listed samples that are not there.
    """

    dataset: Dataset
    split: str
    as_published: bool
    seeds: Sequence[int]
    options: Sequence[str]
    gone: int


@dataclass(frozen=True)
class Cell:
    """One score of one row.

    Attributes:
        row: name of the recipe.
        metric: of the fused prediction.
        values: seed -> our score, in per cent.
        number: the published one; None where the row was not published on this data set.
        elsewhere: other publications' numbers of the same row.
        reasons: why ours and the published one are not comparable; none where they are.
    """

    row: str
    metric: str
    values: Mapping[int, float]
    number: Number | None
    elsewhere: Sequence[Number]
    reasons: Sequence[str]

    @property
    def difference(self) -> float | None:
        """Ours minus the published one, in points."""
        return mean_sd(self.values.values())[0] - self.number.value if self.values and self.number else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        mean, sd = mean_sd(self.values.values()) if self.values else (None, None)
        return {
            "metric": self.metric,
            "ours": {"mean": mean, "sd": sd, "seeds": {str(seed): value for seed, value in self.values.items()}},
            "published": None if self.number is None else _plain(self.number),
            "difference": self.difference,
            "elsewhere": [_plain(number) for number in self.elsewhere],
            "comparable": self.number is not None and not self.reasons,
            "reasons": list(self.reasons),
        }


@dataclass(frozen=True)
class Compared:
    """The table.

    Attributes:
        about: what the runs have in common.
        rows: of the table, in its order.
        metrics: that the publication prints.
        cells: name of a row -> metric -> cell.
    """

    about: Circumstances
    rows: Sequence[recipes.PublishedRecipe]
    metrics: Sequence[str]
    cells: Mapping[str, Mapping[str, Cell]]

    @property
    def title(self) -> str:
        """Of every table and picture; it says so where the test part selected."""
        chosen = "selected on test" if self.about.as_published else "selected on validation"
        return f"{self.about.dataset.title}: ours beside the published numbers ({chosen})"

    def publications(self) -> list[Publication]:
        """Those with a number in the table or beside it, in their order."""
        cells = [cell for by in self.cells.values() for cell in by.values()]
        numbers = [n for cell in cells for n in (cell.number, *cell.elsewhere) if n is not None]
        return list({number.publication.name: number.publication for number in numbers}.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = self.about
        return {
            "title": self.title,
            "dataset": about.dataset.name,
            "split": about.split,
            "selected_on": "test" if about.as_published else "validation",
            "seeds": list(about.seeds),
            "options": list(about.options),
            "samples_left_out": about.gone,
            "rows": {
                row.name: {
                    "label": row.label,
                    "settings": row.settings,
                    "source": row.source,
                    "differs": row.differs,
                    "scores": [cell.to_dict() for cell in self.cells[row.name].values()],
                }
                for row in self.rows
            },
            "publications": {p.name: asdict(p) for p in self.publications()},
        }


def compare(
    about: Circumstances,
    rows: Sequence[recipes.PublishedRecipe],
    records: Mapping[str, Mapping[int, Mapping[str, Any]]],
) -> Compared:
    """The table of these results.

    Args:
        about: what the runs have in common.
        rows: of the table, in its order.
        records: name of a row -> seed -> content of ``result.json``; rows without a finished run may be missing.
    """
    numbers = published(about.dataset.name)
    first = next(iter(numbers.values()))
    metrics = list(first)
    part = "val" if about.as_published else "test"
    cells: dict[str, dict[str, Cell]] = {}
    for row in rows:
        for metric in metrics:
            printed = sorted(numbers.get(row.published, {}).get(metric, []), key=lambda n: n.publication.name != POSTER)
            values = {
                seed: 100 * record[part][f"{FUSED}/{metric}"]
                for seed, record in records.get(row.name, {}).items()
                if f"{FUSED}/{metric}" in (record.get(part) or {})
            }
            number, elsewhere = (printed[0] if printed else None), printed[1:]
            reasons = _reasons(about, row, number, len(values)) if number else ["no published number"]
            cells.setdefault(row.name, {})[metric] = Cell(row.name, metric, values, number, elsewhere, reasons)
    return Compared(about, rows, metrics, cells)


def _reasons(about: Circumstances, row: recipes.PublishedRecipe, number: Number, runs: int) -> list[str]:
    """Why ours and a published number are not comparable."""
    there, here = number.publication.selected_on, "test" if about.as_published else "validation"
    own = row.published in number.publication.own
    said = [
        (there == "not known", "what selected there is not known"),
        (there not in (here, "not known"), f"there {_selected(there)}, here selected on {here}"),
        (about.split not in number.same_split, "not the same split"),
        (
            not about.as_published and "train+val" in about.dataset.published(about.split),
            "trained on less: validation is taken out of the published training part",
        ),
        (row.settings == "protocol", "settings of the row are not published"),
        (row.settings == "third party", "settings are another paper's"),
        (row.settings in ("paper", "released") and not own, "the settings of their re-run are not published"),
        (bool(row.differs) and own, "differs from the published settings, see below"),
        (bool(about.options), f"run with other options: {' '.join(about.options)}"),
        (about.gone > 0, f"{about.gone} samples are missing here"),
        (runs < len(about.seeds), f"{runs} of {len(about.seeds)} runs"),
        (len(about.seeds) < 3, f"{len(about.seeds)} seed{'s' * (len(about.seeds) > 1)} here"),
        (number.publication.read == "secondhand", "number taken from another source"),
    ]
    return [text for holds, text in said if holds]


def _selected(part: str) -> str:
    return part if part == "not selected" else f"selected on {part}"


def _plain(number: Number) -> dict[str, Any]:
    return {"value": number.value, "sd": number.sd, "publication": number.publication.name}


def heading(metric: str) -> str:
    """Title of a column."""
    return f"{named(metric)} (%)"
