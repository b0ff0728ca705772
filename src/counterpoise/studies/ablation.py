"""SAM and gradient modification of IGM, each with and without the other, and what alternation alone does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options
from counterpoise.report.charts import bars
from counterpoise.report.markup import html_table
from counterpoise.studies.base import (
    SPLITS,
    Given,
    Picture,
    Trained,
    between,
    effect,
    metric_option,
    read_outs,
    scores,
    seeds_of,
    strokes,
    told,
    values,
)
from counterpoise.types import FUSED

TITLE = "Ablation"
ABOUT = (
    "IGM with and without sharpness-aware steps (SAM) and gradient modification (GM), its schedule of stages kept; "
    "and joint training of the same late fusion with and without SAM, so that what taking turns, each on "
    "its own loss, does by itself is a comparison of its own. "
    "Each effect is a difference seed by seed, with its 95 % t interval. Unknown about the "
    "original: the number of seeds, and whether its row without either takes turns: its modalities score as those "
    "trained alone. Its radius of 1e-10 is below the resolution of its weights; --rho is the one used here."
)
NEITHER, SAM, GM, BOTH = "turns", "turns + SAM", "turns + GM", "turns + SAM + GM (IGM)"
JOINT, JOINT_SAM = "joint", "joint + SAM"
EFFECTS = {
    "turns": (NEITHER, JOINT),
    "turns, with SAM": (SAM, JOINT_SAM),
    "GM": (GM, NEITHER),
    "GM, with SAM": (BOTH, SAM),
    "SAM": (SAM, NEITHER),
    "SAM, with GM": (BOTH, GM),
    "SAM, in joint training": (JOINT_SAM, JOINT),
    "IGM against joint": (BOTH, JOINT),
}
"""Name -> (with it, without it)."""


def add_options(parser: Options) -> None:
    """``--metric``, ``--rho``."""
    metric_option(parser)
    parser.add_argument("--rho", type=float, default=0.05, help="radius of SAM, in IGM and in joint training")


def plan(given: Given) -> list[Row]:
    """Six settings."""
    rho = {"method.rho": given.own.rho}
    late = {} if given.fusion else {"fusion": "Late"}
    return [
        Row(JOINT, "Joint", late),
        Row(JOINT_SAM, "Joint", {**late, "sam": given.own.rho}),
        Row(NEITHER, "IGM", {"method.gm": False, "method.sam": "off"}),
        Row(SAM, "IGM", {"method.gm": False, **rho}),
        Row(GM, "IGM", {"method.sam": "off"}),
        Row(BOTH, "IGM", rho),
    ]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Scores of each setting."""
    return scores(runs, given.metric)


def finding(data: Mapping[str, Any]) -> str:
    """Each effect on the fused score."""
    metric, rows = data["metric"], data["rows"]
    effects = {name: between(rows, *pair) for name, pair in EFFECTS.items()}
    return f"Effects on the fused {SPLITS[data['split']]} {named(metric)}: {told(effects, metric)}"


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Bars, and the effects."""
    split, metric, rows = SPLITS[data["split"]], data["metric"], data["rows"]
    series = list(dict.fromkeys(name for by_series in rows.values() for name in by_series))
    table = []
    for name, (with_it, without) in EFFECTS.items():
        cells = [effect(between(rows, with_it, without, s), metric) for s in series]
        table.append([name, f"{with_it} − {without}", *cells])
    points = "points" if metric in SHARES else named(metric)
    return [
        Picture(
            "scores",
            lambda: bars(values(rows), x=f"{split} {named(metric)}", share=metric in SHARES),
            f"{split.capitalize()} {named(metric)} of each modality and {FUSED}{strokes(seeds_of(rows))}"
            + read_outs(data),
        ),
        html_table(
            ["effect of", f"difference in {points}", *series],
            table,
            numbers=len(series),
        ),
    ]
