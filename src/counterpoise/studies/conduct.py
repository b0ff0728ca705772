"""From a study and options to runs, numbers on disk, pictures and a page; started again, it goes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    plans: dict[str, _Plan] = {}
    for name, own in studies.items():
        given = Given(own, tuple(recipe.source.layouts()), recipe, seeds, out / "runs", out / name)
        if "metric" in own:
            own.metric = given.metric
        study = study_named(name)
        rows = [_labelled(row) for row in study.plan(given)]
        first = any(row.first for row in rows)
        plans[name] = _Plan(study, given, rows, plan(recipe, rows, seeds, weights_later=first))
    outcome = _run(plans.values(), lambda chosen: run(chosen, out / "runs", **execution))
    print(outcome.message())
    for name, made in plans.items() if outcome.exit_code != 130 else ():
        runs = _trained(made.recipes, made.given.runs)
        if not runs:
            continue
        made.given.folder.mkdir(parents=True, exist_ok=True)
        kept = {"study": name, "options": list(common), **made.facts(runs)}
        kept["result"] = made.study.compute(runs, made.given)
        write_text(made.given.folder / "data.json", to_json(kept, indent=1) + "\n")
        page, folder = draw_again(name, out), made.given.folder
        print(f"Numbers: {folder / 'data.json'}; pictures: {folder}; open {page} in a browser.", flush=True)
    return outcome.exit_code


@dataclass(frozen=True)
class _Plan:
    """A study, its rows, and the recipes of each row's runs."""

    study: Study
    given: Given
    rows: Sequence[Row]
    recipes: Mapping[str, Sequence[Recipe]]

    def of(self, rows: Iterable[Row]) -> dict[str, Recipe]:
        """Id -> recipe of the runs of these rows."""
        return {recipe.id: recipe for row in rows for recipe in self.recipes[row.name]}

    def facts(self, runs: Sequence[Trained]) -> dict[str, Any]:
        """What the page says besides the result."""
        recipe = self.given.recipe
        parts = {part: getattr(recipe.splits, part) for part in ("train", "val", "test")}
        return {
            "data": {
                "name": recipe.source.name,
                "modalities": list(self.given.modalities),
                "classes": len(recipe.splits.classes),
                "plural": recipe.splits.task.plural,
                **{part: len(split) for part, split in parts.items() if split is not None},
            },
            "seeds": sorted({trained.seed for trained in runs}),
            "epochs": recipe.options.epochs,
            "runs": {row: [recipe.id for recipe in members] for row, members in self.recipes.items()},
            "missing": [row for row, members in self.recipes.items() if len(members) > sum(t.row == row for t in runs)],
        }


def _run(plans: Collection[_Plan], execute: Callable[[Sequence[Recipe]], Outcome]) -> Outcome:
    """Train what studies need, those that come first before the others."""
    seeds = list(next(iter(plans)).given.seeds)

    def by_seed(recipes: Mapping[str, Recipe]) -> list[Recipe]:
        return sorted(recipes.values(), key=lambda recipe: seeds.index(recipe.seed))

    first = {i: r for made in plans for i, r in made.of(row for row in made.rows if row.first).items()}
    if first:
        outcome = execute(by_seed(first))
        if outcome.exit_code:
            return outcome
        for made in plans:
            if hasattr(made.study, "prepare"):
                made.study.prepare(made.given)
    return execute(by_seed({i: recipe for made in plans for i, recipe in made.of(made.rows).items()}))


def _labelled(row: Row) -> Row:
    """With its name on its runs, unless they are as the method is by itself."""
    plain = not row.options or row.method == UNIMODAL
    return row if plain else replace(row, label=row.name)


def _trained(planned: Mapping[str, Sequence[Recipe]], folder: Path) -> list[Trained]:
    """The runs that are finished."""
    there = {recipe.id for members in planned.values() for recipe in members if finished(folder / recipe.id)}
    read = {run.directory.name: run for run in collect([folder / i for i in there])} if there else {}
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
