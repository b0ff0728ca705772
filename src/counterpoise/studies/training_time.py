"""What a score costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise import methods
from counterpoise.cli.messages import Options
from counterpoise.report.studies import points
from counterpoise.report.tables import html_table
from counterpoise.studies.base import (
    FUSED,
    SPLITS,
    Given,
    Picture,
    Row,
    Trained,
    common_split,
    method_names,
    metric_option,
    percent,
)

TITLE = "Training time"
ABOUT = (
    "Wall-clock seconds of all epochs, validation included and the test not, against the fused score, "
    "with the epochs each method ran and the passes per batch that its equations need, relative to joint training. "
    "Seconds are of this machine, and upper bounds where runs shared it: take --jobs 1 for times to report. CPU time "
    "and peak memory are not recorded. Unknown about the original: the unit of its time axis (the text says hours, "
    "minutes fit), the epochs of each method."
)


def add_options(parser: Options) -> None:
    """``--metric``, ``--methods``."""
    metric_option(parser)
    parser.add_argument("--methods", default="all", help="names with commas, or 'all'")


def plan(given: Given) -> list[Row]:
    """The methods."""
    return [Row(name, name) for name in method_names(given.own.methods)]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Per method and seed: seconds, epochs, score."""
    split, metric = common_split(runs), given.own.metric
    rows: dict[str, dict[str, Any]] = {}
    for run in runs:
        info = getattr(methods, run.record["method"]).info
        row = rows.setdefault(run.row, {"forward": info.forward, "backward": info.backward, "seeds": {}})
        row["seeds"][str(run.seed)] = {
            "seconds": run.record["seconds"],
            "epochs": run.record["epochs"],
            "score": run.record[split][f"{FUSED}/{metric}"],
        }
    return {"split": split, "metric": metric, "rows": rows}


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Points and a table, cheapest first."""
    label = f"{SPLITS[data['split']]} {data['metric']}"
    columns = {
        row: {key: [seed[key] for seed in found["seeds"].values()] for key in ("seconds", "epochs", "score")}
        for row, found in data["rows"].items()
    }
    ordered = sorted(columns, key=lambda row: sum(columns[row]["seconds"]) / len(columns[row]["seconds"]))
    table = []
    for row in ordered:
        seconds, epochs = columns[row]["seconds"], columns[row]["epochs"]
        table.append(
            [
                row,
                str(data["rows"][row]["forward"]),
                str(data["rows"][row]["backward"]),
                f"{sum(epochs) / len(epochs):g}",
                f"{sum(seconds) / len(seconds):.1f}",
                f"{sum(seconds) / sum(epochs):.2f}",
                percent(columns[row]["score"]),
            ]
        )
    header = ["method", "forward", "backward", "epochs", "seconds", "per epoch", f"fused {label} (%)"]
    places = {row: (columns[row]["seconds"], columns[row]["score"]) for row in ordered}
    return [
        Picture(
            "time",
            lambda: points(places, x="seconds of training", y=f"fused {label}", share=True),
            f"Training time against fused {label}; whiskers ± sd over seeds.",
        ),
        html_table(header, table, numbers=4),
    ]
