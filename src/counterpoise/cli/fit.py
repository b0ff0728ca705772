"""``counterpoise fit``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from counterpoise._checks import shown
from counterpoise.data.readers import ReadError
from counterpoise.data.source import Table as Files
from counterpoise.engine.replicas import is_first
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import usage
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.recipe import Recipe

SPLITS = {"train": "the training split", "val": "the validation split", "test": "the test split"}


def main(arguments: Sequence[str]) -> int:
    """Train, select on validation, evaluate on test."""
    parser = fit_parser()
    parser.add_argument("--resume", action="store_true", help="Continue the unfinished run in run_dir, if any.")
    parser.add_argument("--no_test", action="store_true", help="Leave the test split alone, as tuning does.")
    recipe = Recipe.parse(arguments, parser)
    resume, no_test = bool(recipe.options.pop("resume")), bool(recipe.options.pop("no_test"))
    job = Job(recipe)
    speaks = is_first()
    if speaks:  # before the seconds that reading and the imports of training take
        print(shown(job.source.describe()), flush=True)
    splits = replace(job.splits, test=None) if no_test else job.splits
    if speaks:
        print(shown(job.counts()), flush=True)
    with usage():
        trainer = job.trainer()
    try:
        result = trainer.run(splits, resume=resume, data=job.source.name, config=recipe.text)
    except ReadError as error:
        if trainer.run_dir is None:
            raise
        again = "Mended, the same command with --resume goes on."
        raise ReadError(error.cell, f"{error.reason}. {again}") from error
    if trainer.fabric.is_global_zero:
        part = "test" if result["test"] else "val"
        title = f"{result['label']} on {SPLITS[part]}, weights of epoch {result['best_epoch']}"
        shares, yardstick = result["contributions"], trainer.model.task.yardstick
        print_scores(title, result[part], by=result["unimodal"], shares=shares, yardstick=yardstick)
        if part == "val":
            why = "The test split was left alone" if no_test else "No test samples"
            print(f"{why}: these are the scores that selected the weights, so they flatter.")
        if trainer.run_dir is not None:
            print(f"Everything is in {trainer.run_dir}; `counterpoise report {trainer.run_dir}` draws it.")
            if isinstance(job.source, Files):
                print(f"On other samples: `counterpoise predict {trainer.run_dir} TABLE --out FILE`.")
    return 0


def print_scores(
    title: str,
    scores: dict[str, float],
    *,
    by: str,
    more: dict[str, dict[str, float]] | None = None,
    shares: dict[str, dict[str, float]] | None = None,
    yardstick: str = "accuracy",
) -> None:
    """Scores as a table on standard output: a row for the fused prediction, one per modality, one per subset.

    Args:
        title: the line above.
        scores: ``"fused/accuracy"``, ``"audio/accuracy"``, ...
        by: what predicts from one modality alone.
        more: subset -> its scores.
        shares: modality -> its sampled share in the yardstick and the error of that, where subsets are too many.
        yardstick: the task's.
    """
    rows: dict[str, dict[str, Any]] = {}
    for key, value in scores.items():
        name, metric = key.rsplit("/", 1)
        rows.setdefault(name, {})[metric] = value
    for name, values in (more or {}).items():
        rows[f"from {name}"] = values
    metrics = list(dict.fromkeys(metric for values in rows.values() for metric in values))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for metric in metrics:
        table.add_column(metric.rsplit(".", 1)[-1], justify="right")  # of an import path its end
    for name, values in rows.items():
        table.add_row(Text(shown(name)), *(f"{values[m]:.4f}" if m in values else "" for m in metrics))
    print(shown(title))
    Console().print(table)
    print(f"A modality's row is of {by}.")
    if shares:
        each = ", ".join(f"{m} {100 * s['share']:.1f} ± {100 * s['error']:.1f}" for m, s in shares.items())
        print(f"Not every subset of {len(shares)} modalities is scored. Shapley shares of the {yardstick}, in points ±")
        print(f"standard error over sampled orders of joining: {shown(each)}.")
