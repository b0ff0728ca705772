"""The loss around trained weights, and how curved it is."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from counterpoise.analysis import Path as Line
from counterpoise.analysis import (
    SplitLoss,
    Surface,
    filter_directions,
    interpolate,
    load,
    loss_surface,
    sam_sharpness,
    sample,
    save,
    top_eigenvalues,
    trace,
)
from counterpoise.benchmark.plan import Row, method_names
from counterpoise.data.progress import bar_after_two_seconds
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import open_run
from counterpoise.report.markup import html_table
from counterpoise.report.surfaces import contours, lines, profiles, reliefs
from counterpoise.studies.base import Given, Picture, Trained, complete_seed, file_name
from counterpoise.types import FUSED

TITLE = "Loss landscape"
ABOUT = (
    "Training loss, with its weights of classes and samples, of each modality's prediction and of the fused one, on a "
    "plane through the weights that were best on validation, along two random directions whose filters are as long as "
    "the weights' (Li et al. 2018; biases and normalisation stay), for the first seed that all have; the same levels "
    "in all panels. The curves are the row of that grid through those weights, along the first direction alone. The "
    "straight lines lead from the weights before training to those, and from one method's to the next one's where the "
    "prediction has the same weights by name and shape in both (with --fusion Late, say), by the rule of the first. "
    "The table gives the largest eigenvalue and the trace of the Hessian and the rise of one sharpness-aware step, of "
    "the same loss. Running statistics of normalisation are measured anew at every point unless --statistics kept, on "
    "straight lines always. Unknown about the original: the normalisation of directions, the split, the grid, the "
    "statistics, which weights move; its axes reach about 0.7."
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
    return [Row(name, name) for name in method_names(given.own.methods, given.task)]


PLACES = np.linspace(-0.25, 1.25, 25)
"""On a straight line: 0 and 1 are among them."""


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """A surface per method and prediction in a file, and the lines that start or end there."""
    own = given.own
    first = complete_seed((run.row, run.seed) for run in runs)
    settings = {key: getattr(own, key) for key in ("samples", "points", "radius", "statistics", "probes")}
    surfaces: dict[str, Any] = {}
    paths: list[dict[str, Any]] = []
    before: dict[str, tuple[str, dict[str, Tensor]]] = {}  # prediction -> method before, and its weights
    chosen = [run for run in runs if run.seed == first]
    points = len(chosen) * (len(given.modalities) + 1) * own.points**2
    with bar_after_two_seconds(points, "loss on the grids") as advance:
        for run in chosen:
            trainer, job, _ = open_run(str(run.directory), trust=True)
            untrained = job.trainer(run_dir=None, progress=False, devices=1, num_nodes=1).model
            split = sample(job.splits.train, own.samples)
            for prediction in (*given.modalities, FUSED):
                more: dict[str, Any] = {"predict": trainer.method.predict}
                trained = {"criterion": trainer.loss, "counts": trainer.loss.counted}
                loss = SplitLoss(trainer.model, split, prediction, statistics=own.statistics, **trained, **more)
                named = loss.parameters()
                file = file_name(run.row, prediction) + ".npz"
                about = {"method": run.row, "prediction": prediction, "file": file, "samples": len(split)}
                surface, curved = _around(loss, list(named.values()), own, advance)
                save(given.folder / file, surface)
                surfaces[f"{run.row}, {prediction}"] = {**about, **curved}
                weights = {name: p.detach().clone() for name, p in named.items()}
                starts: dict[str, Mapping[str, Tensor]] = {START: dict(untrained.named_parameters())}
                if prediction in before and _alike(before[prediction][1], weights):
                    starts[before[prediction][0]] = before[prediction][1]
                before[prediction] = run.row, weights
                more["statistics"] = "recomputed"  # those of training belong to one end
                along = SplitLoss(trainer.model, split, prediction, **trained, **more)
                right = SplitLoss(trainer.model, split, prediction, criterion=given.task.hits, **more)
                for start, at in starts.items():
                    begin, end = [at[name].detach() for name in weights], list(weights.values())
                    line = interpolate(along, list(named.values()), begin, end, PLACES, accuracy=right)
                    file = file_name(start, "to", run.row, prediction) + ".npz"
                    save(given.folder / file, line)
                    paths.append({"start": start, "end": run.row, "prediction": prediction, "file": file})
                print(f"  {run.row}, {prediction}: done", flush=True)
    return {"seed": first, "settings": settings, "score": given.task.yardstick, "surfaces": surfaces, "lines": paths}


START = "before training"


def _around(
    loss: SplitLoss, params: Sequence[Tensor], own: Namespace, advance: Callable[[], None]
) -> tuple[Surface, dict[str, float]]:
    """The loss on the grid, and how curved it is at its centre."""
    x, y = (filter_directions(params, seed) for seed in (0, 1))
    surface = loss_surface(
        loss, params, x, y, radius=own.radius, points=own.points, progress=lambda done, points: advance()
    )
    traced = trace(loss, params, samples=own.probes)
    return surface, {
        "eigenvalue": float(top_eigenvalues(loss, params, 1).values[0]),
        "trace": traced.mean,
        "trace_error": traced.standard_error,
        "sharpness": sam_sharpness(loss, params).increase,
    }


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether a straight line leads from the one to the other."""
    return {n: p.shape for n, p in one.items()} == {n: p.shape for n, p in other.items()}


