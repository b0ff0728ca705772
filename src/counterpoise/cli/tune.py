"""``counterpoise tune``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from counterpoise import methods
from counterpoise._checks import choice, did_you_mean
from counterpoise._extras import require
from counterpoise._files import write_text
from counterpoise.benchmark import plan
from counterpoise.benchmark.runner import drive
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.engine.setup import check_metrics
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.recipe import Recipe
from counterpoise.tuning import database
from counterpoise.tuning.search import Search, TrialRun
from counterpoise.tuning.space import SYNTAX, Parameter, parameter

FIXED = {
    "--seed": "--seeds gives the seeds",
    "--run_dir": "--out is the folder of all trials",
    "--label": "a trial has none",
    "--resume": "unfinished trials go on by themselves",
    "--no_test": "no trial sees the test split",
}
"""Options of ``fit`` that a trial sets itself."""
CHECKED = ("method", "fusion", "optimizer", "schedule")


def main(arguments: Sequence[str]) -> int:
    """Search, then write the best configuration and what was tried."""
    parser = Options(
        prog="counterpoise tune",
        description="Search options of a method that are best on validation, by Optuna. No trial sees the test split. "
        "Every other option is one of `counterpoise fit` and holds for all trials; started again, it goes on, and the "
        "same command on further machines joins in when --storage is a database that they share.",
    )
    parser.add_argument("--out", required=True, help="folder of the search")
    parser.add_argument("--method", required=True, help="the method whose options are searched")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=...", help=SYNTAX)
    parser.add_argument("--trials", type=int, default=20, help="how many, of all processes together")
    parser.add_argument("--seeds", default="0", help="comma-separated; a trial's score is the mean over them")
    parser.add_argument("--pruner", default="median", help=f"what ends hopeless trials: {', '.join(database.PRUNERS)}")
    parser.add_argument("--storage", help="URL of a database; by default SQLite in --out")
    add_execution(parser)
    own, common = parser.parse_known_args(arguments)
    seeds, execution = plan.seeds_of(own.seeds), execution_of(own)
    if own.trials < 1:
        raise UsageError(f"--trials must be at least 1; got {own.trials}.")
    with usage():
        choice("--pruner", own.pruner, database.PRUNERS)
    require("counterpoise tune", "optuna")
    space = _space(own.param)
    others = [option for action in parser._actions for option in action.option_strings]
    recipe = _checked(own.method, common, space, others).but({"seed": seeds[0]})
    with usage():
        monitor, _ = check_metrics(recipe.splits.task, recipe.options.metrics, recipe.options.monitor)
    out = folder_of(own.out)
    name = database.name_of(recipe, space, seeds)
    _claim(out, name)
    url = own.storage or f"sqlite:///{(out / 'tuning.db').absolute()}"
    warmup = max(1, recipe.options.epochs // 5)
    runs, best = out / "runs", database.direction(monitor)
    with database.connected(url, name, best, own.pruner, warmup, seeds[0]) as (study, storage):
        search = Search(study, storage, space, recipe, seeds, own.trials, runs, monitor)
        with search.leaving():
            outcome = drive(search, command, runs, preload=plan.PRELOAD, **execution)
        if outcome.stopped or outcome.waiting:
            print("Stopped; the same command goes on.")
            return 130
        return _conclude(study, space, recipe, out, monitor, seeds)


def command(run: TrialRun, path: Path) -> list[str]:
    """The command line of one run of a trial."""
    return [*plan.command(run.recipe, path), "--no_test"]


def _space(texts: Sequence[str]) -> list[Parameter]:
    if not texts:
        raise UsageError(f"--param is missing: what may vary, as {SYNTAX}.")
    space = [parameter(text) for text in texts]
    for varied in space:
        if f"--{varied.name}" in (*FIXED, "--method", "--monitor", "--config"):
            raise UsageError(f"--param {varied.name}: this cannot vary between trials.")
        if sum(other.name == varied.name for other in space) > 1:
            raise UsageError(f"--param names {varied.name} twice.")
    return space


def _checked(method: str, common: Sequence[str], space: Sequence[Parameter], others: Sequence[str]) -> Recipe:
    """The recipe at the first corner of the space; every end of it is tried out."""
    folded = {name.casefold(): name for name in methods.__all__}
    if "." not in method and method.casefold() not in folded:
        raise UsageError("--method: " + did_you_mean("method", method, methods.__all__))
    plan.refuse(common, FIXED)
    for option in (argument.split("=")[0] for argument in common):
        if option.lstrip("-") in {p.name for p in space}:
            raise UsageError(f"{option} is fixed and searched by --param; leave one out.")
    first = {p.name: p.ends()[0] for p in space}
    corner = [f"--{name}={value}" for name, value in first.items()]
    parser = fit_parser("counterpoise tune", others)
    recipe = Recipe.parse([*common, *corner, "--method", folded.get(method.casefold(), method)], parser)
    with usage():
        _ = recipe.splits  # what is wrong with the data is said once, here, and not by every run
        for corner in (first, *({**first, p.name: value} for p in space for value in p.ends()[1:])):
            options = recipe.but(corner).options
            parser.instantiate(Namespace(**{key: value for key, value in vars(options).items() if key in CHECKED}))
    return recipe


def _claim(out: Path, name: str) -> None:
    """The folder is of one search: trials of another must not be taken for its own."""
    path = out / "study.json"
    if path.is_file():
        other = json.loads(path.read_text(encoding="utf-8"))["name"]
        if other != name:
            raise UsageError(
                f"--out {out} holds the search {other}, of other options, parameters or seeds than this one ({name}). "
                "Choose another --out."
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"name": name}) + "\n")


def _conclude(
    study: Any, space: Sequence[Parameter], recipe: Recipe, out: Path, monitor: str, seeds: Sequence[int]
) -> int:
    """Write what was found; print the best and how to evaluate it."""
    from counterpoise.tuning import results

    trials = results.rows(study, space)
    about = {"study": study.study_name, "monitor": monitor, "seeds": list(seeds), "method": recipe.method}
    results.write_tables(trials, out, about)
    states = [row["state"] for row in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"Trials: {counts}.")
    done = [row for row in trials if row["state"] == "finished"]
    if not done:
        print(
            "\n".join(["No trial has a score.", *(f"{row['trial']}: {row['error']}" for row in trials if row["error"])])
        )
        return 1
    best = next(row for row in done if row["trial"] == study.best_trial.number)
    values = {p.name: best[p.name] for p in space}
    write_text(out / "best.yaml", recipe.but(values).text)
    page = results.draw(trials, space, out, f"Tuning of {recipe.method}", monitor)
    print(f"Best: trial {best['trial']}, validation {monitor} {best['score']:.4f} (mean of {len(seeds)} seed(s)):")
    print("\n".join(f"  {name} {value}" for name, value in values.items()))
    print(f"Open {page} in a browser; every number is in {out / 'trials.json'}. For the score on the test split:")
    print(f"  counterpoise fit --config {out / 'best.yaml'} --run_dir {out / 'best'}")
    return 0
