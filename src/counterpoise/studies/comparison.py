"""Every method on one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.summary import summarize
from counterpoise.cli.messages import Options
from counterpoise.report.figures import accuracy_dots
from counterpoise.report.tables import summary_html
from counterpoise.studies.base import SPLITS, Given, Picture, Row, Trained, alone, common_split, method_names

TITLE = "Comparison"
ABOUT = (
    "Each modality alone and every method, with the scores of the weights that were best on validation; best in bold, "
    "second underlined, and a mark where fusing falls below the best single modality. Differences to joint training "
    "are seed by seed with a 95 % t interval. Each method has its own default fusion unless --fusion names one. "
    "Unknown about the original: seeds, the settings of the compared methods; its authors' code selects on test."
)


def add_options(parser: Options) -> None:
    """``--methods``."""
    parser.add_argument("--methods", default="all", help="names with commas, or 'all'")


def plan(given: Given) -> list[Row]:
    """Each modality alone, and the methods."""
    return [*alone(given.modalities), *(Row(name, name) for name in method_names(given.own.methods))]


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """The records of the runs."""
    return {"split": common_split(runs), "records": [dict(run.record) for run in runs]}


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """The table, and its fused and unimodal scores as a figure."""
    summary = summarize(data["records"], split=data["split"])
    first = data["records"][0]
    return [
        summary_html(summary),
        Picture(
            "scores",
            lambda: accuracy_dots(summary, first["monitor"], first["modalities"]),
            f"{SPLITS[data['split']].capitalize()} {first['monitor']} of each modality and fused, per method.",
        ),
    ]
