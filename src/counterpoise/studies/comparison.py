"""Every method on one data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise.analysis import features, linear_probe, sample
from counterpoise.benchmark.cells import Cell, cell_text, named, says_how_good
from counterpoise.benchmark.notes import with_candidates
from counterpoise.benchmark.plan import UNIMODAL, Row, alone, method_names
from counterpoise.benchmark.summary import Summary, percent, summarize
from counterpoise.metrics import lower_is_better
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import open_run
from counterpoise.report.charts import score_dots
from counterpoise.report.markup import html_table
from counterpoise.report.tables import sets_html, summary_html
from counterpoise.studies.base import SPLITS, Given, Picture, Scores, Trained, common_split, effect, unit
from counterpoise.types import FUSED

TITLE = "Comparison"
ABOUT = (
    "Each modality alone and every method, IGM also without SAM, and joint training at IGM's cost (with SAM, and for "
    "twice the epochs: passes are counted in the table), with the scores of the weights that were best on "
    "validation; best in bold, second underlined, and a mark where fusing falls below the best single modality. "
    "Differences to joint training are seed by seed with a 95 % t interval. Each method has its own default fusion "
    "unless --fusion names one. Unknown about the original: seeds, the settings of the compared methods; its authors' "
    "code selects on test."
)


SAMPLES = 2000
"""Training samples that probes are fitted to, at most."""
RHO = 0.05
"""Radius of SAM in joint training, as it is by default in IGM."""


def add_options(parser: Options) -> None:
    """``--methods``, ``--probes``, ``--combine``."""
    parser.add_argument("--methods", default="all", help="names with commas, or 'all'")
    parser.add_argument(
        "--probes",
        action="store_true",
        help="also score linear predictions from the frozen features of every encoder, which compare across rows",
    )
    parser.add_argument(
        "--combine",
        nargs="+",
        metavar="DIR",
        help="train nothing: put the comparisons that are in these directories, one data set each, into one table",
    )


def plan(given: Given) -> list[Row]:
    """Each modality alone, and the methods; IGM without its sharpness-aware steps, and joint training at its cost."""
    rows = alone(given.modalities)
    for name in method_names(given.own.methods, given.task):
        rows.append(Row(name, name))
        if name == "IGM":
            rows.append(Row("IGM without SAM", name, {"method.sam": "off"}))
            # two passes each way per batch, in stages as long as the budget: joint training at that cost
            rows.append(Row("Joint + SAM", "Joint", {"sam": RHO}))
            rows.append(Row("Joint, epochs doubled", "Joint", {"epochs": 2 * given.recipe.options.epochs}))
    return rows


def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
    """The records of the runs."""
    records = [
        with_candidates(run.record, run.history) | ({} if run.record["method"] == UNIMODAL else {"label": run.row})
        for run in runs
    ]
    result: dict[str, Any] = {"split": common_split(runs), "records": records}
    if given.own.probes:
        result["probes"], result["score"] = _probes(runs, result["split"]), given.task.yardstick
    return result


def _probes(runs: Sequence[Trained], split: str) -> Scores:
    """Score of a linear prediction from the features of each encoder that the run trained."""
    scores: Scores = {}
    for run in runs:
        trainer, job, _ = open_run(str(run.directory))
        model, tested = trainer.model, getattr(job.splits, split)
        shown = sample(job.splits.train, SAMPLES)
        for m in trainer.method.reads(model.modalities):
            probe = linear_probe(features(model, shown, m), features(model, tested, m), task=model.task)
            scores.setdefault(run.row, {}).setdefault(m, {})[str(run.seed)] = probe.score
    return scores


def finding(data: Mapping[str, Any]) -> str:
    """The best row, and what differs from joint training beyond its interval."""
    if "sets" in data:
        return " ".join(f"{name}: {finding(result)}" for name, result in data["sets"].items())
    summary, metric = summarize(data["records"], split=data["split"]), data["records"][0]["monitor"]
    column = f"{FUSED}/{metric}"
    cells = {row: cells[column] for row, cells in summary.rows.items() if column in cells}
    best = next((row for row, cell in cells.items() if cell.rank == 1), None)
    leader = "" if best is None else f"Best on average: {best}, {cell_text(column, cells[best])}. "
    beside = _beside(summary, cells, metric)
    return f"{SPLITS[data['split']].capitalize()} {named(metric)}{unit(metric)}. {leader}{beside}"


def _beside(summary: Summary, cells: Mapping[str, Cell], metric: str) -> str:
    """Who is above and below the baseline by more than the interval; of one seed there is none."""
    changes = {row: cell.difference for row, cell in cells.items() if cell.difference is not None}
    if not changes:
        return ""
    if all(d.low is None for d in changes.values()):
        return f"Beside {summary.baseline} there are no intervals: one seed says nothing of the spread."
    sides: dict[str, list[str]] = {"above": [], "below": []}
    for row, d in changes.items():
        if d.without_zero:
            better = (d.mean > 0) != lower_is_better(metric)
            sides["above" if better else "below"].append(f"{row} {effect(d, metric)}")
    texts = [f"{side} it {', '.join(rows) or 'none'}" for side, rows in sides.items()]
    return f"Beside {summary.baseline}, intervals without zero: {'; '.join(texts)}."


def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
    """The table, and its fused and unimodal scores as a figure; of several sets, one table."""
    if "sets" in data:
        return [_several(data["sets"])]
    summary = summarize(data["records"], split=data["split"])
    first = data["records"][0]
    return [
        summary_html(summary),
        Picture(
            "scores",
            lambda: score_dots(summary, first["monitor"], first["modalities"]),
            f"{SPLITS[data['split']].capitalize()} {named(first['monitor'])} of each modality and fused, per method.",
        ),
        *_probes_html(data, first["modalities"]),
    ]


def _probes_html(data: Mapping[str, Any], modalities: Sequence[str]) -> list[str]:
    if "probes" not in data:
        return []
    rows = [
        [row, *(percent(scores[m].values()) if m in scores else "–" for m in modalities)]
        for row, scores in data["probes"].items()
    ]
    return [
        f"Linear probes: {SPLITS[data['split']]} {data.get('score', 'accuracy')} (%) of a ridge regression on the "
        f"frozen features of each encoder, fitted to at most {SAMPLES} training samples. Of the scores of single "
        "modalities these compare across rows.",
        html_table(["method", *modalities], rows, numbers=len(modalities)),
    ]


FUSIONS = {"Late": "fusion of decisions (late)", "Shared": "fusion of decisions (late)"}
"""Fusion -> heading; every other fuses features."""
ALONE, EARLY = "one modality alone", "fusion of features (early)"


def _several(sets: Mapping[str, Any]) -> str:
    summaries = {name: summarize(result["records"], split=result["split"]) for name, result in sets.items()}
    columns = {
        name: [c for c in s.columns if c in SHOWN] or [c for c in s.columns if says_how_good(c)]
        for name, s in summaries.items()
    }
    groups: dict[str, dict[str, None]] = {ALONE: {}, EARLY: {}, FUSIONS["Late"]: {}}
    for result in sets.values():
        for record in result["records"]:
            heading = ALONE if record["method"] == UNIMODAL else FUSIONS.get(record["fusion"], EARLY)
            groups[heading].setdefault(record["label"])
    return sets_html(summaries, columns, {heading: list(labels) for heading, labels in groups.items() if labels})


SHOWN = tuple(f"{FUSED}/{metric}" for metric in ("accuracy", "macro_f1", "map"))


def combine(directories: Sequence[Path]) -> dict[str, Any]:
    """The kept comparisons of several data sets as one.

    Args:
        directories: what ``--out`` was for each of them.

    Raises:
        FileNotFoundError: one of them has no comparison.
        UsageError: two of them are of one data set.
    """
    sets: dict[str, Any] = {}
    for directory in directories:
        path = directory / "comparison" / "data.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"--combine {directory}: there is no {path}. Run `counterpoise study comparison --data ... --out "
                f"{directory}` first."
            )
        kept = json.loads(path.read_text(encoding="utf-8"))
        for one in kept.get("sets", [kept]):
            name = one["data"]["name"]
            if name in sets:
                raise UsageError(f"--combine: {directory} is of the data set {name!r}, as one before it is.")
            sets[name] = one
    return {
        "study": "comparison",
        "sets": list(sets.values()),
        "result": {"sets": {name: one["result"] for name, one in sets.items()}},
    }
