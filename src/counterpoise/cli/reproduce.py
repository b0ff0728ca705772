"""``counterpoise reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from counterpoise._checks import choice
from counterpoise.benchmark.plan import seeds_of
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.datasets import DATASETS, get
from counterpoise.recipe.messages import Options, usage
from counterpoise.replication.asked import PROG, allowed, chosen
from counterpoise.replication.conduct import Request, reproduce


def main(arguments: Sequence[str]) -> int:
    """Train the rows of a published table on one's own copy of the data."""
    parser = Options(
        prog=PROG,
        description="Prepare and verify a published data set, train the rows of the poster's table on it, with the "
        "published settings where there are any, and put ours beside the published numbers, each with the reason why "
        "they are or are not comparable. Started again, it goes on where it stopped. Every other option is one of "
        "`counterpoise fit` and holds for all rows.",
    )
    parser.add_argument("set", metavar="SET", help=f"one of {', '.join(DATASETS)}")
    parser.add_argument("--root", required=True, help="folder of the raw files")
    parser.add_argument("--out", required=True, help="folder for the prepared data, the runs and the table")
    parser.add_argument("--split", help="which published split; `counterpoise data list` names them")
    parser.add_argument(
        "--methods",
        default="poster",
        help="rows with commas, as `counterpoise data list` names them; poster: those of the table; all: also joint "
        "training and IGM as released",
    )
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated numbers")
    parser.add_argument(
        "--as_published",
        action="store_true",
        help="let the published test part select, as released codes do; every table then says 'selected on test'",
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="train although the data are not as published; every cell says so"
    )
    add_execution(parser)
    own, options = parser.parse_known_args(arguments)
    with usage():
        dataset = get(own.set)
        split = choice("--split", own.split or dataset.default_split, dataset.splits)
    asked = Request(
        dataset,
        Path(own.root).expanduser(),
        folder_of(own.out),
        split,
        chosen(dataset, own.methods),
        seeds_of(own.seeds),
        allowed(options),
        own.as_published,
        own.incomplete,
    )
    return reproduce(asked, execution_of(own))
