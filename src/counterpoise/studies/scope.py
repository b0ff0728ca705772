"""How much of the network IGM's matrices act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.cli.messages import Options
from counterpoise.report.studies import bars
from counterpoise.studies.base import SPLITS, Given, Picture, Row, Trained, metric_option, scores, values

TITLE = "Scope of gradient modification"
ABOUT = (
    "IGM with its matrices on no layer, on the head, and on the given shares of each branch's parameters counted from "
    "the output backwards; of a share, the number of layers that comes nearest to it. Layers pair across modalities "
    "by name and only when their input sides agree, others keep their gradient, so unlike encoders make the larger "
    "scopes the same. Unknown about the original: its rule for shares that fall on no layer boundary (30 %, 50 %), "
    "and the seeds."
)


def add_options(parser: Options) -> None:
    """``--metric``, ``--shares``."""
    metric_option(parser)
    parser.add_argument("--shares", default="0.3,0.5,1.0", help="shares of the parameters besides the head")


def plan(given: Given) -> list[Row]:
    """One setting per scope."""
    shares = [text.strip() for text in given.own.shares.split(",") if text.strip()]
    return [
        Row("off", "IGM", {"method.gm": False}),
        Row("head", "IGM"),
        *(Row(f"{100 * float(text):g} %", "IGM", {"method.scope": text}) for text in shares),
    ]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Scores of each scope."""
    return scores(runs, given.own.metric)


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Bars."""
    split, metric = SPLITS[data["split"]], data["metric"]
    return [
        Picture(
            "scores",
            lambda: bars(values(data["rows"]), x=f"{split} {metric}", share=True),
            f"{split.capitalize()} {metric} of each modality and fused; whiskers ± sd, strokes single seeds.",
        )
    ]