def finding(data: Mapping[str, Any]) -> str:
    """The curvature of the fused loss, of one seed."""
    fused = [surface for surface in data["surfaces"].values() if surface["prediction"] == FUSED]
    texts = [f"{s['method']} {s['eigenvalue']:.3g} (SAM rise {s['sharpness']:.2g})" for s in fused]
    return f"Largest eigenvalue of the fused loss, seed {data['seed']} alone: {', '.join(texts)}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Contours; the same in space; the row of each grid through the centre; a table of numbers."""
    surfaces = {title: load(folder / surface["file"], Surface) for title, surface in data["surfaces"].items()}
    panels: dict[str, dict[str, Surface]] = {}  # prediction -> method
    for title, surface in data["surfaces"].items():
        panels.setdefault(surface["prediction"], {})[surface["method"]] = surfaces[title]
    trained: dict[str, dict[str, Line]] = {}
    between: dict[str, dict[str, Line]] = {}
    pairs = {(item["start"], item["end"]) for item in data["lines"] if item["start"] != START}
    for item in data["lines"]:
        line, prediction = load(folder / item["file"], Line), item["prediction"]
        if item["start"] == START:
            trained.setdefault(prediction, {})[item["end"]] = line
        else:
            between.setdefault(prediction, {})[f"{item['start']} to {item['end']}"] = line
    count = max(surface["samples"] for surface in data["surfaces"].values())
    rows = [
        [
            title,
            f"{surfaces[title].centre:.4g}",
            f"{surfaces[title].rise:.4g}",
            f"{surface['eigenvalue']:.4g}",
            f"{surface['trace']:.4g} ± {surface['trace_error']:.2g}",
            f"{surface['sharpness']:.4g}",
        ]
        for title, surface in data["surfaces"].items()
    ]
    score = data.get("score", "accuracy")
    header = ["", "loss", "corners above it", "top eigenvalue", "trace ± s.e.", "SAM rise (radius 0.05)"]
    about, anew = (
        f"{count} samples, seed {data['seed']}; running statistics of normalisation {STATISTICS[kind]}."
        for kind in (data["settings"]["statistics"], "recomputed")
    )
    about = f"Steps are in units of the filters' norms. {about}"
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
        *_straight("training", trained, ("before training", "trained"), anew, score),
        *_straight("methods", between, pairs.pop() if len(pairs) == 1 else ("one method", "the next"), anew, score),
        html_table(header, rows, numbers=5),
    ]


def _straight(
    name: str, panels: Mapping[str, Mapping[str, Line]], ends: tuple[str, str], about: str, score: str
) -> list[Picture]:
    """The loss and the score on straight lines, where there are any."""
    if not panels:
        return []
    what = f"on the straight line from {ends[0]} (0) to {ends[1]} (1); {about}"
    return [
        Picture(
            f"line-{name}",
            lambda: lines(panels, ends=ends),
            f"Training loss {what} Barrier: how far it rises above the straight line between its ends.",
        ),
        Picture(f"line-{name}-{score}", lambda: lines(panels, ends=ends, score=score), f"Training {score} {what}"),
    ]
