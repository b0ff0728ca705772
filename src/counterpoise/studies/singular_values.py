"""How many directions a modality uses in its head, with and without SAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from counterpoise.analysis import LayerSpectrum, input_spectra, load, save
from counterpoise.benchmark.plan import Row
from counterpoise.recipe.messages import Options
from counterpoise.recipe.trained import open_run
from counterpoise.report.charts import bars
from counterpoise.report.surfaces import spectra
from counterpoise.studies.base import Given, Picture, Trained, complete_seed, file_name, strokes

TITLE = "Singular values"
ABOUT = (
    "Singular values of what enters each layer of a modality's head: the sum over training batches of the outer "
    "products of batch means, as IGM measures it, at the weights that were best on validation. It is not divided by "
    "the number of batches, so its size belongs to this data set and batch size. Means (trace / d) over seeds, and "
    "the whole spectrum of the first seed that both rows have. Unknown about the original: the modality, the stage, "
    "and the seeds."
)


def add_options(parser: Options) -> None:
    """``--statistic``."""
    parser.add_argument(
        "--statistic", default="batch_mean", choices=["batch_mean", "sample"], help="batch means, or every input"
    )


def plan(given: Given) -> list[Row]:
    """IGM with and without SAM."""
    return [Row("IGM", "IGM"), Row("IGM without SAM", "IGM", {"method.sam": "off"})]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """A spectrum per run, modality and layer in a file."""
    spectra = []
    for run in runs:
        trainer, job, _ = open_run(str(run.directory), trust=True)
        for m in given.modalities:
            layers = input_spectra(
                trainer.model, job.splits.train, m, statistic=given.own.statistic, batch_size=trainer.batch_size
            )
            for layer, spectrum in layers.items():
                name = file_name(run.row, f"s{run.seed}", m, layer) + ".npz"
                save(given.folder / name, spectrum)
                about = {"row": run.row, "seed": run.seed, "modality": m, "layer": layer}
                spectra.append({**about, "file": name, "mean": spectrum.mean, "rank": spectrum.effective_rank})
    return {"statistic": given.own.statistic, "spectra": spectra}


def finding(data: Mapping[str, Any]) -> str:
    """How much smaller or larger each mean is with SAM than without."""
    means: dict[str, dict[str, list[float]]] = {}
    for item in data["spectra"]:
        means.setdefault(f"{item['modality']} {item['layer']}", {}).setdefault(item["row"], []).append(item["mean"])
    texts = [
        f"{layer} {fmean(by_row['IGM']) / fmean(by_row['IGM without SAM']):.2f}"
        for layer, by_row in means.items()
        if len(by_row) == 2
    ]
    return f"Mean singular value with SAM, as a multiple of that without: {', '.join(texts) or 'not both rows'}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Bars of the means, and the spectra of the first seed."""
    means: dict[str, dict[str, list[float]]] = {}
    whole: dict[str, dict[str, Any]] = {}
    first = complete_seed((item["row"], item["seed"]) for item in data["spectra"])
    for item in data["spectra"]:
        title = f"{item['modality']} {item['layer']}"
        means.setdefault(title, {}).setdefault(item["row"], []).append(item["mean"])
        if item["seed"] == first:
            whole.setdefault(title, {})[item["row"]] = load(folder / item["file"], LayerSpectrum).values
    return [
        Picture(
            "means",
            lambda: bars(means, x="mean singular value"),
            "Mean singular value per layer" + strokes(len(v) for by_row in means.values() for v in by_row.values()),
        ),
        Picture("spectra", lambda: spectra(whole), f"All singular values, seed {first}; dotted: their mean."),
    ]
