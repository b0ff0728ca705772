"""From a study and options to runs, numbers on disk, pictures and a page; started again, it goes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.benchmark.grid import RunConfig, finished
from counterpoise.benchmark.runner import Outcome, run
from counterpoise.cli import benchmark
from counterpoise.recipe.job import source_of
from counterpoise.recipe.messages import UsageError, usage
from counterpoise.recipe.options import fit_parser, parse
from counterpoise.report.collect import collect
from counterpoise.studies import comparison
from counterpoise.studies.base import Given, Study, Trained, configs
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
    parser = fit_parser("counterpoise study")
    with usage():
        options = parse(parser, [*common, "--method", "Joint"])
        source = source_of(parser, options.data)
    plans: dict[str, tuple[Study, Given, dict[str, list[RunConfig]]]] = {}
    first: set[str] = set()
    for name, own in studies.items():
        study = study_named(name)
        given = Given(own, tuple(source.layouts()), common, options, seeds, out / "runs", out / name)
        planned = study.plan(given)
        rows = configs(planned, seeds, common)
        first |= {config.id for row in planned if row.first for config in rows[row.name]}
        plans[name] = study, given, rows
    unique = {config.id: config for _, _, rows in plans.values() for found in rows.values() for config in found}
    by_seed = sorted(unique.values(), key=lambda config: seeds.index(config.seed))

    def done(chosen: Sequence[RunConfig]) -> Outcome:
        return run(chosen, benchmark.command, out / "runs", preload=benchmark.PRELOAD, **execution)

    if first:
        outcome = done([config for config in by_seed if config.id in first])
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
    splits = source.splits()
    data = {
        "name": source.name,
        "modalities": list(source.layouts()),
        "classes": len(splits.classes),
        **{part: len(s) for part in ("train", "val", "test") if (s := getattr(splits, part)) is not None},
    }
    for name, (study, given, rows) in plans.items():
        runs = _trained(rows, given.runs)
        if not runs:
            continue
        given.folder.mkdir(parents=True, exist_ok=True)
        kept = {
            "study": name,
            "data": data,
            "seeds": sorted({trained.seed for trained in runs}),
            "epochs": options.epochs,
            "options": list(common),
            "runs": {row: [c.id for c in members] for row, members in rows.items()},
            "missing": [row for row, members in rows.items() if len(members) > sum(t.row == row for t in runs)],
            "result": study.compute(runs, given),
        }
        write_text(given.folder / "data.json", to_json(kept, indent=1) + "\n")
        page = draw_again(name, out)
        print(f"Numbers: {given.folder / 'data.json'}; pictures: {given.folder}; open {page} in a browser.", flush=True)
    return outcome.exit_code


def _trained(rows: Mapping[str, Sequence[RunConfig]], folder: Path) -> list[Trained]:
    """The runs that are finished."""
    there = {c.id for members in rows.values() for c in members if finished(folder / c.id)}
    read = {found.directory.name: found for found in collect([folder / i for i in there])} if there else {}
    return [
        Trained(row, c.seed, read[c.id].directory, read[c.id].result or {}, read[c.id].history)
        for row, members in rows.items()
        for c in members
        if c.id in there
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
