"""``counterpoise study``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from counterpoise.benchmark.plan import seeds_of
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.studies.conduct import combine, conduct
from counterpoise.studies.pages import STUDIES, draw_again, study_named

USAGE = """usage: counterpoise study NAME[,NAME...] --data DATA --out DIR [options]

Runs what a study needs (finished runs in DIR/runs are used again), keeps its
numbers in DIR/NAME, and draws them.

studies:
{rows}

counterpoise study NAME --help says more of each; 'all' stands for all of them.
Every other option is one of `counterpoise fit`."""


def main(arguments: Sequence[str]) -> int:
    """Run studies, or draw them again."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(rows="\n".join(f"  {name:<16} {text}" for name, text in STUDIES.items())))
        return 0
    text, *rest = arguments
    names = list(STUDIES) if text == "all" else [name.strip() for name in text.split(",")]
    studies = {name: study_named(name) for name in names}
    one = studies[names[0]] if len(names) == 1 else None
    about = one.ABOUT if one else f"{', '.join(names)}. Options of one of them follow its name, as in --scope.shares."
    parser = Options(prog=f"counterpoise study {text}", description=f"{about} Every other option is one of fit.")
    parser.add_argument("--out", required=True, help="directory of all studies of this data set")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated numbers")
    add_execution(parser)
    parser.add_argument("--redraw", action="store_true", help="draw the numbers on disk; nothing is trained")
    if one:
        one.add_options(parser)
    shared, common = parser.parse_known_args(rest)
    out = folder_of(shared.out)
    if shared.redraw:
        pages = [draw_again(name, out) for name in names]
        print(f"Open {pages[-1]} in a browser.")
        return 0
    if getattr(shared, "combine", None):
        if common:
            raise UsageError(f"--combine trains nothing, so {common[0]} has no effect; leave it out.")
        print(f"Open {combine([Path(d) for d in shared.combine], out)} in a browser.")
        return 0
    own = {names[0]: shared} if one else {}
    for name in names if not one else ():
        prefixed, common = _of(name, common)
        parser = Options(prog=f"counterpoise study {name}")
        studies[name].add_options(parser)
        own[name] = parser.parse_args(prefixed)
    return conduct(own, common, out, seeds_of(shared.seeds), execution_of(shared))


def _of(study: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options ``--STUDY.option`` with their values, as ``--option``; and the rest."""
    taken: list[str] = []
    rest: list[str] = []
    into = rest
    for argument in arguments:
        if argument.startswith("--"):
            into = taken if argument.startswith(f"--{study}.") else rest
        into.append(argument.replace(f"--{study}.", "--", 1) if into is taken else argument)
    return taken, rest
