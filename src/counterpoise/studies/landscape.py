"""The loss around trained weights, and how curved it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.analysis import (
    SplitLoss,
    Surface,
    filter_directions,
    load,
    loss_surface,
    sam_sharpness,
    sample,
    save,
    top_eigenvalues,
    trace,
)
from counterpoise.cli.messages import Options, UsageError
from counterpoise.cli.trained import open_run
from counterpoise.report.surfaces import contours, profiles, reliefs
from counterpoise.report.tables import html_table
from counterpoise.studies.base import FUSED, Given, Picture, Row, Trained, method_names

TITLE = "Loss landscape"
ABOUT = (
    "Training loss of each modality's prediction and of the fused one, on a plane through the weights that were best "
    "on validation, along two random directions whose filters are as long as the weights' (Li et al. 2018; biases and "
    "normalisation stay), for the first seed; the same levels in all panels. The curves are the row of that grid "
    "through those weights, along the first direction alone. The table gives the largest eigenvalue and the trace of "
    "the Hessian and the rise of one sharpness-aware step, of the same loss. Running statistics of normalisation are "
    "measured anew at every point unless --statistics kept. Unknown about the original: the "
    "normalisation of directions, the split, the grid, the statistics, which weights move; its axes reach about 0.7."
)
STATISTICS = {"recomputed": "measured anew at every point", "kept": "those of training"}


def add_options(parser: Options) -> None:
    """``--methods`` and what the grid is like."""
    parser.add_argument("--methods", default="Joint,IGM", help="names with commas")
    parser.add_argument("--samples", type=int, default=512, help="training samples that the loss is of, at most")
    parser.add_argument("--points", type=int, default=15, help="of each side of the grid; odd, at least 3")
    parser.add_argument("--radius", type=float, default=0.7, help="how far the grid reaches")
    parser.add_argument("--statistics", default="recomputed", choices=["recomputed", "kept"], help="of normalisation")
    parser.add_argument("--probes", type=int, default=10, help="random vectors for the trace")


def plan(given: Given) -> list[Row]:
    """The methods."""
    points = given.own.points
    if points < 3 or points % 2 == 0:  # an even grid has no row through the trained weights
        raise UsageError(f"--points: must be odd and at least 3; got {points}. Did you mean {max(3, points + 1)}?")
    return [Row(name, name) for name in method_names(given.own.methods)]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """A surface per method and prediction in a file."""
    own = given.own
    first = min(run.seed for run in runs)
    settings = {key: getattr(own, key) for key in ("samples", "points", "radius", "statistics", "probes")}
    found: dict[str, Any] = {}
    for run in (run for run in runs if run.seed == first):
        trainer, job, _ = open_run(str(run.directory))
        split = sample(job.splits.train, own.samples)
        for prediction in (*given.modalities, FUSED):
            slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{run.row} {prediction}")
            loss = SplitLoss(
                trainer.model,
                split,
                prediction,
                statistics=own.statistics,
                criterion=trainer.criterion,
                predict=trainer.method.predict,
            )
            params = list(loss.parameters().values())
            surface = loss_surface(
                loss,
                params,
                filter_directions(params, 0),
                filter_directions(params, 1),
                radius=own.radius,
                points=own.points,
            )
            save(given.folder / f"{slug}.npz", surface)
            sharp = sam_sharpness(loss, params)
            traced = trace(loss, params, samples=own.probes)
            found[f"{run.row}, {prediction}"] = {
                "file": f"{slug}.npz",
                "samples": len(split),
                "eigenvalue": float(top_eigenvalues(loss, params, 1).values[0]),
                "trace": traced.mean,
                "trace_error": traced.standard_error,
                "sharpness": sharp.increase,
            }
            print(f"  {run.row}, {prediction}: done", flush=True)
    return {"seed": first, "settings": settings, "surfaces": found}


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Contours; the same in space; the row of each grid through the centre; a table of numbers."""
    surfaces = {title: load(folder / found["file"], Surface) for title, found in data["surfaces"].items()}
    panels: dict[str, dict[str, Surface]] = {}  # prediction -> method
    for title, surface in surfaces.items():
        method, _, prediction = title.rpartition(", ")
        panels.setdefault(prediction, {})[method] = surface
    count = max(found["samples"] for found in data["surfaces"].values())
    rows = [
        [
            title,
            f"{surfaces[title].centre:.4g}",
            f"{surfaces[title].rise:.4g}",
            f"{found['eigenvalue']:.4g}",
            f"{found['trace']:.4g} ± {found['trace_error']:.2g}",
            f"{found['sharpness']:.4g}",
        ]
        for title, found in data["surfaces"].items()
    ]
    header = ["", "loss", "corners above it", "top eigenvalue", "trace ± s.e.", "SAM rise (radius 0.05)"]
    about = (
        f"Steps are in units of the filters' norms. {count} samples, seed {data['seed']}; running statistics of "
        f"normalisation {STATISTICS[data['settings']['statistics']]}."
    )
    return [
        Picture(
            "contours",
            lambda: contours(surfaces, columns=len(panels)),
            f"Training loss around the trained weights; lines mark equal heights above the centre. {about}",
        ),
        Picture(
            "reliefs",
            lambda: reliefs(panels),
            f"The same losses as heights, on a vertical axis per panel; colours are methods. {about}",
        ),
        Picture(
            "profiles",
            lambda: profiles(panels),
            "Training loss along the first direction through the trained weights (step 0), each panel with "
            f"a vertical axis of its own; each method has its own weights at 0. {about}",
        ),
        html_table(header, rows, numbers=5),
    ]
