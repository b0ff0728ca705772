"""``counterpoise benchmark``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from counterpoise import methods
from counterpoise._checks import did_you_mean
from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise._yaml import read_yaml
from counterpoise.answer.auto import LABEL
from counterpoise.answer.preset import DEFAULT
from counterpoise.benchmark.folds import by_fold, fold_of, fold_recipes, fold_tables, ratio_of
from counterpoise.benchmark.notes import with_candidates
from counterpoise.benchmark.plan import UNIMODAL, Row, base, defined_for, plan, run, seeds_of
from counterpoise.benchmark.summary import summarize
from counterpoise.cli.execution import add_execution, execution_of, folder_of
from counterpoise.metrics.result import result_of
from counterpoise.recipe.messages import Options, UsageError
from counterpoise.recipe.recipe import Recipe
from counterpoise.report.collect import read_history


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
        help="names with commas, or 'all' that are defined for the task; Unimodal means each modality; auto what "
        "`counterpoise auto` trains, at the learning rate of the others; 'settings' means the rows of --settings and "
        "no other",
    )
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated numbers")
    parser.add_argument(
        "--folds",
        help="cross-validation on all samples: how many folds; 'group', or a column of the table, to leave out one of "
        "its values at a time; or a splitter of scikit-learn, as GroupKFold:5",
    )
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
    names = _names(own.methods, settings)
    if LABEL in names:
        settings.setdefault(LABEL, _auto(rest))
    first = str(settings.get(names[0], {}).get("method", names[0]))
    recipe = base(rest, "Joint" if first == UNIMODAL else first, "counterpoise benchmark", others)
    if own.methods == "all":
        own_method = {name: str(settings.get(name, {}).get("method", name)) for name in names}
        among = defined_for(dict.fromkeys(own_method.values()), recipe.splits.task)
        names = [name for name, method in own_method.items() if method in among]
    asked = rows(names, settings, recipe.source.layouts())
    if own.folds is not None:
        return over_folds(recipe, own.folds, asked, seeds, folder_of(own.out), execution)
    planned = plan(recipe, asked, seeds)
    recipes = [members[place] for place in range(len(seeds)) for members in planned.values()]  # seeds vary slowest
    _refuse_twice(planned)
    out = folder_of(own.out)
    outcome = run(recipes, out / "runs", **execution)
    print(outcome.message())
    labels = {out / "runs" / recipe.id: name for name, members in planned.items() for recipe in members}
    records = [
        with_candidates({**record, "label": label}, read_history(path / "metrics.jsonl", []))
        for path, label in labels.items()
        if (record := result_of(path))
    ]
    if records:
        conclude(records, {path: label for path, label in labels.items() if path.is_dir()}, out, len(seeds))
    return outcome.exit_code


def _auto(common: Sequence[str]) -> dict[str, Any]:
    """The row of ``auto``, with its own fusion unless one is named for all rows."""
    named = any(argument.split("=")[0].split(".")[0] == "--fusion" for argument in common)
    fusion = {} if named else {"fusion": DEFAULT.fusion}
    return {**DEFAULT.options(), **fusion, "method": DEFAULT.method.__name__}


def conclude(records: Sequence[dict[str, Any]], runs: Mapping[Path, str], out: Path, seeds: int) -> None:
    """Print the table; write ``results.json``, ``results.md`` and ``report.html``; ``runs`` are folder -> row."""
    from counterpoise.report import write_report

    split = "test" if all(record.get("test") for record in records) else "val"
    summary = summarize(records, seeds=seeds, split=split)
    Console().print(summary.to_rich())
    write_text(out / "results.json", to_json({"runs": records, "summary": summary.to_dict()}, indent=2) + "\n")
    write_text(out / "results.md", summary.to_markdown())
    page = write_report(runs, out / "report.html", seeds=seeds, labels=runs)
    print(f"Open {page} in a browser; every number is in {out / 'results.json'}.")


def over_folds(
    recipe: Recipe, folds: str, asked: Sequence[Row], seeds: Sequence[int], out: Path, execution: Mapping[str, Any]
) -> int:
    """Run rows x folds x seeds, then compare them over the folds; the exit code."""
    from counterpoise.report.folds import write_folds

    recipes = fold_recipes(recipe, folds)
    planned: dict[str, list[tuple[int, Recipe]]] = {row.name: [] for row in asked}
    for number, member in enumerate(recipes):
        for row, runs in plan(member, asked, seeds, attempt=number == 0).items():
            planned[row] += [(number, one) for one in runs]
    each_fold = [fold_of(member, number) for number, member in enumerate(recipes)]
    print(f"{len(each_fold)} folds of {each_fold[0].learned + each_fold[0].tested} samples.", flush=True)
    _refuse_twice({row: [run for _, run in runs] for row, runs in planned.items()})
    by_number = sorted(((n, run) for runs in planned.values() for n, run in runs), key=lambda pair: pair[0])
    outcome = run([one for _, one in by_number], out / "runs", **execution)
    print(outcome.message())
    records = [
        {**record, "label": row, "fold": number}
        for row, runs in planned.items()
        for number, member in runs
        if (record := result_of(out / "runs" / member.id)) and record.get("test")
    ]
    if not records:
        return outcome.exit_code
    column = f"fused/{records[0].get('monitor', 'accuracy')}"
    tables = fold_tables(planned, each_fold, out, column)
    summary = summarize(by_fold(records), seeds=len(each_fold), ratio=ratio_of(each_fold))
    Console().print(summary.to_rich())
    print(tables.to_markdown())
    kept = {"runs": records, "summary": summary.to_dict(), "folds": tables.to_dict()}
    write_text(out / "results.json", to_json(kept, indent=2) + "\n")
    write_text(out / "results.md", f"{summary.to_markdown()}\n{tables.to_markdown()}")
    page = write_folds(summary, tables, recipe.source.name, out / "report.html")
    print(f"Open {page} in a browser; every number is in {out / 'results.json'}.")
    return outcome.exit_code


def rows(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], modalities: Iterable[str]) -> list[Row]:
    """The rows of a comparison; of a method that trains one modality, one for each.

    Args:
        names: of methods, and of variants in ``settings``.
        settings: method -> options for it alone; variant -> the same and its ``method``.
        modalities: of the data.
    """
    asked = []
    for name in names:
        options = dict(settings.get(name, {}))
        method = options.pop("method", name)
        each = {name: options}
        if method == UNIMODAL and "method.modality" not in options:
            each = {f"{name}({m})": {**options, "method.modality": m} for m in modalities}
        asked += [Row(row, method, own, label=None if method == name else row) for row, own in each.items()]
    return asked


def _refuse_twice(planned: Mapping[str, Sequence[Recipe]]) -> None:
    """UsageError when two rows are the same run."""
    rows: dict[str, str] = {}
    for name, recipes in planned.items():
        for recipe in recipes:
            if recipe.id in rows:
                there = f"{name} with seed {recipe.seed} is there as {rows[recipe.id]}"
                raise UsageError(f"A benchmark runs each setting once; {there}.")
            rows[recipe.id] = name


def _names(text: str, settings: Mapping[str, Any]) -> list[str]:
    known = list(dict.fromkeys([*methods.__all__, *settings]))
    if text == "all":
        return known
    if text == "settings" and settings:
        return list(settings)
    folded = {name.casefold(): name for name in [LABEL, *known]}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError("--methods: " + did_you_mean("method", name, folded.values()))
    return [folded[name.casefold()] for name in names]


def _settings(path: str | None) -> dict[str, dict[str, Any]]:
    if path is None:
        return {}
    content = read_yaml(Path(path).read_text(encoding="utf-8")) or {}
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f"--settings {path} must map method names to mappings of options.")
    folded = {name.casefold(): name for name in methods.__all__}
    settings = {folded.get(str(name).casefold(), str(name)): dict(options) for name, options in content.items()}
    for name, options in settings.items():
        method = str(options.pop("method", name))
        if name in methods.__all__ and method != name:
            raise UsageError(f"--settings {path}: {name} is a method itself; give the row of {method} another name.")
        if method.casefold() not in folded:
            raise UsageError(f"--settings {path}: " + did_you_mean("method", method, methods.__all__))
        if method != name:
            options["method"] = folded[method.casefold()]
    return settings
