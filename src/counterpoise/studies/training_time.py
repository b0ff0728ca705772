"""What a score costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row, method_names
from counterpoise.benchmark.summary import mean_sd
from counterpoise.metrics import SHARES, lower_is_better
from counterpoise.recipe.messages import Options
from counterpoise.report.charts import points
from counterpoise.report.markup import html_table
from counterpoise.studies.base import SPLITS, Given, Picture, Trained, cell, common_split, metric_option, unit
from counterpoise.types import FUSED

TITLE = "Training time"
ABOUT = (
    "What training costs against the fused score. Wall-clock and CPU seconds (all threads of the run's process) of "
    "training with all that the method adds (teachers, trial runs, passes between stages) and validation, not the "
    "test. Forward and backward passes are counted at the encoders, validation left out: 1 is every encoder over every "
    "training sample once. Memory is the peak of the run's process, libraries included, and in brackets its rise while "
    "training; on a GPU, that of its tensors. Seconds are of this machine, and upper bounds where runs shared it: take "
    "--jobs 1 for times to report. Unknown about the original: the unit of its time axis (the text says hours, "
    "minutes fit), the epochs of each method."
)
COSTS = {
    "seconds": "wall-clock seconds of training",
    "cpu_seconds": "CPU seconds of training",
    "backward": "backward passes over the training data",
}
"""What the score is drawn against, a figure each."""


def add_options(parser: Options) -> None:
    """``--metric``, ``--methods``."""
    metric_option(parser)
    parser.add_argument("--methods", default="all", help="names with commas, or 'all'")


def plan(given: Given) -> list[Row]:
    """The methods."""
    return [Row(name, name) for name in method_names(given.own.methods, given.task)]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Per method and seed: what the run took, and its score."""
    split, metric = common_split(runs), given.metric
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        rows.setdefault(run.row, {})[str(run.seed)] = {
            "seconds": run.record["seconds"],
            "epochs": run.record["epochs"],
            "score": run.record[split][f"{FUSED}/{metric}"],
            **run.record.get("cost", {}),  # runs of before this was measured have none
        }
    return {"split": split, "metric": metric, "rows": rows}


def finding(data: Mapping[str, Any]) -> str:
    """The cheapest and the best, and what each costs and scores."""
    metric = data["metric"]
    columns = {row: _columns(list(by_seed.values())) for row, by_seed in data["rows"].items()}
    sign = -1 if lower_is_better(metric) else 1
    cheapest = min(columns, key=lambda row: mean_sd(columns[row]["seconds"])[0])
    best = max(columns, key=lambda row: sign * mean_sd(columns[row]["score"])[0])
    texts = [
        f"{what} {row} ({mean_sd(columns[row]['seconds'])[0]:.1f} s, {cell(columns[row]['score'], metric)})"
        for what, row in {"cheapest is": cheapest, "best on average": best}.items()
    ]
    return f"By seconds and fused {SPLITS[data['split']]} {named(metric)}{unit(metric)}: {'; '.join(texts)}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Points and a table, cheapest first."""
    metric = data["metric"]
    label = f"{SPLITS[data['split']]} {named(metric)}"
    columns = {row: _columns(list(by_seed.values())) for row, by_seed in data["rows"].items()}
    ordered = sorted(columns, key=lambda row: mean_sd(columns[row]["seconds"])[0])
    table = []
    for row in ordered:
        cells = columns[row]
        table.append(
            [
                row,
                *(_cell(cells.get(key), digits) for key, digits in TABLE.values()),
                _cell(cells.get("peak_memory_mb"), 0) + f" (+{_cell(cells.get('memory_rise_mb'), 0)})",
                cell(cells["score"], metric),
            ]
        )
    whiskers = "; whiskers ± sd over seeds" if any(len(c["score"]) > 1 for c in columns.values()) else ""
    pictures = []
    for key, name in COSTS.items():
        places = {row: (columns[row][key], columns[row]["score"]) for row in ordered if key in columns[row]}
        if places:
            pictures.append(
                Picture(
                    key.replace("_", "-"),
                    lambda places=places, name=name: points(places, x=name, y=f"fused {label}", share=metric in SHARES),
                    f"{name[0].upper()}{name[1:]} against fused {label}{whiskers}.",
                )
            )
    return [
        *pictures,
        html_table(["method", *TABLE, "peak memory, MB (rise)", f"fused {label}{unit(metric)}"], table, numbers=7),
    ]


TABLE = {
    "wall-clock, s": ("seconds", 1),
    "CPU, s": ("cpu_seconds", 1),
    "epochs": ("epochs", 1),
    "forward passes": ("forward", 1),
    "backward passes": ("backward", 1),
}
"""Title -> what it is in the data, and digits."""


def _columns(seeds: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Numbers that every seed has."""
    keys = [key for key, value in seeds[0].items() if isinstance(value, int | float)]
    return {key: [seed[key] for seed in seeds] for key in keys if all(key in seed for seed in seeds)}


def _cell(values: Sequence[float] | None, digits: int) -> str:
    """Their mean."""
    return "–" if not values else f"{mean_sd(values)[0]:.{digits}f}"
