"""The angle between the gradients of modalities that train one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from counterpoise import methods
from counterpoise.analysis import GRADIENT_CHANGE, GradientChanges, histogram, load, save
from counterpoise.benchmark.plan import Row, method_names
from counterpoise.benchmark.summary import mean_sd
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.report.markup import html_table
from counterpoise.report.surfaces import histograms
from counterpoise.studies.base import Given, Picture, Trained, file_name

TITLE = "Gradient change"
ABOUT = (
    "For every update that follows one of another modality: the cosine between the old modality's gradient and the one "
    "applied now, after all that the method did to it, over the weights of equal shape in the two heads. With "
    "--pairing stored the old gradient is the last one applied to it: the step before in methods that take turns "
    "within a batch, the end of the stage before in methods with stages. With --pairing batch it is that of the old "
    "modality's own loss on the same samples, at the present weights. All seeds together in 80 bins; numbers per seed "
    "in the table. Unknown about the original: the pairing, which updates its 874 values are, and the seeds."
)
PAIRINGS = {"stored": "its last applied gradient", "batch": "its gradient on the same batch"}


def add_options(parser: Options) -> None:
    """``--methods``, ``--pairing``."""
    parser.add_argument(
        "--methods", default="MLA,IGM", help="alternating methods with commas; IGM with and without SAM"
    )
    parser.add_argument("--pairing", default="stored", choices=list(PAIRINGS), help="what the old gradient is")


def plan(given: Given) -> list[Row]:
    """The methods, watched."""
    watched = {"gradient_change": given.own.pairing}
    rows = []
    for name in method_names(given.own.methods):
        if getattr(methods, name).info.family != "alternating":
            known = [n for n in methods.__all__ if getattr(methods, n).info.family == "alternating"]
            raise UsageError(
                f"--methods: {name} trains all modalities at once, so there are no gradients of successive ones. "
                f"Alternating methods: {', '.join(known)}."
            )
        if name == "IGM":
            rows.append(Row("IGM without SAM", name, {"method.sam": "off", **watched}))
        rows.append(Row(name, name, watched))
    return rows


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """The cosines of each run in a file; what describes them per seed."""
    compared = []
    for run in runs:
        changes = load(run.directory / GRADIENT_CHANGE, GradientChanges)
        file = file_name(run.row, f"s{run.seed}") + ".npz"
        save(given.folder / file, changes)
        about = {"row": run.row, "seed": run.seed, "file": file, "n": len(changes)}
        if len(changes):
            counted = histogram(_finite(changes))
            about |= {"mean": counted.mean, "median": counted.median, "below": counted.below}
        compared.append(about)
    return {"pairing": given.own.pairing, "threshold": histogram(np.zeros(0)).threshold, "changes": compared}


def _finite(changes: GradientChanges) -> np.ndarray:
    """A gradient of length zero has no angle."""
    return changes.cosine[np.isfinite(changes.cosine)]


def finding(data: Mapping[str, Any]) -> str:
    """The mean cosine of each method, and how many of its values are small."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for item in data["changes"]:
        rows.setdefault(item["row"], []).append(item)
    texts = [
        f"{row} {_cell(mean_sd(i['mean'] for i in there), 1)} "
        f"({_cell(mean_sd(i['below'] for i in there), 100)} % below {data['threshold']:g})"
        for row, items in rows.items()
        if (there := [i for i in items if i["n"]])
    ]
    return f"Mean cosine with the gradient of the modality before: {', '.join(texts) or 'no values'}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """A histogram per method; a table."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for item in data["changes"]:
        rows.setdefault(item["row"], []).append(item)
    values = {
        row: np.concatenate([_finite(load(folder / item["file"], GradientChanges)) for item in items])
        for row, items in rows.items()
    }
    table = []
    for row, items in rows.items():
        cells = [mean_sd(item[key] for item in items if key in item) if items[0]["n"] else None for key in NUMBERS]
        table.append([row, " + ".join(str(item["n"]) for item in items), *map(_cell, cells, (1, 1, 100))])
    header = ["method", "values per seed", "mean", "median", f"below {data['threshold']:g} (%)"]
    return [
        Picture(
            "histograms",
            lambda: histograms(
                values,
                x="cosine with the gradient of the modality before",
                seeds=max(map(len, rows.values())),
                threshold=data["threshold"],
            ),
            f"Cosine between the applied gradient and the modality before's: {PAIRINGS[data['pairing']]}; 80 bins.",
        ),
        html_table(header, table, numbers=4),
    ]


NUMBERS = ("mean", "median", "below")


def _cell(mean_and_sd: tuple[float, float | None] | None, scale: float) -> str:
    """Mean ± standard deviation over seeds."""
    if mean_and_sd is None:
        return "–"
    mean, sd = (None if value is None else scale * value for value in mean_and_sd)
    digits = 1 if scale == 100 else 3
    return f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}")
