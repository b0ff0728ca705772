"""``counterpoise fit``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from counterpoise.cli.job import Job
from counterpoise.cli.options import fit_parser, parse


def main(arguments: Sequence[str]) -> int:
    """Train, select on validation, evaluate on test."""
    parser = fit_parser()
    parser.add_argument("--resume", action="store_true", help="Continue the unfinished run in run_dir, if any.")
    options = parse(parser, arguments)
    resume = bool(options.pop("resume"))
    job = Job.of(parser, options)
    trainer = job.trainer()
    if trainer.fabric.is_global_zero:
        print(job.source.describe(), flush=True)
    result = trainer.run(job.splits, resume=resume, data=job.source.name)
    if trainer.fabric.is_global_zero:
        part = "test" if result["test"] else "val"
        print_scores(f"{result['label']} on {part}, weights of epoch {result['best_epoch']}", result[part])
        if trainer.run_dir is not None:
            print(f"Everything is in {trainer.run_dir}; `counterpoise report {trainer.run_dir}` draws it.")
    return 0


def print_scores(title: str, scores: dict[str, float], *, more: dict[str, dict[str, float]] | None = None) -> None:
    """Scores as a table on standard output: a row for the fused prediction, one per modality, one per subset."""
    rows: dict[str, dict[str, Any]] = {}
    for key, value in scores.items():
        name, metric = key.rsplit("/", 1)
        rows.setdefault(name, {})[metric] = value
    for name, values in (more or {}).items():
        rows[f"only {name}"] = values
    metrics = list(dict.fromkeys(metric for values in rows.values() for metric in values))
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for name, values in rows.items():
        table.add_row(name, *(f"{values[m]:.4f}" if m in values else "" for m in metrics))
    Console().print(table)
