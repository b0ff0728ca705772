"""``counterpoise auto``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from counterpoise._checks import duration, shown
from counterpoise.answer.auto import LABEL, answered, tried
from counterpoise.answer.preset import DEFAULT
from counterpoise.answer.rates import Trial, best_rate, left, rates_of
from counterpoise.benchmark.plan import refuse
from counterpoise.engine import Trainer
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import Options, usage
from counterpoise.recipe.options import AUTO, fit_parser
from counterpoise.recipe.recipe import Recipe
from counterpoise.recipe.trained import open_run

PROG = "counterpoise auto"
FIXED = {f"--{name}": "`auto` decides it" for name in (*DEFAULT.options(), "label")}


def main(arguments: Sequence[str]) -> int:
    """One model, and the page that says why."""
    parser = Options(
        prog=PROG,
        description="Train one model that stands up to the best modality alone and to joint training, without a choice "
        "to make, and write a page with the evidence. Takes the options of `counterpoise fit` but --method, --sam and "
        "--pool. The learning rate is found by three short runs, unless --optimizer.lr or --config is given; --budget "
        "30m bounds the time of all training. The run directory is like any other: evaluate, predict, report.",
    )
    parser.add_argument("--resume", action="store_true", help="continue the unfinished run in run_dir, if any")
    parser.add_argument("--against", help="a finished run on the same data to compare with, such as joint training")
    own, common = parser.parse_known_args(arguments)
    refuse(common, FIXED)
    preset = [f"--{name}={value}" for name, value in DEFAULT.options().items()]
    recipe = Recipe.parse(
        [f"--fusion={DEFAULT.fusion}", *common, *preset, f"--label={LABEL}"],
        fit_parser(PROG, ["--resume", "--against"]),
    )
    with usage():
        Job(recipe).tried()
    directory = _directory(recipe)
    rival = None if own.against is None else open_run(own.against)[0]
    print(shown(Job(recipe).describe()), flush=True)
    found_by = {argument.split("=")[0] for argument in common} & {"--optimizer.lr", "--config"}
    seconds = None if recipe.options.budget is None else duration("budget", recipe.options.budget)
    given = found_by or "lr" not in recipe.options.optimizer.init_args
    trials = [] if given else _trials(recipe, directory, seconds, resume=own.resume)
    final = recipe.but({"optimizer.lr": best_rate(trials)}) if trials else recipe
    trainer = Job(final).trainer(budget=left(seconds, trials), run_dir=directory)
    answer = answered(
        trainer, recipe.splits, trials, resume=own.resume, against=rival, data=recipe.source.name, config=final.text
    )
    print(shown(str(answer)))
    if answer.page is not None:
        print(f"Everything is in {directory}; open {answer.page} in a browser.")
    return 0


def _directory(recipe: Recipe) -> str | None:
    """Where the run is written."""
    if recipe.options.run_dir != AUTO:
        return recipe.options.run_dir
    name = re.sub(r"[^A-Za-z0-9]+", "-", recipe.source.name).strip("-")
    return str(Path("runs") / f"{name}-{LABEL}-s{recipe.seed}")


def _trials(recipe: Recipe, directory: str | None, budget: float | None, *, resume: bool) -> list[Trial]:
    def make(lr: float, epochs: int, budget: float | None) -> Trainer:
        short = Job(recipe.but({"optimizer.lr": lr}))
        return short.trainer(epochs=epochs, budget=budget, run_dir=None, progress=False)

    options = recipe.options
    rates = rates_of(options.optimizer.init_args.lr)
    print(f"Trying the learning rates {', '.join(f'{rate:g}' for rate in rates)} ...", flush=True)
    trials = tried(make, recipe.splits, rates, options.epochs, budget, directory, resume)
    print(f"{best_rate(trials):g} is best on validation.", flush=True)
    return trials
