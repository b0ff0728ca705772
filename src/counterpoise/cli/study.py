"""``counterpoise study``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from counterpoise.cli.benchmark import seeds_of
from counterpoise.cli.execution import add_execution, execution_of
from counterpoise.cli.messages import Options, UsageError
from counterpoise.studies import STUDIES, combine, conduct, draw_again, study_named

USAGE = """usage: counterpoise study NAME --data DATA --out DIR [options]

Runs what a study needs (finished runs in DIR/runs are used again), keeps its
numbers in DIR/NAME, and draws them.

studies:
{rows}

counterpoise study NAME --help says more of each.
Every other option is one of `counterpoise fit`."""


def main(arguments: Sequence[str]) -> int:
    """Run one study, or draw it again."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(rows="\n".join(f"  {name:<16} {text}" for name, text in STUDIES.items())))
        return 0
    name, *rest = arguments
    study = study_named(name)
    parser = Options(prog=f"counterpoise study {name}", description=f"{study.ABOUT} Every other option is one of fit.")
    parser.add_argument("--out", required=True, help="directory of all studies of this data set")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated numbers")
    add_execution(parser)
    parser.add_argument("--redraw", action="store_true", help="draw the numbers on disk; nothing is trained")
    study.add_options(parser)
    own, common = parser.parse_known_args(rest)
    if own.redraw:
        print(f"Open {draw_again(name, Path(own.out))} in a browser.")
        return 0
    if getattr(own, "combine", None):
        if common:
            raise UsageError(f"--combine trains nothing, so {common[0]} has no effect; leave it out.")
        print(f"Open {combine([Path(d) for d in own.combine], Path(own.out))} in a browser.")
        return 0
    return conduct(name, own, common, Path(own.out), seeds_of(own.seeds), execution_of(own))
