"""``counterpoise diagnose``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from counterpoise.benchmark.runner import run
from counterpoise.cli import benchmark
from counterpoise.cli.execution import add_execution, execution_of
from counterpoise.cli.job import source_of
from counterpoise.cli.messages import Options, UsageError, usage
from counterpoise.cli.options import fit_parser, parse
from counterpoise.report.collect import collect
from counterpoise.studies.base import Row, Trained, alone, configs, method_names
from counterpoise.studies.diagnosis import diagnose, recommend, write


def main(arguments: Sequence[str]) -> int:
    """Train each modality alone and all jointly, compare, recommend."""
    parser = Options(
        prog="counterpoise diagnose",
        description="Is the multimodal model imbalanced, which modality is starved, what to try? Trains each modality "
        "alone and all jointly with the given options of `counterpoise fit`, and writes a page with the evidence.",
    )
    parser.add_argument("--out", required=True, help="where to write; runs in OUT/runs are used again")
    parser.add_argument("--method", default="Joint", help="the method to look at")
    parser.add_argument("--seeds", default="0", help="one number")
    add_execution(parser)
    own, common = parser.parse_known_args(arguments)
    seeds = benchmark.seeds_of(own.seeds)
    if len(seeds) != 1:
        raise UsageError(f"--seeds must be one number here; got {own.seeds}. For several, see `counterpoise study`.")
    execution = execution_of(own)
    names = method_names(own.method, option="--method")
    if len(names) != 1:
        raise UsageError(f"--method must be one method; got {own.method}.")
    fit = fit_parser("counterpoise diagnose")
    with usage():
        modalities = list(source_of(fit, parse(fit, [*common, "--method", "Joint"]).data).layouts())
    if len(modalities) < 2:
        raise UsageError(f"--data has one modality ({modalities[0]}); there is nothing to balance.")
    rows = [*alone(modalities), Row(names[0], names[0])]
    planned = {name: found[0] for name, found in configs(rows, seeds, common).items()}
    runs = Path(own.out) / "runs"
    outcome = run(list(planned.values()), benchmark.command, runs, preload=benchmark.PRELOAD, **execution)
    print(outcome.message())
    if outcome.exit_code:
        return outcome.exit_code
    read = {r.directory.name: r for r in collect([runs / config.id for config in planned.values()])}
    trained = {
        name: Trained(name, seeds[0], read[c.id].directory, read[c.id].result or {}, read[c.id].history)
        for name, c in planned.items()
    }
    found = diagnose(trained[names[0]], {m: trained[f"{m} alone"] for m in modalities})
    page = write(found, Path(own.out))
    print("\n".join(recommend(found)))
    print(f"Open {page} in a browser.")
    return 0
