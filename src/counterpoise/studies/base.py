"""What a study is, and what several of them need."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from counterpoise._checks import did_you_mean
from counterpoise.benchmark.cells import Difference, change_text
from counterpoise.benchmark.notes import read_out_notes
from counterpoise.benchmark.plan import Row
from counterpoise.benchmark.summary import mean_sd, paired_difference, percent
from counterpoise.engine.setup import check_metrics
from counterpoise.metrics import SHARES
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.recipe import Recipe
from counterpoise.report.markup import Picture
from counterpoise.task import Task
from counterpoise.types import FUSED

Scores = dict[str, dict[str, dict[str, float]]]
"""Row -> series (fused, a modality) -> seed, as text for JSON -> score."""


@dataclass(frozen=True)
class Trained:
    """A finished run of a row.

    Attributes:
        row: its name.
        seed: of the run.
        directory: of the run.
        record: content of ``result.json``.
        history: lines of ``metrics.jsonl``.
    """

    row: str
    seed: int
    directory: Path
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Given:
    """What the user asked for.

    Attributes:
        own: options of the study.
        modalities: of the data, in order.
        recipe: of which all runs are variants.
        seeds: of the runs.
        runs: folder of the runs.
        folder: where the study keeps arrays.
    """

    own: argparse.Namespace
    modalities: tuple[str, ...]
    recipe: Recipe
    seeds: Sequence[int]
    runs: Path
    folder: Path

    @property
    def fusion(self) -> bool:
        """Whether the user names a fusion."""
        return self.recipe.options.fusion is not None

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.recipe.splits.task

    @property
    def metric(self) -> str:
        """``--metric``, or else the task's, or what selects where runs do not report that."""
        return self.scored([self.own.metric] if self.own.metric else [], "--metric")[0]

    def scored(self, names: Sequence[str], option: str) -> list[str]:
        """These metrics, the task's monitor for none; UsageError for one that the runs do not report."""
        with usage():
            monitor, metrics = check_metrics(self.task, self.recipe.options.metrics, self.recipe.options.monitor)
        known = dict.fromkeys((monitor, *metrics, "loss"))
        for name in names:
            if name not in known:
                raise UsageError(f"{option}: " + did_you_mean("metric", name, known))
        return list(dict.fromkeys(names)) or [self.task.monitor if self.task.monitor in known else monitor]


class Study(Protocol):
    """A module of this package."""

    TITLE: str
    ABOUT: str
    """What is computed, and what is unknown about the original."""

    @staticmethod
    def add_options(parser: Options) -> None:
        """Its own options."""
        ...

    @staticmethod
    def plan(given: Given) -> list[Row]:
        """Which runs it needs."""
        ...

    @staticmethod
    def prepare(given: Given) -> None:
        """Make what the other rows need of those that come ``first``; only a study with such rows has it."""
        ...

    @staticmethod
    def compute(runs: Sequence[Trained], given: Given) -> dict[str, Any]:
        """Plain values for JSON; arrays go to files in ``given.folder``."""
        ...

    @staticmethod
    def finding(data: Mapping[str, Any]) -> str:
        """What came out, in a sentence or two made from the numbers that ``compute`` kept."""
        ...

    @staticmethod
    def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
        """Figures, tables and paragraphs of text from what ``compute`` kept, and from nothing else."""
        ...


# -- runs --------------------------------------------------------------------------------------------
def complete_seed(finished: Iterable[tuple[str, int]]) -> int:
    """The first seed that most rows have, of (row, seed): what is drawn of one seed should show every row."""
    rows: dict[int, set[str]] = {}
    for row, seed in finished:
        rows.setdefault(seed, set()).add(row)
    return max(sorted(rows), key=lambda seed: len(rows[seed]))


