"""``counterpoise diagnose``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from counterpoise.benchmark.plan import Row, alone, base, method_names, plan, run, seeds_of
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import open_run
from counterpoise.studies.diagnosis.diagnosis import Diagnosis
from counterpoise.studies.diagnosis.measuring import FinishedRun, measure
from counterpoise.studies.diagnosis.page import write


def main(arguments: Sequence[str]) -> int:
    """Train each modality alone and all jointly, compare, recommend."""
    parser = Options(
        prog="counterpoise diagnose",
        description="Is the multimodal model imbalanced, which modality is starved, what to try? Trains each modality "
        "alone and all jointly with the given options of `counterpoise fit`, and writes a page with the evidence.",
    )
    parser.add_argument("--out", required=True, help="where to write; runs in OUT/runs are used again")
    parser.add_argument("--method", default="Joint", help="the method to look at")
    parser.add_argument("--seeds", default="0", help="comma-separated numbers; several tell the spread between seeds")
    add_execution(parser)
    own, common = parser.parse_known_args(arguments)
    seeds, execution = seeds_of(own.seeds), execution_of(own)
    names = method_names(own.method, option="--method")
    if len(names) != 1:
        raise UsageError(f"--method must be one method; got {own.method}.")
    recipe = base([*common, "--balance=true"], "Joint", "counterpoise diagnose")
    modalities = list(recipe.source.layouts())
    if len(modalities) < 2:
        raise UsageError(f"--data has one modality ({modalities[0]}); there is nothing to balance.")
    planned = plan(recipe, [*alone(modalities), Row(names[0], names[0])], seeds)
    runs = folder_of(own.out) / "runs"
    by_seed = [recipes[i] for i in range(len(seeds)) for recipes in planned.values()]
    outcome = run(by_seed, runs, **execution)
    print(outcome.message())
    if outcome.exit_code:
        return outcome.exit_code
    measured, monitor = [], ""
    for place, seed in enumerate(seeds):
        print(f"Measuring the models of seed {seed} ({place + 1}/{len(seeds)}) ...", file=sys.stderr, flush=True)
        at = {name: runs / recipes[place].id for name, recipes in planned.items()}
        trainer, job, _ = open_run(str(at[names[0]]), trust=True)
        joint = FinishedRun.at(trainer, at[names[0]])
        each = {m: at[f"{m} alone"] for m in modalities}
        opened = {m: FinishedRun.at(open_run(str(path), trust=True)[0], path) for m, path in each.items()}
        measured.append(measure(joint, opened, job.splits, names[0]))
        monitor = joint.record["monitor"]
    diagnosis = Diagnosis(names[0], monitor, measured, recipe.splits.task.kind)
    page = write(diagnosis, Path(own.out))
    print(f"{diagnosis}\nOpen {page} in a browser.")
    return 0
