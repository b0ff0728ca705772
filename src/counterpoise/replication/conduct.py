"""From raw files to the table: prepare, estimate, train what is missing, compare; started again, it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from counterpoise._files import write_text
from counterpoise._json import to_json
from counterpoise.benchmark.plan import done, run
from counterpoise.datasets import Dataset, Prepared, recipes, render
from counterpoise.metrics.result import result_of
from counterpoise.recipe.messages import UsageError, usage
from counterpoise.replication.asked import Row, plan, published_parts, recipe_of, without
from counterpoise.replication.compared import Circumstances, Compared, compare
from counterpoise.replication.estimate import estimate
from counterpoise.replication.shown import section, to_markdown, to_rich
from counterpoise.report import write_report


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        dataset: the data set.
        root: folder of its raw files.
        out: of everything that is made.
        split: that is prepared.
        rows: of the table.
        seeds: of the runs of each.
        options: of ``fit`` for every row, over the row's own.
        as_published: let the published test part select.
        incomplete: train although the data are not as published.
    """

    dataset: Dataset
    root: Path
    out: Path
    split: str
    rows: Sequence[recipes.PublishedRecipe]
    seeds: Sequence[int]
    options: Sequence[str]
    as_published: bool = False
    incomplete: bool = False


def reproduce(asked: Request, execution: Mapping[str, Any]) -> int:
    """Train the rows and compare them with what was published; the exit code.

    Args:
        asked: what is trained on what.
        execution: where and how many at a time: ``jobs``, ``threads`` and ``backend`` of the benchmark's ``run``.

    Raises:
        FileNotFoundError: the raw files are not there.
        UsageError: the data are not as published, or a row cannot be trained.
    """
    if asked.as_published and asked.split not in _published_splits(asked.dataset):
        raise UsageError(f"--as_published is about published parts; --split {asked.split} was made by this library.")
    made = _prepared(asked)
    manifest = published_parts(asked.dataset, asked.split, made.out) if asked.as_published else None
    rows = plan(asked.dataset, made, asked.rows, asked.seeds, asked.options, manifest)
    folder, runs = asked.out, asked.out / "runs"
    _say_how_long(asked, made, manifest, rows, runs, execution["jobs"])
    every = [row.runs[place] for place in range(len(asked.seeds)) for row in rows]  # seeds vary slowest
    outcome = run(every, runs, **execution)
    print(outcome.message())
    records = _records(rows, runs)
    if records:
        about = Circumstances(
            asked.dataset, asked.split, asked.as_published, asked.seeds, asked.options, sum(made.excluded.values())
        )
        table = compare(about, asked.rows, records)
        written = _written(table, rows, folder / ("selected_on_test" if asked.as_published else "table"), runs)
        Console().print(to_rich(table))
        print(f"Open {written / 'report.html'} in a browser; notes and sources of every cell: {written / 'table.md'}.")
    return outcome.exit_code


def _prepared(asked: Request) -> Prepared:
    """The prepared data set, as published unless the user takes what is there."""
    with usage():
        made = asked.dataset.prepare(asked.root, asked.out / "data", split=asked.split)
    off = [check for check in made.checks if not check.ok]
    print(f"Verified {made.manifest}: {len(made.checks) - len(off)} of {len(made.checks)} checks are as published.")
    if off and not asked.incomplete:
        raise UsageError(
            f"The data are not as published:\n{render(off)}\nSamples that are left out, with the reason: "
            f"{made.out / 'excluded.csv'}. Complete the raw folder, or give --incomplete to train on what is there; "
            "every cell then says so."
        )
    return made


def _published_splits(dataset: Dataset) -> list[str]:
    return [name for name, text in dataset.splits.items() if "not published" not in text]


def _say_how_long(
    asked: Request, made: Prepared, manifest: Path | None, rows: Sequence[Row], runs: Path, jobs: int
) -> None:
    """Print how many runs are left and about how long they take."""
    finished = {r.id for row in rows for r in row.runs if done(r, runs / r.id)}
    left = sum(r.id not in finished for row in rows for r in row.runs)
    if not left:
        return
    expected = estimate(
        recipe_of(made, "joint", without(asked.options, ("--method.",)), manifest),
        {row.recipe.label: row.runs for row in rows},
        finished,
        lambda recipe: (result_of(runs / recipe.id) or {}).get("seconds"),
        jobs,
    )
    print(expected.text(left), flush=True)


def _records(rows: Sequence[Row], runs: Path) -> dict[str, dict[int, dict[str, Any]]]:
    """Name of a row -> seed -> result of its run, where there is one."""
    records = {row.recipe.name: {r.seed: result_of(runs / r.id) for r in row.runs} for row in rows}
    whole = {name: {seed: record for seed, record in by.items() if record} for name, by in records.items()}
    return {name: by for name, by in whole.items() if by}


def _written(table: Compared, rows: Sequence[Row], folder: Path, runs: Path) -> Path:
    """The table as JSON, Markdown, picture and page in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "table.json", to_json(table.to_dict(), indent=1) + "\n")
    write_text(folder / "table.md", to_markdown(table))
    labels = {runs / r.id: row.recipe.label for row in rows for r in row.runs if (runs / r.id).is_dir()}
    write_report(
        labels,
        folder / "report.html",
        title=table.title,
        seeds=len(table.about.seeds),
        labels=labels,
        before=[section(table, folder)],
    )
    return folder
