"""From a study and options to runs, numbers on disk, pictures and a page; started again, it goes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from counterpoise._checks import did_you_mean
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
from counterpoise.studies.base import Given, Picture, Study, Trained, configs

STUDIES = {
    "imbalance": "each modality's learning alone and inside joint training",
    "ablation": "IGM with and without SAM and gradient modification",
    "sensitivity": "a score over the values of any option of a method",
    "comparison": "all methods, best and second marked",
    "scope": "how much of the network IGM's matrices act on",
    "gradient-change": "the angle between gradients of successive modalities",
    "interaction": "IGM stage by stage, with a direction switched off",
    "pretrained": "pretrained encoders: plain, MLA, IGM",
    "training-time": "what a score costs",
    "landscape": "the loss around the trained weights, its curvature",
    "singular-values": "the spectrum in each head, with and without SAM",
}


def study_named(name: str) -> Study:
    """The module of a study.

    Raises:
        UsageError: when there is none of that name.
    """
    if name not in STUDIES:
        raise UsageError(did_you_mean("study", name, STUDIES))
    return cast("Study", import_module(f"counterpoise.studies.{name.replace('-', '_')}"))


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
        _write(given.folder / "data.json", to_json(kept, indent=1) + "\n")
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
    _write(path, to_json(kept, indent=1) + "\n")
    return draw_again("comparison", out)


def draw_again(name: str, out: Path) -> Path:
    """Pictures and page from the numbers on disk.

    Raises:
        FileNotFoundError: when the study was not made there.
    """
    path = out / name / "data.json"
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}: run `counterpoise study {name} --data ... --out {out}` first.")
    kept = json.loads(path.read_text(encoding="utf-8"))
    _write(out / name / "section.html", _section(kept, out / name))
    return _page(out)


def _section(kept: Mapping[str, Any], folder: Path) -> str:
    from counterpoise.report.figures import save_png, save_svg, to_svg

    study = study_named(kept["study"])
    sets = kept.get("sets", [kept])
    facts = " ".join(map(_facts, sets))
    parts = [f"<section>\n<h2>{escape(study.TITLE)}</h2>", f"<p>{escape(study.ABOUT)} {escape(facts)}</p>"]
    missing = [row for one in sets for row in one["missing"]]
    if missing:
        parts.append(
            f'<aside class="notice">Not every run finished; fewer seeds, or none, for '
            f"{escape(', '.join(missing))}.</aside>"
        )
    for item in study.draw(kept["result"], folder):
        if isinstance(item, Picture):
            save_png(item.draw, folder / f"{item.name}.png")
            save_svg(item.draw, folder / f"{item.name}.svg")
            svg = to_svg(item.draw, f"{kept['study']}-{item.name}", item.caption)
            item = f'<figure class="wide">{svg}<figcaption>{escape(item.caption)}</figcaption></figure>'
        parts.append(item)
    return "\n".join(parts) + "\n</section>\n"


def _facts(kept: Mapping[str, Any]) -> str:
    data = kept["data"]
    counts = ", ".join(f"{data[part]} {part}" for part in ("train", "val", "test") if part in data)
    return (
        f"Data: {data['name']} ({counts} samples, {data['classes']} classes, modalities "
        f"{', '.join(data['modalities'])}); {kept['epochs']} epochs; seeds {', '.join(map(str, kept['seeds']))}."
    )


def _page(out: Path) -> Path:
    """``studies.html`` with every study there is in ``out``."""
    paths = [out / name / "section.html" for name in STUDIES]
    sections = [path.read_text(encoding="utf-8") for path in paths if path.is_file()]
    return write_page(out / "studies.html", "Counterpoise studies", "".join(sections))


def write_page(path: Path, title: str, body: str) -> Path:
    """A page in the style of the report that asks no server for anything."""
    style = files("counterpoise.report").joinpath("page.css").read_text(encoding="utf-8")
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
    _write(path, page)
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
