"""How each modality learns alone, and inside a model trained on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row, alone, method_names
from counterpoise.metrics import SHARES, lower_is_better
from counterpoise.recipe.messages import Options
from counterpoise.report.charts import curves
from counterpoise.report.markup import html_table
from counterpoise.studies.base import (
    SPLITS,
    Given,
    Picture,
    Trained,
    cell,
    read_outs,
    scores,
    unit,
)

TITLE = "Modality imbalance"
ABOUT = (
    "Validation score and loss of each modality over the epochs: trained alone, and read off the model trained on "
    "all modalities, through what its fusion makes of that modality by itself. A modality whose curve is worse inside "
    "than alone was held back. Unknown about the original: the data set (its first loss fits 31 classes), how a "
    "branch is read off the joint model, and the split: its curves are labelled training accuracy, though the one of "
    "sound stays at 0.51 while the training loss falls to 0.04."
)


def add_options(parser: Options) -> None:
    """``--method``."""
    parser.add_argument("--method", default="Joint", help="the method to look inside")


def plan(given: Given) -> list[Row]:
    """Each modality alone, and the method."""
    (method,) = method_names(given.own.method, option="--method")
    return [*alone(given.modalities), Row(method, method)]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Curves per panel, series and seed, and the scores of the selected weights."""
    (method,) = method_names(given.own.method, option="--method")
    monitored = str(runs[0].record["monitor"])
    metric = monitored if monitored != "loss" else given.task.monitor
    # metrics.jsonl has the loss and what was monitored
    panels: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in dict.fromkeys((monitored, "loss"))}
    for kind, series in panels.items():
        for m in given.modalities:
            for name, row in ((f"{m} alone", f"{m} alone"), (f"{m} in {method}", method)):
                histories = [run.history for run in runs if run.row == row]
                if histories:
                    key = f"val/{m}/{kind}"
                    series[name] = [[float(e[key]) for e in history if key in e] for history in histories]
    return {
        "method": method,
        "modalities": list(given.modalities),
        "metric": metric,
        "curves": panels,
        "scores": scores(runs, metric),
    }


def finding(data: Mapping[str, Any]) -> str:
    """What each modality scores alone and inside."""
    method, metric, rows = data["method"], data["metric"], data["scores"]["rows"]
    texts = []
    for m in data["modalities"]:
        own, inside = (rows.get(row, {}).get(m, {}).values() for row in (f"{m} alone", method))
        if own and inside:
            texts.append(f"{m} scores {cell(inside, metric)} inside {method} and {cell(own, metric)} alone")
    what = f"{SPLITS[data['scores']['split']]} {named(metric)}{unit(metric)}"
    return f"{what[0].upper()}{what[1:]}: {'; '.join(texts) or 'no runs'}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Two panels of curves; a table."""
    method, metric, modalities = data["method"], data["metric"], data["modalities"]
    panels, labels = {}, {}
    for kind, series in data["curves"].items():
        title, scale = f"validation {kind}", 100 if kind in SHARES else 1
        labels[title] = named(kind) + unit(kind)
        panels[title] = {name: [[scale * v for v in run] for run in runs] for name, runs in series.items()}
    like = {f"{m} in {method}": f"{m} alone" for m in modalities}
    by_row, split = data["scores"]["rows"], SPLITS[data["scores"]["split"]]
    rows, what = [], f"{split} {named(metric)}{unit(metric)}"
    for m in modalities:
        own = by_row.get(f"{m} alone", {}).get(m, {})
        inside = by_row.get(method, {}).get(m, {})
        sign = -1 if lower_is_better(metric) else 1
        lost = [sign * (own[seed] - inside[seed]) for seed in own if seed in inside]
        rows.append([m, *(cell(v, metric) if v else "–" for v in (own.values(), inside.values(), lost))])
    several = any(len(runs) > 1 for series in panels.values() for runs in series.values())
    bands = " Bands: ± one standard deviation over seeds." if several else ""
    return [
        Picture(
            "curves",
            lambda: curves(panels, y=labels, like=like),
            f"Solid: trained alone; dashed: inside {method}.{bands}" + read_outs(data["scores"]),
        ),
        html_table(["modality", f"alone, {what}", f"in {method}", "lost"], rows, numbers=3),
    ]
