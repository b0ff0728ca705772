"""``counterpoise distil``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from counterpoise._checks import duration, shown
from counterpoise.answer.distil import LABEL, graduated, preset_of, teach, teacher_of
from counterpoise.answer.failures import sound
from counterpoise.benchmark.plan import refuse
from counterpoise.cli.auto import FIXED, Runs, directory_of, plain_recipe, tried_rates
from counterpoise.recipe.job import Job
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.trained import TRUST, from_python, loaded, written_config

PROG = "counterpoise distil"
OWN = ("--unlabelled", "--resume", "--trust")


def main(arguments: Sequence[str]) -> int:
    """One model that has learned what another says."""
    parser = Options(
        prog=PROG,
        description="Train one model, the student, on what a trained one says (its teacher), such as several runs as "
        "one model (auto --runs 3): at prediction it costs one run of `auto`. Takes the options of `counterpoise "
        "auto`; without --data and --config those that the teacher was trained with. The page says what the student "
        "keeps.",
    )
    parser.add_argument("teacher", help="run directory of the teacher; it comes first")
    parser.add_argument("--unlabelled", metavar="TABLE", help="more samples (.csv, .npz), labels not used")
    parser.add_argument("--resume", action="store_true", help="continue the unfinished run in run_dir, if any")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise UsageError(f"The teacher comes first: {PROG} RUN_DIR [options].")
    own, common = parser.parse_known_args(arguments)
    refuse(common, FIXED)
    model = loaded(own.teacher, trust=own.trust)
    teacher = replace(teacher_of(model), name=own.teacher)
    if not {argument.split("=")[0] for argument in common} & {"--data", "--config"}:
        config = written_config(own.teacher)
        if from_python(config.parent):
            raise UsageError(f"{own.teacher} was trained from Python, so its data are not written down there: --data.")
        common = [f"--config={config}", "--run_dir=auto", "--budget=null", *common]
    plain = plain_recipe(common, PROG, OWN, LABEL)
    with usage():
        preset = preset_of(teacher)
        recipe = plain.but(preset.options())
        Job(recipe).tried()
    print(shown(Job(recipe).describe()), flush=True)
    root = recipe.options.data.init_args.get("root") if own.unlabelled else None
    taught = teach(teacher, recipe.splits, own.unlabelled, root=root)
    more = len(taught.train) - len(recipe.splits.train)
    print(shown(f"  and {more} without labels; {own.teacher} says what to learn of all training samples"), flush=True)
    if not more:
        print("Without such samples (--unlabelled) a student was no better than one run of auto where it was measured.")
    directory = directory_of(recipe, LABEL)
    folder = None if directory is None else Path(directory)
    runs = Runs(plain, preset, taught, folder, tried_rates(recipe, common), several=False)
    budget = recipe.options.budget
    seconds = None if budget is None else duration("budget", budget)
    made, failed = sound(runs.attempt, runs.alone, taught, seconds, folder, resume=own.resume)
    answer = graduated(made, taught, teacher, failed, folder)
    print(shown(str(answer)))
    if answer.page is not None:
        print(f"Everything is in {directory}; open {answer.page} in a browser.")
    return 0
