"""``counterpoise benchmark``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from counterpoise import methods
from counterpoise._checks import did_you_mean
from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise._yaml import read_yaml
from counterpoise.benchmark.grid import RunConfig, grid, result_of
from counterpoise.benchmark.notes import with_candidates
from counterpoise.benchmark.runner import run
from counterpoise.benchmark.summary import summarize
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.data.readers import ReadError
from counterpoise.metrics import BACKEND
from counterpoise.recipe.job import Job, source_of
from counterpoise.recipe.messages import Options, UsageError, usage
from counterpoise.recipe.options import fit_parser, parse
from counterpoise.report.collect import read_history

UNIMODAL = "Unimodal"
FIXED = {
    "--method": "--methods names the methods",
    "--seed": "--seeds gives the seeds",
    "--run_dir": "--out is the directory of all runs",
    "--label": "--settings names variants",
    "--resume": "unfinished runs go on by themselves",
}
"""Options of ``fit`` that a comparison sets itself."""

PRELOAD = ("counterpoise.cli.fit", "torch.utils.tensorboard.writer", BACKEND)
"""What a run imports before anything else happens; all runs share it."""


def main(arguments: Sequence[str]) -> int:
    """Run methods x seeds, then compare them."""
    parser = Options(
        prog="counterpoise benchmark",
        description="Train several methods with several seeds on one data set, in parallel; started again, it goes on "
        "where it stopped. Every other option is one of `counterpoise fit` and holds for all methods.",
    )
    parser.add_argument("--out", required=True, help="directory of the comparison")
    parser.add_argument(
        "--methods",
        default="all",
        help="names with commas, or 'all'; Unimodal means each modality; "
        "'settings' means the rows of --settings and no other",
    )
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated numbers")
    add_execution(parser)
    parser.add_argument(
        "--settings",
        help="YAML file: method -> options of fit for it alone, e.g. 'OGM: {method.alpha: 0.3}'; under any other name, "
        "with 'method' among the options, it is one more row, e.g. 'Joint+SAM: {method: Joint, sam: 0.05}'",
    )
    own, rest = parser.parse_known_args(arguments)
    seeds = seeds_of(own.seeds)
    execution = execution_of(own)
    others = [option for action in parser._actions for option in action.option_strings]
    settings = _settings(own.settings)
    configs = plan(_names(own.methods, settings), seeds, rest, settings, others)
    out = folder_of(own.out)
    outcome = run(configs, command, out / "runs", preload=PRELOAD, **execution)
    print(outcome.message())
    folders = [out / "runs" / config.id for config in configs]
    records = [
        with_candidates(record, read_history(folder / "metrics.jsonl", []))
        for folder in folders
        if (record := result_of(folder)) is not None
    ]
    if records:
        conclude(records, [folder for folder in folders if folder.is_dir()], out, len(seeds))
    return outcome.exit_code


def conclude(records: Sequence[dict[str, Any]], runs: Sequence[Path], out: Path, seeds: int) -> None:
    """Print the table; write ``results.json``, ``results.md`` and ``report.html``."""
    from counterpoise.report import write_report

    split = "test" if all(record.get("test") for record in records) else "val"
    summary = summarize(records, seeds=seeds, split=split)
    Console().print(summary.to_rich())
    write_text(out / "results.json", to_json({"runs": records, "summary": summary.to_dict()}, indent=2) + "\n")
    write_text(out / "results.md", summary.to_markdown())
    page = write_report(runs, out / "report.html", seeds=seeds)
    print(f"Open {page} in a browser; every number is in {out / 'results.json'}.")


def plan(
    names: Sequence[str],
    seeds: Sequence[int],
    common: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    others: Sequence[str] = (),
    *,
    weights_later: bool = False,
) -> list[RunConfig]:
    """The runs of a comparison; every one's model and trainer are made once before anything starts.

    Args:
        names: of methods, and of variants in ``settings``.
        seeds: of the runs.
        common: options of ``fit`` for all runs.
        settings: method -> options for it alone; variant -> the same and its ``method``.
        others: options of ``benchmark`` itself, for messages about misspelt ones.
        weights_later: files of ``--encoder_weights`` need not be there yet.
    """
    for option in (argument.split("=")[0] for argument in common):
        if option in FIXED:
            raise UsageError(f"{option} is an option of `fit`; here {FIXED[option]}.")
    parser = fit_parser("counterpoise benchmark", others)
    with usage():
        first = settings.get(names[0], {}).get("method", names[0])
        any_modality = ["--method.modality", "x"] if first == UNIMODAL else []  # the data are what matters here
        options = parse(parser, [*common, "--method", first, *any_modality])
        source = source_of(parser, options.data)
        job = Job(parser, options, source)
        _ = job.splits  # what is wrong with the data is said once, here, and not by every run
    files = {path.name: path.read_text(encoding="utf-8") for path in config_files(common)}
    shared = {"files": files} if files else {}  # a changed file makes other runs
    variants: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        options = dict(settings.get(name, {}))
        method = options.pop("method", name)
        extra = [*common, *(f"--{key}={_text(value)}" for key, value in options.items())]
        rows = [(name, extra)]
        if method == UNIMODAL and "method.modality" not in options:
            rows = [(f"{name}({m})", [*extra, f"--method.modality={m}"]) for m in source.layouts()]
        if method != name:
            rows = [(label, [*own, f"--label={label}"]) for label, own in rows]
        variants[name] = [{**shared, "method": method, "options": own} for _, own in rows]
    with usage():
        configs = grid(variants, seeds)
        for config in (config for config in configs if config.seed == seeds[0]):
            options = parse(parser, _options(config))
            if options.data != job.options.data:
                job = Job(parser, options, source_of(parser, options.data))
            job.options = options.clone()
            if weights_later:
                job.options.encoder_weights = None
            try:
                job.tried()
            except ValueError as error:
                raise (
                    error if isinstance(error, ReadError) else ValueError(f"{error} (Of the row {config.method}.)")
                ) from error
    return configs


def command(config: RunConfig, path: Path) -> list[str]:
    """The command line of one run; it resumes when started again."""
    options = [*_options(config), "--run_dir", str(path), "--resume"]
    return [sys.executable, "-m", "counterpoise", "fit", *options]


def _options(config: RunConfig) -> list[str]:
    return [*config.settings["options"], "--method", config.settings["method"], "--seed", str(config.seed)]


def config_files(options: Sequence[str]) -> list[Path]:
    """The files given by ``--config``."""
    found = [value for name, value in pairwise(options) if name == "--config"]
    return [Path(p) for p in [*found, *(o.removeprefix("--config=") for o in options if o.startswith("--config="))]]


def _names(text: str, settings: Mapping[str, Any]) -> list[str]:
    known = list(dict.fromkeys([*methods.__all__, *settings]))
    if text == "all":
        return known
    if text == "settings" and settings:
        return list(settings)
    folded = {name.casefold(): name for name in known}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError("--methods: " + did_you_mean("method", name, known))
    return [folded[name.casefold()] for name in names]


def seeds_of(text: str) -> list[int]:
    """The value of ``--seeds``."""
    try:
        return [int(seed) for seed in text.split(",")]
    except ValueError:
        raise UsageError(f"--seeds must be whole numbers separated by commas; got {text!r}.") from None


def _settings(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    found = read_yaml(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise UsageError(f"--settings {path} must map method names to mappings of options.")
    folded = {name.casefold(): name for name in methods.__all__}
    settings = {folded.get(str(name).casefold(), str(name)): dict(options) for name, options in found.items()}
    for name, options in settings.items():
        method = str(options.pop("method", name))
        if name in methods.__all__ and method != name:
            raise UsageError(f"--settings {path}: {name} is a method itself; give the row of {method} another name.")
        if method.casefold() not in folded:
            raise UsageError(f"--settings {path}: " + did_you_mean("method", method, methods.__all__))
        if method != name:
            options["method"] = folded[method.casefold()]
    return settings


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
