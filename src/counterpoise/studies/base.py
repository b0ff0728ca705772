"""What a study is, and what several of them need."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jsonargparse import Namespace

from counterpoise import methods
from counterpoise._checks import did_you_mean
from counterpoise._yaml import read_yaml
from counterpoise.benchmark.grid import RunConfig
from counterpoise.benchmark.notes import read_out_notes
from counterpoise.benchmark.summary import mean_sd
from counterpoise.cli import benchmark
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.report.markup import Picture

FUSED = "fused"
Scores = dict[str, dict[str, dict[str, float]]]
"""Row -> series (fused, a modality) -> seed, as text for JSON -> score."""


@dataclass(frozen=True)
class Row:
    """One setting of a study, run once per seed.

    Attributes:
        name: in figures and tables.
        method: name of the method.
        options: options of ``fit`` on top of the common ones, without their dashes.
        first: the other rows wait for this one, and for what ``prepare`` makes of it.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    first: bool = False

    @property
    def key(self) -> str:
        """What the runs are known by; the same in every study, so that they share them.

        Options that say what is the default anyway do not count.
        """
        options = self.stated
        if set(options) <= {"method.modality"}:
            return self.method
        text = ", ".join(f"{name.removeprefix('method.')}={value}" for name, value in sorted(options.items()))
        if len(text) > 60:  # it becomes the name of a folder
            text = f"{text[:48]}... {hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return f"{self.method}({text})"

    @property
    def stated(self) -> dict[str, Any]:
        """The options that differ from the method's defaults."""
        known = inspect.signature(getattr(methods, self.method).__init__).parameters

        def default(name: str, value: Any) -> bool:
            parameter = known.get(name.removeprefix("method.")) if name.startswith("method.") else None
            return parameter is not None and _plain(value) == parameter.default

        return {name: value for name, value in self.options.items() if not default(name, value)}


def _plain(value: Any) -> Any:
    """A value as typed: ``"1e-3"`` and 0.001 are the same."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return read_yaml(value)


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
        common: options of ``fit`` for all runs, as typed.
        options: the same, parsed.
        seeds: of the runs.
        runs: folder of the runs.
        folder: where the study keeps arrays.
    """

    own: argparse.Namespace
    modalities: tuple[str, ...]
    common: Sequence[str]
    options: Namespace
    seeds: Sequence[int]
    runs: Path
    folder: Path

    @property
    def fusion(self) -> bool:
        """Whether the user names a fusion."""
        return self.options.fusion is not None


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
    def draw(data: Mapping[str, Any], folder: Path) -> list[Picture | str]:
        """Figures, tables and paragraphs of text from what ``compute`` kept, and from nothing else."""
        ...


# -- runs --------------------------------------------------------------------------------------------
def configs(rows: Sequence[Row], seeds: Sequence[int], common: Sequence[str]) -> dict[str, list[RunConfig]]:
    """Row -> its runs, one per seed; every option is parsed once before anything starts."""
    settings = {row.key: {"method": row.method, **row.stated} for row in rows if row.key != row.method}
    names = list(dict.fromkeys(row.key for row in rows))
    later = any(row.first for row in rows)  # they train the encoders of the others
    planned = benchmark.plan(names, seeds, common, settings, weights_later=later)

    def of(row: Row) -> list[RunConfig]:
        found = [config for config in planned if config.method == row.key]
        if row.method == benchmark.UNIMODAL and row.key == row.method:
            own = f"--method.modality={row.options['method.modality']}"
            found = [config for config in found if own in config.settings["options"]]
        return found

    return {row.name: of(row) for row in rows}


def alone(modalities: Iterable[str]) -> list[Row]:
    """Each modality trained alone."""
    return [Row(f"{m} alone", benchmark.UNIMODAL, {"method.modality": m}) for m in modalities]


def method_names(text: str, *, option: str = "--methods") -> list[str]:
    """Methods from a text with commas, in any case; ``all`` are all that need no further option."""
    folded = {name.casefold(): name for name in methods.__all__ if name != benchmark.UNIMODAL}
    if text.casefold() == "all":
        return list(folded.values())
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError(f"{option}: " + did_you_mean("method", name, folded.values()))
    return list(dict.fromkeys(folded[name.casefold()] for name in names))


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
    return {row: {series: list(by.values()) for series, by in found.items()} for row, found in cells.items()}


def percent(numbers: Iterable[float]) -> str:
    """Mean ± standard deviation of shares, in per cent."""
    mean, sd = mean_sd(numbers)
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}")


def metric_option(parser: Options) -> None:
    """``--metric``."""
    parser.add_argument("--metric", default="accuracy", choices=["accuracy", "macro_f1", "map"], help="the score")


SPLITS = {"test": "test", "val": "validation"}
