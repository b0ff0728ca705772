"""From a study and options to runs, numbers on disk, pictures and a page; started again, it goes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.benchmark.plan import UNIMODAL, Row, base, plan, run
from counterpoise.benchmark.runner import Outcome
from counterpoise.metrics.result import finished
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.recipe import Recipe
from counterpoise.report.collect import collect
from counterpoise.studies import comparison
from counterpoise.studies.base import Given, Study, Trained
from counterpoise.studies.pages import draw_again, study_named


def conduct(
    studies: Mapping[str, argparse.Namespace],
    common: Sequence[str],
    out: Path,
    seeds: Sequence[int],
    execution: Mapping[str, Any],
) -> int:
    """Run what is missing for all of these studies, compute, draw.

    Args:
        studies: name -> its own options.
        common: options of ``fit`` for all runs.
        out: finished runs are in ``out/runs``, shared by all studies; the results go to ``out/NAME``.
        seeds: of the runs.
        execution: where and how many at a time: ``jobs``, ``threads`` and ``backend`` of ``run``.

    Returns:
        The exit code.
    """
    recipe = base(common, "Joint", "counterpoise study")
    modalities = tuple(recipe.source.layouts())
    plans: dict[str, tuple[Study, Given, dict[str, list[Recipe]]]] = {}
    first: set[str] = set()
    for name, own in studies.items():
        study = study_named(name)
        given = Given(own, modalities, recipe, seeds, out / "runs", out / name)
        rows = [_labelled(row) for row in study.plan(given)]
        planned = plan(recipe, rows, seeds, weights_later=any(row.first for row in rows))
        first |= {found.id for row in rows if row.first for found in planned[row.name]}
        plans[name] = study, given, planned
    unique = {found.id: found for _, _, planned in plans.values() for members in planned.values() for found in members}
    by_seed = sorted(unique.values(), key=lambda found: seeds.index(found.seed))

    def done(chosen: Sequence[Recipe]) -> Outcome:
        return run(chosen, out / "runs", **execution)

    if first:
        outcome = done([found for found in by_seed if found.id in first])
        if outcome.exit_code:
            print(outcome.message())
            return outcome.exit_code
        for study, given, _ in plans.values():
            if hasattr(study, "prepare"):
                study.prepare(given)
    outcome = done(by_seed)
    print(outcome.message())
    if outcome.exit_code == 130:
        return 130
    data = {
        "name": recipe.source.name,
        "modalities": list(modalities),
        "classes": len(recipe.splits.classes),
        **{part: len(s) for part in ("train", "val", "test") if (s := getattr(recipe.splits, part)) is not None},
    }
    for name, (study, given, planned) in plans.items():
        runs = _trained(planned, given.runs)
        if not runs:
            continue
        given.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            "study": name,
            "data": data,
            "seeds": sorted({trained.seed for trained in runs}),
            "epochs": recipe.options.epochs,
            "options": list(common),
            "runs": {row: [found.id for found in members] for row, members in planned.items()},
            "missing": [row for row, members in planned.items() if len(members) > sum(t.row == row for t in runs)],
            "result": study.compute(runs, given),
        }
        write_text(given.folder / "data.json", to_json(kept, indent=1) + "\n")
        page = draw_again(name, out)
        print(f"Numbers: {given.folder / 'data.json'}; pictures: {given.folder}; open {page} in a browser.", flush=True)
    return outcome.exit_code


def _labelled(row: Row) -> Row:
    """With its name on its runs, unless they are as the method is by itself."""
    plain = not row.options or row.method == UNIMODAL
    return row if plain else replace(row, label=row.name)


def _trained(planned: Mapping[str, Sequence[Recipe]], folder: Path) -> list[Trained]:
    """The runs that are finished."""
    there = {recipe.id for members in planned.values() for recipe in members if finished(folder / recipe.id)}
    read = {found.directory.name: found for found in collect([folder / i for i in there])} if there else {}
    return [
        Trained(row, recipe.seed, read[recipe.id].directory, read[recipe.id].result or {}, read[recipe.id].history)
        for row, members in planned.items()
        for recipe in members
        if recipe.id in there
    ]


def combine(directories: Sequence[Path], out: Path) -> Path:
    """One table of the comparisons of several data sets, drawn in ``out``.

    Raises:
        UsageError: when ``out`` holds the comparison of a data set, which it would replace.
    """
    path = out / "comparison" / "data.json"
    kept = comparison.combine(directories)
    if path.is_file() and "sets" not in json.loads(path.read_text(encoding="utf-8")):
        raise UsageError(f"--out {out} holds the comparison of one data set; give a directory of its own.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, to_json(kept, indent=1) + "\n")
    return draw_again("comparison", out)
