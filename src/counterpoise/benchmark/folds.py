"""A comparison over folds: which runs it has, what their predictions are worth together, and the table of the folds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from counterpoise._files import writing
from counterpoise.benchmark.cells import column_title, number_text
from counterpoise.benchmark.summary import mean_sd
from counterpoise.metrics.result import result_of
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import UsageError, usage
from counterpoise.recipe.recipe import Recipe
from counterpoise.task import Regression, Task, task_of
from counterpoise.types import who_has

UNKNOWN = ("loss", "likelihood")
"""Metrics in the units that a fold standardises by, which no two folds share."""


class Fold(NamedTuple):
    """One division of the data: its number, what is left out, how many samples are learned from and tested on."""

    number: int
    held: str
    learned: int
    tested: int

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.number}" + (f" ({self.held})" if self.held else "")


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of the test samples of one fold, by a model that has not seen them.

    Attributes:
        task: what is predicted, as the fold standardises it.
        outputs: ``"fused"`` or a modality -> (n, width).
        target: (n, ...).
        present: modality -> (n,) bool, where some sample lacks it.
    """

    task: Task
    outputs: Mapping[str, Tensor]
    target: Tensor
    present: Mapping[str, Tensor]


def fold_recipes(recipe: Recipe, folds: str) -> list[Recipe]:
    """The recipe for each fold.

    Raises:
        UsageError: the data cannot be divided so, or are of a kind that has no folds.
    """
    if not hasattr(recipe.source, "pairs"):
        raise UsageError("--folds needs a table or an .npz file; `write_digits` makes a table of the digits.")
    first = recipe.but({"data.folds": folds, "data.fold": 0})
    with usage():
        count = first.source.folds
        rest = [recipe.but({"data.folds": folds, "data.fold": number}) for number in range(1, count)]
        for member in [first, *rest]:
            _ = member.splits  # what is wrong with a fold is said before anything trains
    return [first, *rest]


def fold_of(recipe: Recipe, number: int) -> Fold:
    """What a fold is, for tables."""
    splits, held = recipe.splits, getattr(recipe.source, "held", "")
    assert splits.test is not None
    return Fold(number, held, len(splits.train) + len(splits.val), len(splits.test))


def ratio_of(folds: Sequence[Fold]) -> float:
    """Test samples per sample learned from, in the mean over the folds."""
    return statistics.fmean(fold.tested for fold in folds) / statistics.fmean(fold.learned for fold in folds)


