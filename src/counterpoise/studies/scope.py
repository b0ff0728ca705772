"""How much of the network IGM's matrices act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.benchmark.cells import named
from counterpoise.benchmark.plan import Row
from counterpoise.methods import IGM
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import open_run
from counterpoise.report.charts import bars
from counterpoise.report.markup import html_table
from counterpoise.studies.base import (
    SPLITS,
    Given,
    Picture,
    Trained,
    between,
    metric_option,
    read_outs,
    scores,
    seeds_of,
    strokes,
    told,
    values,
)

TITLE = "Scope of gradient modification"
ABOUT = (
    "IGM with its matrices on no layer, on the head, and on the given shares of each branch's parameters counted from "
    "the output backwards; of a share, the number of layers that comes nearest to it, so the table says which share "
    "that is. Layers pair across modalities by name, in heads by position, and only when their input sides agree; "
    "others keep their gradient, and so do biases and normalisation: the share of weights that are modified is "
    "smaller. Rows of equal shares are the same setting. Unknown about the original: its rule for shares that fall on "
    "no layer boundary (30 %, 50 %), and the seeds."
)

OFF = "off"


def add_options(parser: Options) -> None:
    """``--metric``, ``--shares``."""
    metric_option(parser)
    parser.add_argument("--shares", default="0.3,0.5,1.0", help="shares of the parameters, in [0, 1], besides the head")


def plan(given: Given) -> list[Row]:
    """One setting per scope."""
    shares = [text.strip() for text in given.own.shares.split(",") if text.strip()]
    for text in shares:
        if not _is_share(text):
            raise UsageError(f"--shares must be shares between 0 and 1, such as 0.3,0.5,1.0; got {text!r}.")
    if len({float(text) for text in shares}) < len(shares):
        raise UsageError("--shares names a number twice.")
    return [
        Row(OFF, "IGM", {"method.gm": False}),
        Row("head", "IGM"),
        *(Row(f"{100 * float(text):g} %", "IGM", {"method.scope": text}) for text in shares),
    ]


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """Scores of each scope, and what it covers."""
    covered: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.row not in covered:  # the same for every seed
            trainer, _, _ = open_run(str(run.directory), trust=True)
            assert isinstance(trainer.method, IGM)
            covered[run.row] = trainer.method.coverage(trainer.model)
    return {"covered": covered, **scores(runs, given.metric)}


def finding(data: Mapping[str, Any]) -> str:
    """Each scope's difference to matrices on no layer."""
    metric, rows = data["metric"], data["rows"]
    effects = {row: between(rows, row, OFF) for row in rows if row != OFF}
    return f"Fused {SPLITS[data['split']]} {named(metric)} beside no matrices: {told(effects, metric)}"


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """Bars, and what the rows cover."""
    split, metric = SPLITS[data["split"]], data["metric"]
    modalities = list(dict.fromkeys(m for covered in data["covered"].values() for m in covered))
    parts = {"in_scope": "in scope (%)", "modified": "modified (%)"}
    header = ["matrices on", *(f"{m}: parameters {text}" for m in modalities for text in parts.values())]
    table = [
        [row, *(f"{100 * covered[m][part]:.1f}" for m in modalities for part in parts)]
        for row, covered in data["covered"].items()
    ]
    return [
        Picture(
            "scores",
            lambda: bars(values(data["rows"]), x=f"{split} {named(metric)}", share=metric in SHARES),
            f"{split.capitalize()} {named(metric)} of each modality and fused; the shares are those asked for, the "
            f"table has those reached{strokes(seeds_of(data['rows']))}" + read_outs(data),
        ),
        html_table(header, table, numbers=len(header) - 1),
    ]
