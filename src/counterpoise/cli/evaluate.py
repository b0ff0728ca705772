"""``counterpoise evaluate``."""

from __future__ import annotations

from collections.abc import Sequence

from counterpoise._checks import did_you_mean
from counterpoise._json import to_json
from counterpoise.cli.fit import SPLITS, print_scores
from counterpoise.engine import Trainer
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.trained import TRUST, open_run, open_table


def main(arguments: Sequence[str]) -> int:
    """Score the selected weights of a run."""
    parser = Options(
        prog="counterpoise evaluate",
        description="Score a trained run: every metric, fused and per modality, and every subset of the modalities.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--table", help="another table with the same columns (all its rows); the run's own otherwise")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="of the run's own data")
    parser.add_argument(
        "--subsets",
        nargs="+",
        metavar="A+B",
        help="score these subsets of the modalities; by default every one of up to six modalities, and of more each "
        "alone, all but one, and all",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments)
    if options.table is not None:
        trainer, split = open_table(options.run, options.table, labelled=True, trust=options.trust)
        name = options.table
    else:
        trainer, job, _ = open_run(options.run, trust=options.trust)
        split, name = getattr(job.splits, options.split), f"{SPLITS[options.split]} of {job.source.name}"
        if split is None:
            raise UsageError(
                f"{job.source.name} has no {options.split} split. Pass --split val (its scores selected the weights, "
                "so they flatter), or --table with other samples."
            )
    named = None if options.subsets is None else _named(options.subsets, trainer)
    scores, subsets = trainer.evaluate(split), trainer.evaluate_subsets(split, named)
    shares = trainer.contributions(split) if named is None else {}
    if options.json:
        print(to_json({"scores": scores, "subsets": subsets, "contributions": shares}, indent=2))
    else:
        title = f"{trainer.method.label} on {name} ({len(split)} samples)"
        by, yardstick = trainer.method.unimodal_by(trainer.model), trainer.model.task.yardstick
        print_scores(title, scores, by=by, more=subsets, shares=shares, yardstick=yardstick)
    return 0


def _named(texts: Sequence[str], trainer: Trainer) -> list[tuple[str, ...]]:
    """Subsets as typed, ``audio+image``, of the modalities that the method reads."""
    known = trainer.method.reads(trainer.model.modalities)
    subsets = [(text,) if text in known else tuple(text.split("+")) for text in texts]
    for subset in subsets:
        for name in subset:
            if name not in known:
                raise UsageError(f"--subsets {'+'.join(subset)}: " + did_you_mean("modality", name, known))
    return subsets