def file_name(*parts: str) -> str:
    """A name for a file of arrays; different parts never share one, whatever a modality is called."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", part) for part in parts]
    lost = any(re.search(r"[^A-Za-z0-9 ]", part) for part in parts)
    mark = f"-{hashlib.sha256(repr(parts).encode()).hexdigest()[:8]}" if lost else ""
    return "-".join(plain) + mark


# -- scores --------------------------------------------------------------------------------------------
def common_split(runs: Sequence[Trained]) -> str:
    """``"test"`` when every run has test scores, ``"val"`` otherwise."""
    return "test" if all(run.record.get("test") for run in runs) else "val"


def scores(runs: Sequence[Trained], metric: str) -> dict[str, Any]:
    """``{"split", "metric", "rows": Scores, "unimodal"}`` of the selected weights."""
    split = common_split(runs)
    rows: Scores = {}
    for run in runs:
        for series in (*run.record["modalities"], FUSED):
            value = run.record[split].get(f"{series}/{metric}")
            if value is not None:
                rows.setdefault(run.row, {}).setdefault(series, {})[str(run.seed)] = value
    kinds = {run.row: str(run.record["unimodal"]) for run in runs if run.record.get("unimodal")}
    return {"split": split, "metric": metric, "rows": rows, "unimodal": kinds}


def read_outs(data: Mapping[str, Any]) -> str:
    """What the scores of single modalities are of, for a caption; empty for runs that did not say it yet."""
    return "".join(f" {note}" for note in read_out_notes(data.get("unimodal", {})))


def values(cells: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Without the seeds' numbers, as figures take it."""
    return {row: {series: list(by.values()) for series, by in by_series.items()} for row, by_series in cells.items()}


def metric_option(parser: Options) -> None:
    """``--metric``."""
    parser.add_argument("--metric", help="the score: one that the runs report; accuracy, map or rmse by default")


def unit(metric: str) -> str:
    """``" (%)"`` of a share, else nothing."""
    return " (%)" if metric in SHARES else ""


def cell(numbers: Iterable[float], metric: str) -> str:
    """Mean ± standard deviation, of shares in per cent."""
    if metric in SHARES:
        return percent(numbers)
    mean, sd = mean_sd(numbers)
    return f"{mean:.4g}" + ("" if sd is None else f" ± {sd:.2g}")


def strokes(counts: Iterable[int]) -> str:
    """What whiskers and strokes of a figure are, for a caption; nothing where every value is of one seed."""
    return "; whiskers ± sd, strokes single seeds." if max(counts, default=0) > 1 else "."


def seeds_of(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[int]:
    """How many values each cell of ``Scores`` has."""
    return [len(seeds) for series in rows.values() for seeds in series.values()]


# -- sentences -----------------------------------------------------------------------------------------
def effect(paired: Difference | None, metric: str) -> str:
    """A difference with its interval, ``"+2.3 [+0.2, +4.3]"``; of shares in points of per cent."""
    return "–" if paired is None else change_text(metric, paired)


def told(effects: Mapping[str, Difference | None], metric: str) -> str:
    """Which of these differences their intervals show, and which they do not; of one seed, only what they are.

    Args:
        effects: what it is of -> the difference.
        metric: what it is measured in.
    """
    there = {name: d for name, d in effects.items() if d is not None}
    if not there:
        return "No two rows have a seed in common."
    texts = {name: f"{name} {effect(d, metric)}" for name, d in there.items()}
    if all(d.low is None for d in there.values()):
        return f"{'; '.join(texts.values())}: of one seed, which says nothing of the spread."
    clear = [name for name, d in there.items() if d.without_zero]
    sides = {"": clear, "not shown: ": [name for name in there if name not in clear]}
    said = ". ".join(title + "; ".join(texts[name] for name in names) for title, names in sides.items() if names)
    return said.replace(". not", ". Not") + "."


def by_seed(rows: Mapping[str, Mapping[str, Mapping[str, float]]], row: str, series: str = FUSED) -> dict[int, float]:
    """Seed -> score of a row."""
    return {int(seed): value for seed, value in rows.get(row, {}).get(series, {}).items()}


def between(
    rows: Mapping[str, Mapping[str, Mapping[str, float]]], row: str, other: str, series: str = FUSED
) -> Difference | None:
    """How much more a row scores than another, with its 95 % interval; None when they have no seed in common."""
    return paired_difference(by_seed(rows, row, series), by_seed(rows, other, series), 0.95)


SPLITS = {"test": "test", "val": "validation"}
