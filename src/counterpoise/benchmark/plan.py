"""Which runs a comparison consists of, and how each of them is started."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from counterpoise import methods
from counterpoise._checks import did_you_mean
from counterpoise._files import write_text
from counterpoise._yaml import read_yaml
from counterpoise.benchmark import runner
from counterpoise.benchmark.runner import Outcome
from counterpoise.data.readers import ReadError
from counterpoise.metrics import BACKEND
from counterpoise.metrics.result import result_of
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import UsageError, usage
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.recipe import Recipe
from counterpoise.task import Task

UNIMODAL = "Unimodal"
PRELOAD = ("counterpoise.cli.fit", "counterpoise.engine.strategy", BACKEND)
"""What a run imports before anything else happens; all runs share it."""
FIXED = {
    "--method": "--methods names the methods",
    "--seed": "--seeds gives the seeds",
    "--run_dir": "--out is the directory of all runs",
    "--label": "--settings names variants",
    "--resume": "unfinished runs go on by themselves",
}
"""Options of ``fit`` that a comparison sets itself."""


@dataclass(frozen=True)
class Row:
    """One setting of a comparison, run once per seed.

    Attributes:
        name: in figures and tables.
        method: name of the method.
        options: options of ``fit`` on top of the common ones, without their dashes.
        first: the other rows wait for this one, and for what a study makes of it.
        label: of its runs in reports; None where the method's own says it all.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    first: bool = False
    label: str | None = None


def base(common: Sequence[str], method: str, prog: str, others: Iterable[str] = ()) -> Recipe:
    """The recipe that all rows are variants of; what is wrong with its data is said here, and not by every run.

    Args:
        common: options of ``fit`` for all runs.
        method: that it names, as one must be named.
        prog: the command, for messages.
        others: options of the command itself, for messages about misspelt ones.

    Raises:
        UsageError: for options that there are not, and those that a comparison sets itself.
    """
    refuse(common, FIXED)
    recipe = Recipe.parse([*common, "--method", method], fit_parser(prog, others))
    with usage():
        _ = recipe.splits
    return recipe


def refuse(arguments: Sequence[str], fixed: Mapping[str, str]) -> None:
    """UsageError when an option is among those that a command sets itself; ``fixed`` says by what."""
    for option in (argument.split("=")[0] for argument in arguments):
        if option in fixed:
            raise UsageError(f"{option} is an option of `fit`; here {fixed[option]}.")


def plan(
    recipe: Recipe, rows: Sequence[Row], seeds: Sequence[int], *, weights_later: bool = False, attempt: bool = True
) -> dict[str, list[Recipe]]:
    """Row -> the recipes of its runs, one per seed; each row's model and trainer are made once before anything starts.

    Args:
        recipe: the one that all are variants of.
        rows: of the comparison; two of one setting share their runs.
        seeds: of the runs.
        attempt: make each row's model and trainer once, to see that they fit.
        weights_later: files of ``encoder_weights`` need not be there yet.

    Raises:
        UsageError: for a row that cannot be trained; the message names it.
    """
    planned: dict[str, list[Recipe]] = {}
    tried = set[str]()
    for row in rows:
        own = recipe.but({"method": row.method, **row.options}).but({"label": row.label})
        planned[row.name] = [own.but({"seed": seed}) for seed in seeds]
        if not attempt or planned[row.name][0].id in tried:
            continue
        tried.add(planned[row.name][0].id)
        attempt_row(planned[row.name][0], row.name, with_weights=not weights_later)
    return planned


def attempt_row(recipe: Recipe, row: str, *, with_weights: bool = True) -> None:
    """Make the model and trainer of a row once; UsageError, which names it, when they do not fit."""
    with usage():
        try:
            Job(recipe).tried(with_weights=with_weights)
        except ReadError:
            raise
        except ValueError as error:
            raise ValueError(f"{error} (Of the row {row}.)") from error


def command(recipe: Recipe, directory: Path) -> list[str]:
    """The command line of one run, started from its recipe in ``config.yaml``; it resumes when started again."""
    path = directory / "config.yaml"
    begun = read_yaml(path.read_text(encoding="utf-8")) if path.is_file() else None
    if isinstance(begun, dict) and "balance" in begun:  # what is recorded was settled when the run began
        recipe = recipe.but({"balance": begun["balance"]})
    directory.mkdir(parents=True, exist_ok=True)
    write_text(path, recipe.text)
    run_dir = ["--run_dir", str(directory)]
    return [sys.executable, "-m", "counterpoise", "fit", "--config", str(path), *run_dir, "--resume"]


def done(recipe: Recipe, directory: Path) -> bool:
    """Whether the run in a directory has all scores; one of a search has none on test."""
    result = result_of(directory)
    return result is not None and (result.get("test") is not None or recipe.splits.test is None)


def run(recipes: Sequence[Recipe], runs: Path, **execution: Any) -> Outcome:
    """Run what is not done; see ``runner.run``."""
    return runner.run(recipes, command, runs, preload=PRELOAD, done=done, **execution)


def alone(modalities: Iterable[str]) -> list[Row]:
    """Each modality trained alone."""
    return [Row(f"{m} alone", UNIMODAL, {"method.modality": m}) for m in modalities]


def defined_for(names: Iterable[str], task: Task) -> list[str]:
    """Those of the methods that are defined for a task; prints which are not."""
    fits = {name: isinstance(task, getattr(methods, name).tasks) for name in names}
    if not all(fits.values()):
        print(f"Not defined for {task.kind} targets: {', '.join(name for name, is_in in fits.items() if not is_in)}.")
    return [name for name, is_in in fits.items() if is_in]


def method_names(text: str, task: Task | None = None, *, option: str = "--methods") -> list[str]:
    """Methods from a text with commas, in any case; ``all`` are all of the task that need no further option."""
    folded = {name.casefold(): name for name in methods.__all__ if name != UNIMODAL}
    if text.casefold() == "all":
        return list(folded.values()) if task is None else defined_for(folded.values(), task)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError(f"{option}: " + did_you_mean("method", name, folded.values()))
    return list(dict.fromkeys(folded[name.casefold()] for name in names))


def seeds_of(text: str) -> list[int]:
    """The value of ``--seeds``; UsageError when one is there twice, as both would be one run."""
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds must be whole numbers separated by commas; got {text!r}.") from None
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds must differ from each other; got {', '.join(map(str, seeds))}.")
    return seeds