def by_fold(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per row and fold, in place of a seed: the mean of its seeds.

    Args:
        records: contents of ``result.json``, with ``"label"`` and ``"fold"``.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault((str(record["label"]), int(record["fold"])), []).append(record)
    return [
        {**members[0], "seed": fold, **{name: _mean([m.get(name) or {} for m in members]) for name in ("test", "val")}}
        for (_, fold), members in groups.items()
    ]


def _mean(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    keys = [key for key in scores[0] if all(isinstance(one.get(key), int | float) for one in scores)]
    return {key: statistics.fmean(one[key] for one in scores) for key in keys}


def out_of_fold(recipe: Recipe, run: Path, kept: Path) -> OutOfFold:
    """Predictions of the test samples of a finished run; kept in a file, and read from it the next time."""
    splits = recipe.splits
    assert splits.test is not None
    task, present = task_of(splits.task.to_dict()), dict(splits.test.present or {})
    if kept.is_file():
        with np.load(kept) as arrays:
            outputs = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        return OutOfFold(task, outputs, splits.test.target, present)
    trainer = Job(recipe).trainer(run_dir=None, progress=False, devices=1, num_nodes=1)
    trainer.restore(run / "best.ckpt", splits.val)
    outputs = trainer.predict(splits.test).named()
    kept.parent.mkdir(parents=True, exist_ok=True)
    with writing(kept, "wb") as file:
        np.savez(file, **{name: values.numpy() for name, values in outputs.items()})  # pyright: ignore[reportArgumentType]
    return OutOfFold(task, outputs, splits.test.target, present)


def pooled(parts: Sequence[OutOfFold], metrics: Sequence[str]) -> dict[str, float]:
    """Scores of the predictions of all folds together, as if one model had made them.

    Numbers are compared in their own units; metrics in those of a fold's standard deviation are left out.

    Args:
        parts: of the folds.
        metrics: which to report.
    """
    task = parts[0].task
    names = [name for name in parts[0].outputs if all(name in part.outputs for part in parts)]
    if isinstance(task, Regression):
        outputs = {n: torch.cat([part.task.shown(part.outputs[n].double()) for part in parts]) for n in names}
        task = Regression(task.names)
    else:
        outputs = {name: torch.cat([part.outputs[name] for part in parts]) for name in names}
    lacking = {m for part in parts for m in part.present}
    present = {m: torch.cat([who_has(m, part.present, len(part.target)) for part in parts]) for m in lacking}
    known = [metric for metric in metrics if metric not in UNKNOWN]
    return task.scores(outputs, torch.cat([part.target for part in parts]), present or None, known)


@dataclass(frozen=True)
class FoldTables:
    """The scores of every fold, and of all predictions together.

    Attributes:
        folds: in order.
        column: the score that the first table shows.
        scores: row -> number of the fold -> mean of its seeds.
        together: row -> pooled score -> one value per seed.
    """

    folds: Sequence[Fold]
    column: str
    scores: Mapping[str, Mapping[int, float]]
    together: Mapping[str, Mapping[str, Sequence[float]]]

    def per_fold(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: one per fold."""
        rows = [
            [fold.name, str(fold.learned), str(fold.tested), *(self._text(row, fold.number) for row in self.scores)]
            for fold in self.folds
        ]
        return ["fold", "learned from", "tested on", *self.scores], rows

    def _text(self, row: str, number: int) -> str:
        value = self.scores[row].get(number)
        return "–" if value is None else number_text(self.column, value)

    def all_folds(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows: one per method, of what every sample was predicted by the model that had not seen it."""
        columns = list(dict.fromkeys(c for scores in self.together.values() for c in scores if c.startswith("fused/")))
        rows = [
            [row, *(_with_spread(column, scores.get(column, ())) for column in columns)]
            for row, scores in self.together.items()
        ]
        return ["method", *map(column_title, columns)], rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        folds = [fold._asdict() for fold in self.folds]
        return {"folds": folds, "column": self.column, "scores": self.scores, "together": self.together}

    def to_markdown(self) -> str:
        """Both tables."""
        lines = [f"{column_title(self.column)} of each fold", "", *_markdown(*self.per_fold())]
        lines += ["", "All folds together: every sample as predicted by the model that has not seen it", ""]
        return "\n".join([*lines, *_markdown(*self.all_folds())]) + "\n"


def _with_spread(column: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean, sd = mean_sd(values)
    return number_text(column, mean) + ("" if sd is None else f" ± {number_text(column, sd)}")


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(header) + " |", "|---" * len(header) + "|", *("| " + " | ".join(r) + " |" for r in rows)]


def fold_tables(
    members: Mapping[str, Sequence[tuple[int, Recipe]]], folds: Sequence[Fold], out: Path, column: str
) -> FoldTables:
    """The tables of the finished runs in ``out/runs``.

    Args:
        members: row -> number of the fold, and recipe, of each of its runs.
        folds: of the data.
        out: of the comparison; predictions are kept in ``out/predictions``.
        column: the score to show of each fold.
    """
    scores: dict[str, dict[int, float]] = {}
    together: dict[str, dict[str, list[float]]] = {}
    for row, runs in members.items():
        of_fold: dict[int, list[float]] = {}
        parts: dict[int, list[OutOfFold]] = {}
        metrics: Sequence[str] = ()
        for number, recipe in runs:
            result = result_of(out / "runs" / recipe.id)
            if result is None or not result.get("test"):
                continue
            of_fold.setdefault(number, []).append(result["test"][column])
            metrics = [key.removeprefix("fused/") for key in result["test"] if key.startswith("fused/")]
            predicted = out_of_fold(recipe, out / "runs" / recipe.id, out / "predictions" / f"{recipe.id}.npz")
            parts.setdefault(recipe.seed, []).append(predicted)
        scores[row] = {number: statistics.fmean(values) for number, values in of_fold.items()}
        for complete in (complete for complete in parts.values() if len(complete) == len(folds)):
            for key, value in pooled(complete, metrics).items():
                together.setdefault(row, {}).setdefault(key, []).append(value)
    return FoldTables(folds, column, scores, together)
