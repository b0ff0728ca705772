"""``counterpoise data list``, ``data prepare`` and ``data verify``: the published data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from counterpoise.datasets import DATASETS, get, render
from counterpoise.recipe.messages import Options, usage


def list_(arguments: Sequence[str]) -> int:
    """Name every data set with its splits and where its files are."""
    Options(prog="counterpoise data list", description="The published data sets that can be prepared.").parse_args(
        arguments
    )
    for name in DATASETS:
        dataset = get(name)
        print(f"{name}: {dataset.title}; {', '.join(dataset.modalities)}; {len(dataset.classes)} classes")
        print(f"  from {dataset.source}\n  licence: {dataset.licence}")
        for split, text in dataset.splits.items():
            print(f"  split {split}{' (default)' if split == dataset.default_split else ''}: {text}")
        print(f"  recipes written by prepare: {', '.join(dataset.recipes)}")
    print("counterpoise data prepare NAME --root RAW --out DIR")
    print("counterpoise fit --config DIR/RECIPE.yaml")
    return 0


def prepare(arguments: Sequence[str]) -> int:
    """From the raw files to a table."""
    parser = Options(
        prog="counterpoise data prepare",
        description="Convert the raw files of a published data set; run it again to continue.",
    )
    parser.add_argument("name", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", required=True, help="folder of the raw files")
    parser.add_argument("--out", required=True, help="folder for the table and the converted files")
    parser.add_argument("--split", help="which published split; `counterpoise data list` names them")
    parser.add_argument("--workers", type=int, default=0, help="threads; 0 for as many as cores, 8 at most")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    with usage():
        made = get(options.name).prepare(
            options.root, options.out, split=options.split, workers=options.workers, progress=not options.quiet
        )
    print(made)
    return 0


def verify(arguments: Sequence[str]) -> int:
    """What was prepared against what was published; 1 when something is off."""
    parser = Options(
        prog="counterpoise data verify",
        description="Compare a prepared data set with the published numbers; exit with 1 when something is off.",
    )
    parser.add_argument("name", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--out", required=True, help="the folder given to `data prepare`")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    with usage():
        checks = get(options.name).verify(options.out)
    print(json.dumps([asdict(c) for c in checks], indent=2) if options.json else render(checks))
    return int(any(not c.ok for c in checks))
