"""``counterpoise evaluate``."""

from __future__ import annotations

from collections.abc import Sequence

from counterpoise._json import to_json
from counterpoise.cli.fit import SPLITS, print_scores
from counterpoise.cli.messages import Options, UsageError
from counterpoise.cli.trained import TRUST, open_run


def main(arguments: Sequence[str]) -> int:
    """Score the selected weights of a run."""
    parser = Options(
        prog="counterpoise evaluate",
        description="Score a trained run: every metric, fused and per modality, and every subset of the modalities.",
    )
    parser.add_argument("run", help="run directory")
    parser.add_argument("--table", help="another table with the same columns (all its rows); the run's own otherwise")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="of the run's own data")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--trust", action="store_true", help=TRUST)
    options = parser.parse_args(arguments)
    trainer, job, samples = open_run(options.run, options.table, labelled=True, trust=options.trust)
    split = samples if samples is not None else getattr(job.splits, options.split)
    if split is None:
        raise UsageError(
            f"{job.source.name} has no {options.split} split. Pass --split val (its scores selected the weights, so "
            "they flatter), or --table with other samples."
        )
    scores, subsets = trainer.evaluate(split), trainer.evaluate_subsets(split)
    if options.json:
        print(to_json({"scores": scores, "subsets": subsets}, indent=2))
    else:
        name = options.table or f"{SPLITS[options.split]} of {job.source.name}"
        title = f"{trainer.method.label} on {name} ({len(split)} samples)"
        print_scores(title, scores, by=trainer.method.unimodal_by(trainer.model), more=subsets)
    return 0
