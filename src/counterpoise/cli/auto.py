"""``counterpoise auto``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoise._checks import duration, shown
from counterpoise.answer.auto import LABEL, answered, tried
from counterpoise.answer.failures import Attempt, sound
from counterpoise.answer.preset import DEFAULT, Preset
from counterpoise.answer.rates import Trial, best_rate, left, rates_of
from counterpoise.answer.several import SEEDS_APART, together, trained_already
from counterpoise.benchmark.plan import refuse, run
from counterpoise.cli.execution import add_execution, execution_of
from counterpoise.data.split import Splits
from counterpoise.engine import Trainer
from counterpoise.metrics.result import result_of
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.options import AUTO, fit_parser
from counterpoise.recipe.recipe import Recipe
from counterpoise.recipe.trained import open_run
from counterpoise.types import FUSED

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
    parser.add_argument("--runs", type=int, default=1, help="so many, from different seeds, as one model")
    add_execution(parser)
    own, common = parser.parse_known_args(arguments)
    execution, several = execution_of(own), own.runs > 1
    if own.runs < 1:
        raise UsageError(f"--runs must be at least 1; got {own.runs}.")
    refuse(common, FIXED)
    plain = plain_recipe(common, PROG, ["--resume", "--against", "--runs"], LABEL)
    recipe = plain.but(DEFAULT.options())
    with usage():
        Job(recipe).tried()
    directory = directory_of(recipe, LABEL)
    if several and directory is None:
        raise UsageError("--runs needs a run_dir, where the runs are.")
    rival = None if own.against is None else open_run(own.against)[0]
    against = None if rival is None else (rival.label or rival.method.label, rival)
    print(shown(Job(recipe).describe()), flush=True)
    seconds = None if recipe.options.budget is None else duration("budget", recipe.options.budget)
    folder = None if directory is None else Path(directory)
    where = folder / "runs" / "0" if several and folder is not None else folder
    runs = Runs(plain, DEFAULT, recipe.splits, where, tried_rates(recipe, common), several)
    share = None if seconds is None else seconds / own.runs
    made, failed = sound(runs.attempt, runs.alone, recipe.splits, share, where, resume=own.resume)
    if several and folder is not None:
        rest = None if share is None else share * (own.runs - 1)
        every = [made, *runs.others(own.runs, made, failed, rest, folder / "runs", execution)]
        against = against or (f"one run of {len(every)}", made.trainer)
        made = together(every, recipe.splits, folder, name=recipe.source.name, label=LABEL)
    answer = answered(made, recipe.splits, failed, folder, against)
    print(shown(str(answer)))
    if answer.page is not None:
        print(f"Everything is in {directory}; open {answer.page} in a browser.")
    return 0


def plain_recipe(common: Sequence[str], prog: str, others: Sequence[str], label: str) -> Recipe:
    """What all trained here has in common, with the preset's fusion unless another is named."""
    options = [f"--fusion={DEFAULT.fusion}", *common, "--method=Joint", f"--label={label}"]
    return Recipe.parse(options, fit_parser(prog, others))


def tried_rates(recipe: Recipe, common: Sequence[str]) -> list[float]:
    """Learning rates to try; none where one is given."""
    given = {argument.split("=")[0] for argument in common} & {"--optimizer.lr", "--config"}
    arguments = recipe.options.optimizer.init_args
    return [] if given or "lr" not in arguments else rates_of(arguments.lr)


def directory_of(recipe: Recipe, label: str) -> str | None:
    """Where the run is written."""
    if recipe.options.run_dir != AUTO:
        return recipe.options.run_dir
    name = re.sub(r"[^A-Za-z0-9]+", "-", recipe.source.name).strip("-")
    return str(Path("runs") / f"{name}-{label}-s{recipe.seed}")


@dataclass(frozen=True)
class Runs:
    """What is trained, as variants of a recipe.

    Attributes:
        recipe: what all of them have in common.
        preset: how it is trained.
        data: what a run is given; the data set, or what a teacher makes of it.
        directory: of the run.
        rates: that are tried.
        several: it is one of several, so that a resumed answer opens it when it has ended.
    """

    recipe: Recipe
    preset: Preset
    data: Splits
    directory: Path | None
    rates: Sequence[float]
    several: bool

    def attempt(self, failed: Sequence[str], seconds: float | None, resume: bool) -> Attempt:
        """The run without the experts that failed."""
        recipe = self._without(failed)
        trials = self._trials(recipe, seconds, resume=resume) if self.rates else []
        final = recipe.but({"optimizer.lr": best_rate(trials)}) if trials else recipe
        where = None if self.directory is None else str(self.directory)
        trainer = Job(final).trainer(budget=left(seconds, trials), run_dir=where)
        opened = trained_already(trainer, self.data) if resume and self.several else None
        result = opened or trainer.run(self.data, resume=resume, data=recipe.source.name, config=final.text)
        return Attempt(trainer, trials, result)

    def others(
        self,
        count: int,
        first: Attempt,
        failed: Sequence[str],
        seconds: float | None,
        folder: Path,
        execution: Mapping[str, Any],
    ) -> list[Attempt]:
        """The runs of other seeds at the first one's rate, by the runner; without those that fail, which is said."""
        recipe, seed = self._without(failed), self.recipe.seed
        changes = {"optimizer.lr": best_rate(first.trials)} if first.trials else {}
        if seconds is not None:
            rounds = -(-(count - 1) // execution["jobs"])
            changes["budget"] = seconds / rounds  # the same when resumed, as it is in their ids
        recipe = recipe.but(changes) if changes else recipe
        recipes = [recipe.but({"seed": seed + SEEDS_APART * number}) for number in range(1, count)]
        outcome = run(recipes, folder, **execution)
        print(outcome.message(), flush=True)
        if outcome.exit_code == 130:
            raise KeyboardInterrupt
        ended = [folder / one.id for one in recipes if one.id not in outcome.failed]
        return [Attempt(open_run(str(path), trust=True)[0], [], dict(result_of(path) or {})) for path in ended]

    def alone(self, modality: str, failed: Sequence[str], seconds: float | None) -> Trainer:
        """One modality, to see whether it fails."""
        rate = {"optimizer.lr": self.rates[0]} if self.rates else {}
        recipe = self.recipe.but({"method": "Unimodal", "method.modality": modality, **rate})
        return Job(recipe).trainer(budget=seconds, run_dir=None, progress=False)

    def _without(self, failed: Sequence[str]) -> Recipe:
        preset = self.preset.without(failed, self.data.modalities)
        fusion = {"fusion": preset.fusion} if FUSED in failed else {}
        return self.recipe.but({**preset.options(), **fusion})

    def _trials(self, recipe: Recipe, budget: float | None, *, resume: bool) -> list[Trial]:
        def make(lr: float, epochs: int, budget: float | None) -> Trainer:
            short = Job(recipe.but({"optimizer.lr": lr}))
            return short.trainer(epochs=epochs, budget=budget, run_dir=None, progress=False)

        print(f"Trying the learning rates {', '.join(f'{rate:g}' for rate in self.rates)} ...", flush=True)
        trials = tried(make, self.data, self.rates, recipe.options.epochs, budget, self.directory, resume)
        print(f"{best_rate(trials):g} is best on validation.", flush=True)
        return trials
