"""The score after each stage of IGM, with a direction of its matrices switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options
from counterpoise.report.charts import curves
from counterpoise.report.markup import html_table
from counterpoise.studies.base import Given, Picture, Trained, between, cell, told, unit
from counterpoise.types import FUSED

TITLE = "Interaction between modalities"
ABOUT = (
    "Fused validation score at the end of each stage of IGM, with all its matrices, without those of one direction "
    "(a→b: a's matrix changes b's gradient), and with none. Runs of one seed are the same up to the first stage that "
    "a direction acts on. The score is that of the weights at the stage's end, not of the best ones, and on "
    "validation, as test is looked at once per run. The original's score before training is not taken. Unknown about "
    "the original: seeds, epochs per stage, the split."
)
ALL, NONE = "all directions", "no direction"


def add_options(parser: Options) -> None:
    """None of its own."""


def directions(modalities: Sequence[str]) -> list[str]:
    """Who acts on whom when modalities take turns in their order, more than once around."""
    return [f"{a}->{b}" for a, b in zip(modalities, [*modalities[1:], modalities[0]], strict=True)]


def plan(given: Given) -> list[Row]:
    """All, each left out, none."""
    every = directions(given.modalities)
    rows = [Row(ALL, "IGM")]
    for left_out in every if len(every) > 1 else ():
        rest = [d for d in every if d != left_out]
        rows.append(Row(f"without {left_out.replace('->', '→')}", "IGM", {"method.directions": rest}))
    return [*rows, Row(NONE, "IGM", {"method.gm": False})]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Row -> seed -> fused score and those of the modalities at the end of each stage."""
    metric = str(runs[0].record["monitor"])
    rows: dict[str, dict[str, dict[str, list[float]]]] = {}
    stages: list[str] = []
    for run in runs:
        last = {str(entry["phase"]): entry for entry in run.history}  # the last line of each
        stages = list(last) if len(last) > len(stages) else stages
        rows.setdefault(run.row, {})[str(run.seed)] = {
            series: [float(entry[f"val/{series}/{metric}"]) for entry in last.values()]
            for series in (*run.record["modalities"], FUSED)
        }
    return {"metric": metric, "stages": stages, "rows": rows}


def finding(data: Mapping[str, Any]) -> str:
    """What leaving directions out does to the fused score after the last stage."""
    metric = data["metric"]
    last = {row: {FUSED: {s: one[FUSED][-1] for s, one in by_seed.items()}} for row, by_seed in data["rows"].items()}
    effects = {row: between(last, row, ALL) for row in last if row != ALL}
    return f"Fused validation {named(metric)} after the last stage, beside {ALL}: {told(effects, metric)}"


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """A curve per row in a panel per series; the fused scores as a table."""
    stages, metric = data["stages"], data["metric"]
    series = list(next(iter(next(iter(data["rows"].values())).values())))
    panels = {
        s: {row: [seed[s] for seed in by_seed.values()] for row, by_seed in data["rows"].items()}
        for s in [FUSED, *(s for s in series if s != FUSED)]
    }
    label = f"fused validation {named(metric)}{unit(metric)} after"
    table = [
        [row, *(cell([seed[FUSED][i] for seed in by_seed.values()], metric) for i in range(len(stages)))]
        for row, by_seed in data["rows"].items()
    ]
    return [
        html_table([label, *stages], table, numbers=len(stages)),
        Picture(
            "stages",
            lambda: curves(
                panels, y=f"validation {named(metric)}", x="after the stage", positions=stages, share=metric in SHARES
            ),
            "Fused score and that of each modality after each stage; where rows agree, one shows around the other.",
        ),
    ]
